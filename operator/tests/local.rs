//! `gantry-operator local` as a person uses it: real processes, real sockets, and brokers that are none (`fake_gantry`).
#![expect(clippy::unwrap_used, reason = "helpers of tests fail their test")]

mod fake_gantry;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

const OPERATOR: &str = env!("CARGO_BIN_EXE_gantry-operator");

/// Far longer than anything takes.
const PATIENCE: Duration = Duration::from_mins(1);

const MANIFEST: &str = include_str!("../../charts/gantry/examples/broker-group.yaml");

/// An operator in the foreground, with its output.
struct Up {
    dir: TempDir,
    child: Child,
    lines: Receiver<String>,
    /// All processes that it was seen to have.
    children: Mutex<BTreeSet<i32>>,
}

/// The process that `fake_gantry` is started as. Not a test by itself.
#[test]
#[ignore = "run by fake_gantry.sh only"]
fn fake_broker() {
    fake_gantry::broker();
}

fn write_manifest(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("group.yaml");
    std::fs::write(&path, text).unwrap();
    path
}

fn up(manifest: &str) -> Up {
    up_in(tempfile::tempdir().unwrap(), manifest)
}

fn up_in(dir: TempDir, manifest: &str) -> Up {
    let file = write_manifest(dir.path(), manifest);
    let mut child = Command::new(OPERATOR)
        .args(["local", "up"])
        .arg(file)
        .args(["--nameserver-port", "0", "--master-port", "0", "--dir"])
        .arg(dir.path().join("state"))
        .arg("--gantry")
        .arg(fake_gantry::install(dir.path()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = lines_of(child.stdout.take().unwrap());
    Up { dir, child, lines, children: Mutex::default() }
}

/// Read by a thread of their own, so that whoever waits for one can give up.
fn lines_of(stdout: ChildStdout) -> Receiver<String> {
    let (give, take) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            // Nobody to read it: the test is over.
            let Ok(()) = give.send(line.unwrap()) else { return };
        }
    });
    take
}

impl Up {
    /// Reads lines up to one that holds `words`.
    fn wait_for(&mut self, words: &str) -> String {
        let mut seen = String::new();
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|why| panic!("{why} before a line with {words:?}; its lines:\n{seen}"));
            if line.contains(words) {
                return line;
            }
            seen.push_str(&line);
            seen.push('\n');
        }
    }

    fn local(&self, args: &[&str]) -> Output {
        let state = self.dir.path().join("state");
        Command::new(OPERATOR).arg("local").args(args).arg("--dir").arg(state).output().unwrap()
    }

    fn group(&self) -> Value {
        let output = self.local(&["status", "--json"]);
        assert!(output.status.success(), "{output:?}");
        let group = serde_json::from_slice::<Value>(&output.stdout).unwrap()["groups"][0].take();
        self.children.lock().extend(pids_of(&group));
        group
    }

    fn pids(&self) -> Vec<i32> {
        pids_of(&self.group())
    }

    fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let group = self.group();
            if holds(&group) {
                return group;
            }
            assert!(Instant::now() < deadline, "never: {what}; at last: {group}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whom the stable address leads to.
    fn who_answers(&self) -> String {
        let address = self.group()["address"].as_str().unwrap().to_owned();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"?").unwrap();
        let mut name = String::new();
        BufReader::new(stream).read_line(&mut name).unwrap();
        name.trim().to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its exit code and whatever else it said.
    fn wait(mut self) -> (Option<i32>, String, TempDir) {
        let mut rest = String::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => rest = rest + &line + "\n",
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it doesn't end; so far:\n{rest}"),
            }
        }
        let code = self.child.wait().unwrap().code();
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        (code, rest, dir)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        // Its children end with it. Their directory goes next, and a process that still writes there would be in its way.
        let children: Vec<_> = self.children.lock().iter().copied().collect();
        wait_until_gone(&children);
    }
}

fn pids_of(group: &Value) -> Vec<i32> {
    let replicas = group["replicas"].as_array().unwrap();
    replicas.iter().filter_map(|replica| replica["pid"].as_i64()).map(|pid| pid as i32).collect()
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

fn wait_until_gone(pids: &[i32]) {
    let deadline = Instant::now() + PATIENCE;
    while let Some(pid) = pids.iter().find(|pid| runs(**pid)) {
        assert!(Instant::now() < deadline, "process {pid} is left behind");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A dead process whose new parent doesn't collect it (in a container, say) doesn't run.
fn runs(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    status.is_ok_and(|status| !status.rsplit(") ").next().is_some_and(|state| state.starts_with('Z')))
}

fn failure(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "not one line: {text}");
    text
}

#[test]
fn a_group_comes_up_survives_its_master_is_switched_over_and_stops() {
    let mut up = up(MANIFEST);
    let ready = up.wait_for("ready");
    let group = up.until("all three are there", |group| {
        group["replicas"].as_array().unwrap().iter().all(|replica| !replica["role"].is_null())
    });
    let (address, nameserver) = (group["address"].as_str().unwrap(), group["nameserver"].as_str().unwrap());
    assert!(
        ready.contains(&format!(
            "broker-a ready: master broker-a-0 epoch 1, address {address}, name server {nameserver}"
        )),
        "{ready}"
    );
    assert_eq!(up.who_answers(), "broker-a-0");

    kill(group["replicas"][0]["pid"].as_i64().unwrap() as i32);
    up.wait_for("broker-a-0 ended: killed (SIGKILL)");
    up.wait_for("broker-a serves again: master broker-a-1 epoch 2");
    assert_eq!(up.who_answers(), "broker-a-1");
    let group = up.until("the dead one is back", |group| group["replicas"][0]["role"] == "slave");
    assert_eq!(group["replicas"][0]["restarts"], 1);
    assert_eq!((&group["epoch"], &group["master"]), (&2.into(), &"broker-a-1".into()));

    let switched = up.local(&["switchover", "broker-a-2"]);
    let said = String::from_utf8(switched.stdout).unwrap();
    assert!(said.starts_with("broker-a-2 is master, epoch 3; sends paused for "), "{said}");
    assert_eq!(up.who_answers(), "broker-a-2");
    let again = failure(&up.local(&["switchover", "broker-a-2"]));
    assert!(again.contains("no switchover to broker-a-2: broker-a-2 is the master already"), "{again}");
    let nobody = failure(&up.local(&["switchover", "broker-b-7"]));
    assert!(nobody.contains("there is no replica \"broker-b-7\""), "{nobody}");
    let table = String::from_utf8(up.local(&["status"]).stdout).unwrap();
    assert!(table.contains("broker-a-2  master  yes"), "{table}");

    let pids = up.pids();
    let down = up.local(&["down"]);
    assert_eq!(String::from_utf8(down.stdout).unwrap(), "stopped\n");
    wait_until_gone(&pids);
    let nothing = failure(&up.local(&["down"]));
    assert!(nothing.contains("nothing runs on"), "{nothing}");
    let (code, rest, _dir) = up.wait();
    assert_eq!(code, Some(0));
    assert!(rest.trim_end().ends_with("stopped"), "{rest}");
}

#[test]
fn an_interrupt_stops_everything_and_the_next_start_goes_on_from_the_record() {
    let mut first = up(MANIFEST);
    first.wait_for("ready");
    let pids = first.pids();
    first.signal(Signal::INT);
    let (code, rest, dir) = first.wait();
    assert_eq!(code, Some(0), "{rest}");
    wait_until_gone(&pids);
    let mut second = up_in(dir, MANIFEST);
    second.wait_for("ready");
    assert!(second.group()["epoch"].as_u64() > Some(1), "a master that restarted needs a new epoch");
}

#[test]
fn a_killed_operator_leaves_no_process_behind_and_its_directory_can_be_used_again() {
    let mut first = up(MANIFEST);
    first.wait_for("ready");
    let pids = first.pids();
    first.signal(Signal::KILL);
    let (_, _, dir) = first.wait();
    wait_until_gone(&pids);
    let mut second = up_in(dir, MANIFEST);
    second.wait_for("ready");
}

#[test]
fn two_groups_have_an_address_each() {
    let manifest = format!("{MANIFEST}---\n{}", MANIFEST.replace("broker-a", "broker-b"));
    let mut up = up(&manifest);
    up.wait_for("ready");
    up.wait_for("ready");
    let output = up.local(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    let groups = status["groups"].as_array().unwrap();
    assert_eq!((&groups[0]["master"], &groups[1]["master"]), (&"broker-a-0".into(), &"broker-b-0".into()));
    assert_ne!(groups[0]["address"], groups[1]["address"]);
    assert_eq!(groups[0]["nameserver"], groups[1]["nameserver"]);
}

#[test]
fn a_second_operator_on_the_same_directory_is_refused() {
    let mut up = up(MANIFEST);
    up.wait_for("ready");
    let file = up.dir.path().join("group.yaml");
    let gantry = fake_gantry::install(up.dir.path());
    let line = failure(&up.local(&["up", file.to_str().unwrap(), "--gantry", gantry.to_str().unwrap()]));
    assert!(line.contains(&format!("an operator (process {}) runs on", up.child.id())), "{line}");
}

#[test]
fn what_cannot_be_run_is_one_line_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let gantry = fake_gantry::install(dir.path());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let broken = dir.path().join("broken");
    std::fs::write(&broken, "#!/bin/sh\necho out of order >&2\nexit 3\n").unwrap();
    fake_gantry::make_executable(&broken);
    let misspelled = MANIFEST.replace("minInSync", "minInsync");
    let identity = format!("{MANIFEST}  config: {{brokerId: \"0\"}}\n");
    let (gantry, broken) = (gantry.to_str().unwrap(), broken.to_str().unwrap());
    let cases: [(&str, &[&str], &str); 7] = [
        (&misspelled, &["--gantry", gantry], "unknown field spec.replication.minInsync"),
        (&identity, &["--gantry", gantry], "spec.config.brokerId: is set by the operator"),
        (MANIFEST, &["--gantry", "/nonexistent/gantry"], "--gantry /nonexistent/gantry: no executable file"),
        (MANIFEST, &["--gantry", gantry, "--nameserver-port", &port], "for the name server; choose another port"),
        (
            MANIFEST,
            &["--gantry", gantry, "--nameserver-port", "0", "--master-port", &port],
            "for the master of broker-a",
        ),
        (MANIFEST, &["--gantry", broken, "--nameserver-port", "0", "--master-port", "0"], "out of order"),
        (MANIFEST, &["--gantry", gantry, "--master-port", "0", "--master-port", "0"], "2 master ports are given for 1"),
    ];
    for (manifest, args, said) in cases {
        let file = write_manifest(dir.path(), manifest);
        let state = dir.path().join("state");
        let output =
            Command::new(OPERATOR).args(["local", "up"]).arg(file).args(args).arg("--dir").arg(&state).output();
        let line = failure(&output.unwrap());
        assert!(line.starts_with("gantry-operator: ") && line.contains(said), "{args:?}: {line}");
        assert!(!state.join("control.sock").exists());
    }
}

#[test]
fn a_state_directory_that_cannot_be_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = write_manifest(dir.path(), MANIFEST);
    let gantry = fake_gantry::install(dir.path());
    // Not one that may not be written: the tests may run as root.
    let state = file.join("state");
    let args = [Path::new("local"), Path::new("up"), &file, Path::new("--gantry"), &gantry, Path::new("--dir"), &state];
    let line = failure(&Command::new(OPERATOR).args(args).output().unwrap());
    assert!(line.contains(&format!("can't make state directory {}", state.display())), "{line}");
}

#[test]
fn with_nothing_running_each_verb_says_so() {
    let dir = tempfile::tempdir().unwrap();
    for verb in [&["status"][..], &["status", "--json"], &["switchover", "broker-a-1"], &["down"]] {
        let output = Command::new(OPERATOR).arg("local").args(verb).arg("--dir").arg(dir.path()).output().unwrap();
        let line = failure(&output);
        assert!(line.contains(&format!("nothing runs on {}", dir.path().display())), "{line}");
    }
}
