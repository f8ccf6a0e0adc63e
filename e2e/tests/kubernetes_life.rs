//! A group's life on a real Kubernetes: a new image, more and fewer replicas, a master by request, a volume that somebody deletes, sleep, and its
//! end. As root.

use anyhow::Context as _;
use gantry_e2e::checker::Circumstances;
use gantry_e2e::client::Running;
use gantry_e2e::kube::client;
use gantry_e2e::kube::cluster::{self, Cluster};
use gantry_e2e::kube::follow::{Follower, Status};
use gantry_e2e::kube::installation::Installation;
use gantry_e2e::scene::{self, CLIENT_WITHIN};
use gantry_e2e::{logs, wait};
use serde_json::json;

/// `minInSync` of the example.
const MIN_IN_SYNC: usize = 2;

/// One story, since a cluster, a chart and a group cost more to set up than what happens to them.
#[test]
#[ignore = "end to end: run e2e/test"]
fn a_group_on_kubernetes_lives_through_what_people_do_to_it() -> anyhow::Result<()> {
    if let Some(why) = cluster::unavailable() {
        logs::say(&format!("skipped: {why}"));
        return Ok(());
    }
    let cluster = Cluster::start()?;
    let newer = cluster.tag_again("gantry", "e2e-newer")?;
    let installation = Installation::install(&cluster)?;
    let mut group = installation.apply_example()?;
    installation.wait_for(&mut group, "a group that is ready", Status::is_whole)?;
    installation.client_ready()?;
    let mut life = Life { installation: &installation, group, load: None, chapters: Vec::new() };
    life.under_load(&newer)?;
    life.paused()?;
    life.a_volume_that_cannot_grow()?;
    life.asleep_and_awake()?;
    life.ends_with_its_volumes()
}

struct Life<'a> {
    installation: &'a Installation<'a>,
    group: Follower,
    load: Option<Running>,
    chapters: Vec<Chapter>,
}

/// What was done, and when.
struct Chapter {
    title: String,
    at_us: i64,
    whole_ms: i64,
    failed_sends: u64,
}

impl Life<'_> {
    fn under_load(&mut self, newer: &str) -> anyhow::Result<()> {
        let mut pair = client::job(self.installation, "pair", "Life")?.with("rate", 300).until_told().start()?;
        pair.wait_acked(300, CLIENT_WITHIN)?;
        self.load = Some(pair);
        self.chapter("a new image is rolled", |life| life.roll(newer))?;
        for replicas in [5, 2, 3] {
            self.chapter(&format!("scaled to {replicas}"), |life| life.scale(replicas))?;
        }
        self.chapter("a master by request", Self::switchover)?;
        self.chapter("the master's volume is deleted", Self::lose_volume)?;
        let fewest = self.group.fewest_in_sync();
        assert!(fewest.is_some_and(|fewest| fewest >= MIN_IN_SYNC), "only {fewest:?} were in sync at one time");
        self.judge()
    }

    /// Does it, waits until the group is as it shall be and sends pass, and notes what clients noticed.
    fn chapter(&mut self, title: &str, happens: impl FnOnce(&mut Self) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let before = self.load.as_ref().map_or(0, |load| load.progress().errors);
        let at_us = wait::now_us();
        happens(self).with_context(|| title.to_owned())?;
        let status = self.settled(title)?;
        let load = self.load.as_mut().context("there is no load")?;
        let whole_ms = (wait::now_us() - at_us) / 1000;
        let acked = load.progress().acked;
        self.installation.or_tell(load.wait_acked(acked + 100, CLIENT_WITHIN))?;
        let failed_sends = load.progress().errors - before;
        logs::say(&format!("{title}: {whole_ms} ms, {failed_sends} failed sends, {status:?}"));
        self.chapters.push(Chapter { title: title.to_owned(), at_us, whole_ms, failed_sends });
        Ok(())
    }

    fn settled(&mut self, what: &str) -> anyhow::Result<Status> {
        self.installation.wait_for(&mut self.group, &format!("a whole and settled group: {what}"), Status::is_settled)
    }

    fn roll(&mut self, image: &str) -> anyhow::Result<()> {
        let before = self.group.status();
        self.installation.patch(&json!({"spec": {"image": image}}))?;
        let after = self.settled("rolled")?;
        let images = self.installation.images()?;
        assert!(images.len() == 3 && images.values().all(|now| now == image), "{images:?}");
        assert!(after.epoch > before.epoch && after.master != before.master, "{before:?} -> {after:?}");
        assert_eq!(after.failover_cause.as_deref(), Some("Planned"), "a roll is no failover");
        logs::say(&format!("the roll's switchover took {:?} ms", after.failover_ms));
        Ok(())
    }

    fn scale(&mut self, replicas: u32) -> anyhow::Result<()> {
        self.installation.scale(replicas)?;
        let whole = format!("{replicas}/{replicas}");
        let there = Some(u64::from(replicas));
        let wanted =
            |status: &Status| status.is_settled() && status.in_sync == whole && status.current_replicas == there;
        self.installation.wait_for(&mut self.group, &whole, wanted).map(drop)
    }

    fn switchover(&mut self) -> anyhow::Result<()> {
        let before = self.settled("before a switchover")?;
        let names = ["broker-a-0", "broker-a-1", "broker-a-2"];
        let to = names.into_iter().find(|name| before.master.as_deref() != Some(name)).context("no other replica")?;
        self.installation.annotate(&format!("gantry.rs/switchover-to={to}"))?;
        let done = |status: &Status| status.master.as_deref() == Some(to) && !status.switchover_asked;
        let after = self.installation.wait_for(&mut self.group, "the master that was asked for", done)?;
        assert_eq!((after.epoch, after.failover_cause.as_deref()), (before.epoch + 1, Some("Planned")));
        logs::say(self.installation.wait_event("SwitchedOver")?.trim());
        // Once more: it is refused, with the reason, and is over, too.
        self.installation.annotate(&format!("gantry.rs/switchover-to={to}"))?;
        let why = self.installation.wait_event("SwitchoverRefused")?;
        assert!(why.contains("is the master already"), "{why}");
        self.installation.wait_for(&mut self.group, "no annotation any more", |status| !status.switchover_asked)?;
        Ok(())
    }

    fn lose_volume(&mut self) -> anyhow::Result<()> {
        let before = self.settled("before a volume is deleted")?;
        let master = before.master.context("there is no master")?;
        self.installation.replace_volume(&master)?;
        let again = |status: &Status| status.is_settled() && status.master.as_ref().is_some_and(|now| *now != master);
        let after = self.installation.wait_for(&mut self.group, "its replica in sync again, from nothing", again)?;
        assert_eq!((after.epoch, after.failover_cause.as_deref()), (before.epoch + 1, Some("Planned")));
        Ok(())
    }

    fn judge(&mut self) -> anyhow::Result<()> {
        let mut pair = self.load.take().context("there is no load")?;
        pair.tell_end();
        let outcome = self.installation.or_tell(pair.finish(CLIENT_WITHIN))?;
        client::fetch_history(self.installation, &outcome)?;
        let faults_us = self.chapters.iter().map(|chapter| chapter.at_us).collect();
        let verdict = scene::judge(&[&outcome], &Circumstances { faults_us, ..scene::drained() })?;
        for (chapter, gap) in self.chapters.iter().zip(&verdict.gaps) {
            let Chapter { title, whole_ms, failed_sends, .. } = chapter;
            let gap = gap.to_next_ack_us.map_or("never".to_owned(), |gap_us| format!("{} ms", gap_us / 1000));
            logs::say(&format!(
                "{title}: {failed_sends} failed sends, next acknowledged after {gap}; whole after {whole_ms} ms"
            ));
        }
        logs::say(&verdict.to_string());
        Ok(())
    }

    fn paused(&mut self) -> anyhow::Result<()> {
        self.installation.annotate("gantry.rs/paused=true")?;
        let paused = |status: &Status| status.says("Paused", "True Annotation");
        self.installation.wait_for(&mut self.group, "a paused group", paused)?;
        self.installation.scale(4)?;
        let seen = |status: &Status| paused(status) && status.in_sync == "3/4";
        let status = self.installation.wait_for(&mut self.group, "a status that knows of four", seen)?;
        assert_eq!((status.current_replicas, self.installation.images()?.len()), (Some(3), 3));
        self.installation.scale(3)?;
        self.installation.annotate("gantry.rs/paused-")?;
        self.settled("no longer paused").map(drop)
    }

    /// The cluster's storage class lets no volume grow: that is said, and stops nothing.
    fn a_volume_that_cannot_grow(&mut self) -> anyhow::Result<()> {
        self.installation.patch(&json!({"spec": {"storage": {"size": "30Gi"}}}))?;
        let refused = |status: &Status| status.says("VolumesReady", "False Refused") && status.ready;
        self.installation.wait_for(&mut self.group, "a refusal", refused)?;
        Ok(())
    }

    fn asleep_and_awake(&mut self) -> anyhow::Result<()> {
        let sent = client::job(self.installation, "load", "Sleep")?.with("messages", 2_000).run(CLIENT_WITHIN)?;
        assert!(sent.is_complete(), "{sent}");
        client::fetch_history(self.installation, &sent)?;
        let kept = self.installation.keep_history()?;
        let before = self.installation.volumes()?;
        self.installation.annotate("gantry.rs/hibernate=true")?;
        let asleep = |status: &Status| status.says("Hibernated", "True NoPods") && status.current_replicas == Some(0);
        self.installation.wait_for(&mut self.group, "a group that sleeps", asleep)?;
        self.installation.wait_gone("pods")?;
        assert_eq!(self.installation.volumes()?, before, "volumes stay");
        let at_us = wait::now_us();
        self.installation.annotate("gantry.rs/hibernate-")?;
        self.settled("awake")?;
        logs::say(&format!("awake and whole after {} ms", (wait::now_us() - at_us) / 1000));
        let received = client::job(self.installation, "consume", "Sleep")?
            .with("group", "awake")
            .with("expect-acked", kept)
            .run(CLIENT_WITHIN)?;
        client::fetch_history(self.installation, &received)?;
        let verdict = scene::judge(&[&sent, &received], &scene::drained())?;
        assert_eq!((verdict.counts.acked, verdict.counts.received), (2_000, 2_000), "{verdict}");
        Ok(())
    }

    fn ends_with_its_volumes(&mut self) -> anyhow::Result<()> {
        let policy = |policy: &str| json!({"spec": {"storage": {"deletionPolicy": policy}}});
        let volumes = self.installation.volumes()?.len();
        assert_eq!(volumes, 5, "those of replicas that are no more stay, too");
        self.installation.wait_volumes_owned(false)?;
        self.installation.patch(&policy("Delete"))?;
        self.installation.wait_volumes_owned(true)?;
        self.installation.patch(&policy("Retain"))?;
        self.installation.wait_volumes_owned(false)?;
        self.installation.patch(&policy("Delete"))?;
        self.installation.wait_volumes_owned(true)?;
        self.installation.delete_group()?;
        self.installation.wait_gone("pods")?;
        self.installation.wait_gone("persistentvolumeclaims")
    }
}
