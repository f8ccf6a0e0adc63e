//! On a real Kubernetes of one node: what happens around a group and not to it. Bad manifests, a group of the same name elsewhere, an API
//! server that is away or slow. As root.

use gantry_e2e::checker::{Circumstances, Span};
use gantry_e2e::client::Running;
use gantry_e2e::kube::cluster::{self, Cluster};
use gantry_e2e::kube::follow::{Follower, Status};
use gantry_e2e::kube::installation::Installation;
use gantry_e2e::kube::twins::Twins;
use gantry_e2e::kube::{bad_manifests, client};
use gantry_e2e::scene::{self, CLIENT_WITHIN};
use gantry_e2e::{logs, wait};

const GROUP: &str = "broker-a";
/// Messages a second.
const RATE: u64 = 300;

/// One story, since a cluster, a chart and a group cost more to set up than what happens around them.
#[test]
#[ignore = "end to end: run e2e/test"]
fn what_happens_around_a_group_costs_no_message_and_no_healthy_master() -> anyhow::Result<()> {
    if let Some(why) = cluster::unavailable() {
        logs::say(&format!("skipped: {why}"));
        return Ok(());
    }
    let cluster = Cluster::start()?;
    let installation = Installation::install(&cluster)?;
    let mut group = installation.apply_example()?;
    let twins = Twins::apply(&installation)?;
    installation.wait_for(&mut group, "a group that is ready", Status::is_whole)?;
    logs::say(&format!("{} bad manifests were refused", bad_manifests::are_refused(&installation, GROUP)?));
    installation.or_tell(twins.one_fails_over_and_the_other_does_not())?;
    drop(twins);
    Story::begin(&installation, group)?.tell()
}

struct Story<'a> {
    installation: &'a Installation<'a>,
    group: Follower,
    pair: Running,
    /// What nobody was to notice, and from when until when.
    quiet: Vec<(&'static str, Span)>,
}

impl<'a> Story<'a> {
    fn begin(installation: &'a Installation<'a>, group: Follower) -> anyhow::Result<Self> {
        installation.client_ready()?;
        let job = client::job_past_the_api(installation, "pair", "Faults")?;
        let mut pair = job.with("rate", RATE).until_told().start()?;
        pair.wait_acked(RATE, CLIENT_WITHIN)?;
        Ok(Self { installation, group, pair, quiet: Vec::new() })
    }

    fn tell(mut self) -> anyhow::Result<()> {
        self.without_the_api_server()?;
        self.with_a_slow_api_server()?;
        self.end()
    }

    fn cluster(&self) -> &'a Cluster {
        self.installation.cluster()
    }

    fn whole(&mut self) -> anyhow::Result<Status> {
        self.installation.wait_for(&mut self.group, "a whole group", Status::is_whole)
    }

    /// The producer goes on for so many messages.
    fn sends_go_on(&mut self, messages: u64) -> anyhow::Result<()> {
        let acked = self.pair.progress().acked;
        self.installation.or_tell(self.pair.wait_acked(acked + messages, CLIENT_WITHIN))
    }

    /// Nobody is to notice what goes on meanwhile: the master stays, and no send fails.
    fn quietly(
        &mut self,
        what: &'static str,
        go_on: impl FnOnce(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (before, errors) = (self.whole()?, self.pair.progress().errors);
        let from_us = wait::now_us();
        go_on(self)?;
        let to_us = wait::now_us();
        // The operator has seen it all, and writes again how far everybody is.
        let after = self.installation.wait_for(&mut self.group, "a status after it", |status| {
            status.is_whole() && status.master_end > before.master_end
        })?;
        assert_eq!(
            (&after.master, after.epoch),
            (&before.master, before.epoch),
            "{what}: a healthy master was demoted"
        );
        assert_eq!(self.pair.progress().errors, errors, "{what}: sends failed");
        self.quiet.push((what, Span { from_us, to_us }));
        logs::say(&format!("{what}: {} stays master of epoch {}", after.master.unwrap_or_default(), after.epoch));
        Ok(())
    }

    fn without_the_api_server(&mut self) -> anyhow::Result<()> {
        self.quietly("API server stopped for a minute", |story| {
            let _stopped = story.cluster().stop_program("kube-apiserver")?;
            story.sends_go_on(60 * RATE)
        })
    }

    /// It answers a third of the time.
    fn with_a_slow_api_server(&mut self) -> anyhow::Result<()> {
        self.quietly("API server slow", |story| {
            for _ in 0..4 {
                let stopped = story.cluster().stop_program("kube-apiserver")?;
                story.sends_go_on(2 * RATE)?;
                drop(stopped);
                story.sends_go_on(RATE)?;
            }
            Ok(())
        })
    }

    fn end(mut self) -> anyhow::Result<()> {
        self.pair.tell_end();
        let outcome = self.installation.or_tell(self.pair.finish(CLIENT_WITHIN))?;
        client::fetch_history(self.installation, &outcome)?;
        let spans = self.quiet.iter().map(|(_, span)| *span).collect();
        let verdict = scene::judge(&[&outcome], &Circumstances { spans, ..scene::drained() })?;
        for ((what, span), window) in self.quiet.iter().zip(&verdict.windows) {
            let seconds = (span.to_us - span.from_us) / 1_000_000;
            let pause = window.longest_pause_us / 1000;
            logs::say(&format!("{what} ({seconds} s): {} acknowledged, longest pause {pause} ms", window.acked));
        }
        logs::say(&format!("{} sends failed at the application; {verdict}", outcome.progress.errors));
        Ok(())
    }
}
