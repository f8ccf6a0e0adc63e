//! A short mix of faults over network namespaces, judged; `gantry-e2e chaos --rounds 200` is the long one.

use gantry_e2e::chaos::{self, Plan};
use gantry_e2e::client::Library;
use gantry_e2e::{lab, logs, scene};

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
