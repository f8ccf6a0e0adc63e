//! Unmodified clients over the official libraries exchange messages with a whole group.

use gantry_e2e::client::Library;
use gantry_e2e::group::{Group, Options};
use gantry_e2e::scene::{self, CLIENT_WITHIN};

/// A producer and a push consumer in one program: everything arrives once, in order, and nobody sees an error.
fn exchange(library: Library, messages: u64, listen: &str) -> anyhow::Result<()> {
    let group = Group::start(&Options::default())?;
    let outcome = scene::job(&group, library, "pair", "Exchange")?
        .with("group", "exchange")
        .with("messages", messages)
        .with("listen", listen)
        .run(CLIENT_WITHIN)?;
    let verdict = scene::judge(&[&outcome], &scene::drained())?;
    assert_eq!(verdict.counts.acked, messages, "{verdict}");
    assert_eq!(verdict.counts.deliveries, messages, "{verdict}");
    assert_eq!(outcome.progress.errors, 0, "{outcome}");
    Ok(())
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn java_5_exchanges_messages_in_order() -> anyhow::Result<()> {
    exchange(Library::Java5, scene::number("GANTRY_MESSAGES", 20_000)?, "orderly")
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn java_4_exchanges_messages_in_order() -> anyhow::Result<()> {
    exchange(Library::Java4, scene::number("GANTRY_MESSAGES", 10_000)?, "orderly")
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn java_5_consumes_concurrently() -> anyhow::Result<()> {
    exchange(Library::Java5, 5_000, "concurrent")
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn go_exchanges_messages_in_order() -> anyhow::Result<()> {
    exchange(Library::Go, scene::number("GANTRY_MESSAGES", 10_000)?, "orderly")
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn go_consumes_concurrently() -> anyhow::Result<()> {
    exchange(Library::Go, 5_000, "concurrent")
}

#[test]
#[ignore = "end to end: run e2e/test"]
fn node_exchanges_messages_in_order() -> anyhow::Result<()> {
    exchange(Library::Node, 5_000, "orderly")
}
