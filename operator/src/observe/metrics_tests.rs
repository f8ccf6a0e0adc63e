//! Metrics as Prometheus reads them.

use gantry_replication::elector::Cause;
use gantry_replication::{Member, StoreId};

use super::*;

fn metrics(max_groups: usize) -> Metrics {
    Metrics::new(max_groups).unwrap()
}

/// The value of a series, none if it isn't there.
fn value(metrics: &Metrics, series: &str) -> Option<f64> {
    let text = metrics.text(true).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}

fn elected(epoch: u64, cause: Cause, decision_ms: u64) -> Notice {
    let member = |name: &str| Member { name: name.to_owned(), store_id: StoreId(1) };
    Notice::Elected { from: member("a-0"), to: member("a-1"), epoch: Epoch(epoch), cause, decision_ms }
}

#[test]
fn an_election_counts_when_it_is_decided_and_its_duration_when_the_new_master_serves() {
    let metrics = metrics(10);
    metrics.noticed("shop/a", &elected(3, Cause::Silent, 3_500));
    assert_eq!(value(&metrics, r#"gantry_operator_elections_total{cause="silent",group="shop/a"}"#), Some(1.0));
    let took = |suffix: &str| format!("gantry_operator_election_duration_seconds_{suffix}");
    let labels = r#"{cause="silent",group="shop/a"}"#;
    assert_eq!(value(&metrics, &(took("count") + labels)), None, "nobody serves yet");
    metrics.serving("shop/a", Epoch(2));
    assert_eq!(value(&metrics, &(took("count") + labels)), None, "the old master still serves");
    metrics.serving("shop/a", Epoch(3));
    assert_eq!(value(&metrics, &(took("count") + labels)), Some(1.0));
    assert!(value(&metrics, &(took("sum") + labels)).unwrap() >= 3.5, "it began with the first sign");
    metrics.serving("shop/a", Epoch(3));
    assert_eq!(value(&metrics, &(took("count") + labels)), Some(1.0));
}

#[test]
fn a_group_has_one_last_decision_and_none_once_it_is_gone() {
    let metrics = metrics(10);
    let decided = |decision: &str| {
        format!(r#"gantry_operator_last_decision_timestamp_seconds{{decision="{decision}",group="shop/a"}}"#)
    };
    metrics.follow(|| vec![("shop/a".to_owned(), 1)]);
    assert!(value(&metrics, &decided("none")).unwrap() > 0.0, "seen, and nothing decided: that can be missed");
    metrics.decided("shop/a", "create");
    metrics.decided("shop/a", "settled");
    assert!(value(&metrics, &decided("settled")).unwrap() > 0.0);
    assert_eq!((value(&metrics, &decided("create")), value(&metrics, &decided("none"))), (None, None));
    metrics.noticed("shop/a", &elected(1, Cause::Switchover, 1));
    metrics.switched::<(), ()>("shop/a", &Ok(()));
    metrics.forget_leadership();
    assert_eq!(value(&metrics, &decided("settled")), None, "another operator decides now");
    metrics.forget("shop/a");
    assert!(!metrics.text(true).unwrap().contains("shop/a"));
}

#[test]
fn groups_beyond_the_bound_are_left_out_and_counted() {
    let metrics = metrics(2);
    metrics.follow(|| (0..5).map(|number| (format!("shop/{number}"), 1)).collect());
    assert_eq!(value(&metrics, "gantry_operator_groups_left_out"), Some(3.0));
    assert_eq!(value(&metrics, "gantry_operator_groups"), Some(5.0));
    metrics.noticed("shop/4", &elected(1, Cause::Silent, 1));
    assert!(!metrics.text(true).unwrap().contains("shop/4"));
}

#[tokio::test]
async fn a_reconcile_that_hangs_is_seen_while_it_does_and_no_more_once_it_was_given_up() {
    let metrics = metrics(10);
    metrics.follow(|| vec![("shop/a".to_owned(), 1)]);
    assert_eq!(value(&metrics, "gantry_operator_workqueue_depth"), Some(1.0));
    let never = std::future::pending::<std::result::Result<Duration, ()>>();
    let mut hangs = Box::pin(metrics.watch(("shop/a", 1), |()| ("error", Duration::ZERO), never));
    assert!(futures::poll!(hangs.as_mut()).is_pending());
    assert_eq!(value(&metrics, "gantry_operator_reconciles_in_progress"), Some(1.0));
    assert!(value(&metrics, "gantry_operator_reconcile_oldest_in_progress_seconds").unwrap() > 0.0);
    assert_eq!(value(&metrics, "gantry_operator_workqueue_depth"), Some(0.0));
    drop(hangs);
    assert_eq!(value(&metrics, "gantry_operator_reconciles_in_progress"), Some(0.0));
    assert_eq!(value(&metrics, "gantry_operator_reconcile_oldest_in_progress_seconds"), Some(0.0));
}

#[tokio::test]
async fn reconciles_are_counted_by_their_end_and_errors_by_their_kind() {
    let metrics = metrics(10);
    let watch = |outcome| metrics.watch(("shop/a", 1), |kind: &&'static str| (*kind, Duration::ZERO), outcome);
    watch(std::future::ready(Ok(Duration::from_hours(1)))).await.unwrap();
    for kind in ["conflict", "conflict", HUNG] {
        watch(std::future::ready(Err(kind))).await.unwrap_err();
    }
    let ended = |result: &str| value(&metrics, &format!(r#"gantry_operator_reconciles_total{{result="{result}"}}"#));
    assert_eq!((ended("ok"), ended("error"), ended("hung")), (Some(1.0), Some(2.0), Some(1.0)));
    let conflicts = r#"gantry_operator_errors_total{kind="conflict",part="reconcile"}"#;
    assert_eq!(value(&metrics, conflicts), Some(2.0));
    assert_eq!(value(&metrics, r#"gantry_operator_reconcile_duration_seconds_count{result="ok"}"#), Some(1.0));
}

#[test]
fn who_waits_to_lead_says_so_and_shows_no_groups() {
    let metrics = metrics(10);
    metrics.follow(|| vec![("shop/a".to_owned(), 1)]);
    let text = metrics.text(false).unwrap();
    assert!(text.contains("gantry_operator_leads 0\n") && !text.contains("shop/a"), "{text}");
    assert!(text.contains("gantry_operator_workqueue_depth 0\n"));
}
