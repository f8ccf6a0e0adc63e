//! What RocketMQ clients rely on beyond sending and receiving, with the stock Java 5.x client.

use gantry_e2e::checker::{Circumstances, Verdict};
use gantry_e2e::client::{Job, Library, Outcome};
use gantry_e2e::group::{Group, Options};
use gantry_e2e::scene::{self, CLIENT_WITHIN};
use gantry_e2e::wait;

const LIBRARY: Library = Library::Java5;

/// A pair on a group of its own; `flags` adds what the test is about.
fn pair(messages: u64, circumstances: &Circumstances, flags: fn(Job) -> Job) -> anyhow::Result<(Verdict, Outcome)> {
    let group = Group::start(&Options::default())?;
    let job = scene::job(&group, LIBRARY, "pair", "Behaviour")?.with("group", "behaviour").with("messages", messages);
    let outcome = flags(job).run(CLIENT_WITHIN)?;
    let verdict = scene::judge(&[&outcome], circumstances)?;
    assert_eq!(outcome.progress.errors, 0, "{outcome}");
    Ok((verdict, outcome))
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn asynchronous_sends_arrive() -> anyhow::Result<()> {
    let (verdict, _) = pair(10_000, &scene::drained(), |job| job.with("mode", "async"))?;
    assert_eq!((verdict.counts.acked, verdict.counts.deliveries), (10_000, 10_000), "{verdict}");
    Ok(())
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn oneway_sends_arrive() -> anyhow::Result<()> {
    let circumstances = Circumstances { oneway: true, ..scene::drained() };
    let (verdict, _) = pair(3_000, &circumstances, |job| job.with("mode", "oneway").with("rate", 2_000))?;
    assert_eq!((verdict.counts.acked, verdict.counts.deliveries), (0, 3_000), "{verdict}");
    Ok(())
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn batches_arrive_whole_with_offsets_in_a_row() -> anyhow::Result<()> {
    let (verdict, _) = pair(10_000, &scene::drained(), |job| job.with("mode", "batch"))?;
    assert_eq!((verdict.counts.acked, verdict.counts.deliveries), (10_000, 10_000), "{verdict}");
    Ok(())
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn a_tag_filter_lets_through_what_was_subscribed_to() -> anyhow::Result<()> {
    let circumstances = Circumstances { tags: Some(vec!["A".into(), "C".into()]), ..scene::drained() };
    let (verdict, _) = pair(3_000, &circumstances, |job| job.with("tags", "A,B,C,D").with("subscribe", "A || C"))?;
    assert_eq!((verdict.counts.acked, verdict.counts.deliveries), (3_000, 1_500), "{verdict}");
    Ok(())
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn a_lite_pull_consumer_receives_in_order() -> anyhow::Result<()> {
    let (verdict, _) = pair(5_000, &scene::drained(), |job| job.with("listen", "lite"))?;
    assert_eq!(verdict.counts.deliveries, 5_000, "{verdict}");
    Ok(())
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn one_queue_for_one_producer_keeps_its_order() -> anyhow::Result<()> {
    let (verdict, _) = pair(5_000, &scene::drained(), |job| job.with("sticky", true))?;
    assert_eq!(verdict.counts.deliveries, 5_000, "{verdict}");
    Ok(())
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn large_bodies_arrive_compressed_by_the_client() -> anyhow::Result<()> {
    let (verdict, _) = pair(200, &scene::drained(), |job| job.with("size", 512 << 10))?;
    assert_eq!(verdict.counts.deliveries, 200, "{verdict}");
    Ok(())
}

/// Each tenth message fails twice and comes twice more.
#[test]
#[ignore = "end to end: run e2e/test"]
fn a_message_that_fails_comes_again_later() -> anyhow::Result<()> {
    let (verdict, _) = pair(200, &scene::drained(), |job| {
        job.with("producers", 2).with("listen", "concurrent").with("fail-every", 10).with("fail-times", 2)
    })?;
    assert_eq!((verdict.counts.retried, verdict.counts.deliveries), (40, 240), "{verdict}");
    Ok(())
}

/// Each tenth message fails always: after its one retry it is in the dead-letter topic, and nothing else is.
#[test]
#[ignore = "end to end: run e2e/test"]
fn a_message_that_fails_too_often_lands_in_the_dead_letter_topic() -> anyhow::Result<()> {
    let group = Group::start(&Options::default())?;
    let consumed = scene::job(&group, LIBRARY, "pair", "Failing")?
        .with("group", "failing")
        .with("messages", 200)
        .with("producers", 2)
        .with("listen", "concurrent")
        .with("fail-every", 10)
        .with("fail-times", 99)
        .with("max-reconsume", 1)
        .run(CLIENT_WITHIN)?;
    let dead = scene::job(&group, LIBRARY, "consume", "%DLQ%failing")?
        .with("group", "undertaker")
        .with("name", "dead")
        .with("expect", 20)
        .run(CLIENT_WITHIN)?;
    let verdict = scene::judge(&[&consumed, &dead], &scene::drained())?;
    assert_eq!(verdict.counts.retried, 20, "{verdict}");
    assert_eq!((consumed.progress.received, dead.progress.received), (220, 20), "{verdict}");
    Ok(())
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn a_topic_is_created_by_the_first_send() -> anyhow::Result<()> {
    let group = Group::start(&Options::default())?;
    let sent = scene::job(&group, LIBRARY, "load", "Spontaneous")?
        .with("create", false)
        .with("messages", 1_000)
        .run(CLIENT_WITHIN)?;
    let received = scene::job(&group, LIBRARY, "consume", "Spontaneous")?
        .with("group", "late")
        .with_path("expect-acked", sent.history())
        .run(CLIENT_WITHIN)?;
    let verdict = scene::judge(&[&sent, &received], &scene::drained())?;
    assert_eq!((verdict.counts.acked, verdict.counts.deliveries), (1_000, 1_000), "{verdict}");
    Ok(())
}

/// A consumer that comes back goes on where its group was.
#[test]
#[ignore = "end to end: run e2e/test"]
fn a_group_goes_on_where_it_was() -> anyhow::Result<()> {
    let group = Group::start(&Options::default())?;
    let first = scene::job(&group, LIBRARY, "pair", "Progress")?
        .with("group", "steady")
        .with("name", "first")
        .with("messages", 2_000)
        .run(CLIENT_WITHIN)?;
    let second = scene::job(&group, LIBRARY, "pair", "Progress")?
        .with("group", "steady")
        .with("name", "second")
        .with("messages", 1_000)
        .run(CLIENT_WITHIN)?;
    let verdict = scene::judge(&[&first, &second], &scene::drained())?;
    assert_eq!((verdict.counts.deliveries, verdict.counts.redelivered), (3_000, 0), "{verdict}");
    Ok(())
}

/// A consumer that asks each queue for the offset of a time gets what was stored since then, and nothing older.
#[test]
#[ignore = "end to end: run e2e/test"]
fn a_consumer_starts_at_a_time() -> anyhow::Result<()> {
    let group = Group::start(&Options::default())?;
    let load = |name: &str| {
        scene::job(&group, LIBRARY, "load", "Times")?.with("name", name).with("messages", 1_000).run(CLIENT_WITHIN)
    };
    let older = load("older")?;
    let between_ms = wait::now_us() / 1000 + 1;
    let newer = load("newer")?;
    assert!(older.is_complete() && newer.is_complete(), "{older}\n{newer}");
    let received = scene::job(&group, LIBRARY, "consume", "Times")?
        .with("group", "historian")
        .with("listen", "lite")
        .with("from-ms", between_ms)
        .with("expect", 1_000)
        .run(CLIENT_WITHIN)?;
    // Of the newer ones all, and no older one: it would be a phantom.
    let verdict = scene::judge(&[&newer, &received], &scene::drained())?;
    assert_eq!((verdict.counts.acked, verdict.counts.deliveries), (1_000, 1_000), "{verdict}");
    Ok(())
}
