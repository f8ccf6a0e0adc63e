//! Processes: who is whose child, who lives, and signals.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

use crate::wait;

/// Sends a signal; a process that is gone already is an error that says so.
pub fn signal(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let target = Pid::from_raw(pid as i32).with_context(|| format!("{pid} is no process id"))?;
    kill_process(target, signal).with_context(|| format!("sending {signal:?} to process {pid}"))
}

/// Whether a process runs; one that has ended and waits for its parent doesn't.
pub fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// Runs a program to its end and returns its standard output; a failure is an error with what it said.
pub fn run(command: &mut Command, input: Option<&str>) -> anyhow::Result<String> {
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(input.as_bytes()).with_context(|| format!("writing to {command:?}"))?;
    }
    let output = child.wait_with_output().with_context(|| format!("waiting for {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{command:?}: {}: {said}{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(said)
}

/// Why none of these programs can be used here as root: for tests that are skipped then, and say so.
pub fn cant_use_as_root(names: &[&str]) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |name: &str| std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    let missing: Vec<_> = names.iter().copied().filter(|name| !is_there(name)).collect();
    (!missing.is_empty()).then(|| format!("missing: {}", missing.join(", ")))
}

/// All children of a process, their children and so on, itself not included.
pub fn descendants(of: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat(pid)?.parent)))
        .collect();
    let mut found = vec![of];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(parents.iter().filter(|(_, its)| *its == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// Ends a process and all below it with SIGKILL, at once, and waits until they are gone. The process itself is stopped
/// first so that it can't start others in place of those that die.
pub fn kill_tree(root: u32) -> anyhow::Result<()> {
    // One that is gone already is what is wanted here.
    signal(root, Signal::STOP).ok();
    let mut all = descendants(root);
    all.push(root);
    for pid in &all {
        signal(*pid, Signal::KILL).ok();
    }
    wait_gone(&all)
}

/// Waits until none of these processes runs.
pub fn wait_gone(pids: &[u32]) -> anyhow::Result<()> {
    wait::until(&format!("the end of processes {pids:?}"), Duration::from_secs(20), || {
        Ok((!pids.iter().any(|pid| is_alive(*pid))).then_some(()))
    })
}

/// CPU time of a process so far, user and system, all threads.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    // Linux counts in hundredths of a second for user space, whatever the kernel's own tick is.
    stat(pid).map(|stat| Duration::from_millis(10 * stat.ticks))
}

/// Anonymous resident memory of a process in bytes: what it allocated, without the pages of files that it maps.
pub fn rss_anon_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

struct Stat {
    state: char,
    parent: u32,
    ticks: u64,
}

/// The fields of /proc/PID/stat (proc(5)); the command in parentheses may hold anything, spaces and parentheses too.
fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Stat { state: fields.first()?.chars().next()?, parent: fields.get(1)?.parse().ok()?, ticks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_of_processes_is_found_and_killed_whole() {
        let mut shell =
            Command::new("sh").args(["-c", "sleep 1000 & sleep 1000 & wait"]).stdout(Stdio::null()).spawn().unwrap();
        let children = wait::until("two children", Duration::from_secs(10), || {
            Ok(Some(descendants(shell.id())).filter(|children| children.len() == 2))
        })
        .unwrap();
        assert!(children.iter().all(|pid| is_alive(*pid)));
        kill_tree(shell.id()).unwrap();
        assert!(!children.iter().any(|pid| is_alive(*pid)));
        shell.wait().unwrap();
    }

    #[test]
    fn the_figures_of_this_process_can_be_read() {
        let me = std::process::id();
        assert!(cpu_time(me).is_some());
        assert!(rss_anon_bytes(me).unwrap() > 0);
        assert!(is_alive(me));
    }
}
