//! A short mix of faults over network namespaces, judged; `gantry-e2e chaos --rounds 200` is the long one.

use std::process::Command;
use std::time::Duration;

use gantry_e2e::chaos::{self, Plan};
use gantry_e2e::client::Library;
use gantry_e2e::lab::{self, Cut, Lab, Node};
use gantry_e2e::{logs, process, scene, wait};

#[test]
#[ignore = "end to end: run e2e/test"]
fn faults_over_network_namespaces_lose_nothing_acknowledged_and_make_no_second_master() -> anyhow::Result<()> {
    if let Some(why) = lab::unavailable() {
        logs::say(&format!("skipped: {why}"));
        return Ok(());
    }
    let seed = scene::number("GANTRY_SEED", fastrand::u64(..1_000_000))?;
    let rounds = scene::number("GANTRY_CHAOS_ROUNDS", 7)? as u32;
    let report = chaos::run(&Plan::new(Library::Java5, rounds, seed))?;
    logs::say(&report.table());
    assert_eq!(report.rounds.len(), rounds as usize);
    assert_eq!(report.rounds.iter().map(|round| round.window.lost).sum::<u64>(), 0);
    assert!(report.attributed > 0 && report.compared_bytes > 0, "nothing was judged");
    Ok(())
}

/// Whether packets get there and back: a connection that is refused is one that was answered.
fn reaches(from: Node, to: Node) -> anyhow::Result<bool> {
    let script = format!("exec 3<>/dev/tcp/{}/7", to.address());
    let output = Lab::command(from, "timeout").args(["2", "bash", "-c", &script]).output()?;
    let refused = String::from_utf8_lossy(&output.stderr).contains("refused");
    assert!(refused || output.status.code() == Some(124), "{output:?}");
    Ok(refused)
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn cuts_lose_what_they_say_and_no_namespace_is_left_behind() -> anyhow::Result<()> {
    if let Some(why) = lab::unavailable() {
        logs::say(&format!("skipped: {why}"));
        return Ok(());
    }
    let lab = Lab::new(2)?;
    let (one, other) = (Node::Replica(0), Node::Replica(1));
    assert!(reaches(one, other)? && reaches(other, Node::Hub)? && reaches(Node::Client, Node::Hub)?);
    lab.cut(&[Cut::between(one, other)])?;
    assert!(!reaches(one, other)? && reaches(one, Node::Hub)? && reaches(other, Node::Hub)?);
    lab.cut(&[Cut::one_way(other, one)])?;
    assert!(!reaches(one, other)?, "what it hears is no answer");
    lab.cut(&[Cut::between(one, Node::Hub).at_port(9)])?;
    assert!(reaches(one, other)? && reaches(one, Node::Hub)?, "another port");
    lab.cut(&[Cut::between(one, Node::Hub).at_port(7)])?;
    assert!(!reaches(one, Node::Hub)? && reaches(other, Node::Hub)?);
    lab.cut(&[])?;
    lab.slow(0, 1_000)?;
    lab.slow(0, 500)?;
    assert!(reaches(one, Node::Hub)? && reaches(one, other)?);
    lab.unslow(0)?;
    drop(lab);
    let own = format!("gantry-e2e-{}-", std::process::id());
    wait::until("no namespace of this process", Duration::from_secs(10), || {
        Ok((!process::run(Command::new("ip").args(["netns", "list"]), None)?.contains(&own)).then_some(()))
    })
}
