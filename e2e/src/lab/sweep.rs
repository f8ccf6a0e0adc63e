//! What killed runs left behind: namespaces with the processes in them, disks, folders.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{PREFIX, disk};
use crate::logs;
use crate::process::{self, Signal, run};

/// Removes everything whose name holds the number of a process that is no more.
pub(crate) fn leftovers() {
    for name in names_in(Path::new("/run/netns")).filter(|name| is_orphan(name)) {
        tell(&name, remove(&name));
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for folder in mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new) {
        if folder.components().any(|part| is_orphan(&part.as_os_str().to_string_lossy())) {
            tell(&folder.display().to_string(), disk::unmount(folder));
        }
    }
    let folders = std::env::temp_dir();
    for name in names_in(&folders).filter(|name| is_orphan(name)) {
        tell(&name, fs::remove_dir_all(folders.join(&name)).map_err(Into::into));
    }
}

/// Ends all processes in a namespace and removes it.
pub(super) fn remove(name: &str) -> anyhow::Result<()> {
    let pids: Vec<u32> = run(Command::new("ip").args(["netns", "pids", name]), None)?
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect();
    for pid in &pids {
        // Gone already is as good.
        process::signal(*pid, Signal::KILL).ok();
    }
    process::wait_gone(&pids)?;
    run(Command::new("ip").args(["netns", "del", name]), None).map(|_| ())
}

fn names_in(folder: &Path) -> impl Iterator<Item = String> + use<> {
    let entries: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.into_iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
}

/// Whether it is a name of ours with the number of a process that doesn't run.
fn is_orphan(name: &str) -> bool {
    let rest = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-'));
    rest.and_then(|(pid, _)| pid.parse().ok()).is_some_and(|pid| !process::is_alive(pid))
}

fn tell(what: &str, done: anyhow::Result<()>) {
    match done {
        Ok(()) => logs::say(&format!("removed {what}, left behind by a run that was killed")),
        Err(error) => logs::say(&format!("{what} was left behind by a run that was killed, and stays: {error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_names_a_process_that_is_no_more_is_an_orphan() {
        let me = std::process::id();
        assert!(!is_orphan(&format!("{PREFIX}{me}-hub")));
        // Above the largest number that Linux gives.
        assert!(is_orphan(&format!("{PREFIX}4194305-hub")));
        for other in ["hub", "gantry-e2e-", "gantry-e2e-AbC123", "gantry-e2e-x-hub", "gantry-client-4194305-x"] {
            assert!(!is_orphan(other), "{other}");
        }
    }
}
