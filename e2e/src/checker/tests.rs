//! Hand-made histories, each verdict both ways.

use super::*;
use crate::history::Delivery;

/// A history that grows by a millisecond with each event.
#[derive(Default)]
struct Story {
    events: Vec<Event>,
}

impl Story {
    fn with_consumer(ordered: bool) -> Self {
        let mut story = Self::default();
        let t = story.now();
        story.events.push(Event::Consumer { consumer: "c".into(), group: "g".into(), ordered, t });
        story
    }

    fn now(&self) -> i64 {
        1000 * (self.events.len() as i64 + 1)
    }

    fn start(&mut self, id: &str, attempt: u32) -> &mut Self {
        let t = self.now();
        self.events.push(Event::Start { id: id.into(), attempt, tag: None, t });
        self
    }

    fn tagged(&mut self, id: &str, tag: &str) -> &mut Self {
        let t = self.now();
        self.events.push(Event::Start { id: id.into(), attempt: 1, tag: Some(tag.into()), t });
        self
    }

    fn end(&mut self, id: &str, status: &str, position: Option<(i32, i64)>) -> &mut Self {
        let (queue, offset) = position.unzip();
        let t = self.now();
        let (id, status) = (id.into(), status.into());
        self.events.push(Event::End { id, attempt: 1, status, queue, offset, offset_msg_id: None, t });
        self
    }

    fn acked(&mut self, id: &str, queue: i32, offset: i64) -> &mut Self {
        self.start(id, 1).end(id, "OK", Some((queue, offset)))
    }

    fn recv(&mut self, id: &str, queue: i32, offset: i64) -> &mut Self {
        self.recv_with(id, queue, offset, |_| {})
    }

    fn recv_with(&mut self, id: &str, queue: i32, offset: i64, change: impl FnOnce(&mut Delivery)) -> &mut Self {
        let mut delivery = Delivery {
            id: id.into(),
            consumer: "c".into(),
            topic: "T".into(),
            queue,
            offset,
            reconsume_times: 0,
            intact: true,
            later: false,
            t: self.now(),
        };
        change(&mut delivery);
        self.events.push(Event::Recv(delivery));
        self
    }

    fn check(&self) -> Verdict {
        self.check_in(&Circumstances { drained: true, ..Circumstances::default() })
    }

    fn check_in(&self, circumstances: &Circumstances) -> Verdict {
        check(&self.events, circumstances)
    }
}

#[track_caller]
fn assert_only(verdict: &Verdict, fault: Fault) {
    assert_eq!(verdict.totals.keys().collect::<Vec<_>>(), [&fault], "{verdict}");
}

#[track_caller]
fn assert_clean(verdict: &Verdict) {
    assert!(verdict.is_clean(), "{verdict}");
}

#[test]
fn what_was_acknowledged_and_received_in_order_is_clean() {
    let mut story = Story::with_consumer(true);
    story
        .acked("p-0", 0, 0)
        .acked("p-1", 1, 0)
        .acked("p-2", 0, 1)
        .recv("p-0", 0, 0)
        .recv("p-2", 0, 1)
        .recv("p-1", 1, 0);
    let verdict = story.check();
    assert_clean(&verdict);
    assert_eq!((verdict.counts.acked, verdict.counts.received, verdict.counts.deliveries), (3, 3, 3));
}

#[test]
fn an_acknowledged_message_that_never_came_is_lost() {
    let mut story = Story::with_consumer(true);
    story.acked("p-0", 0, 0).acked("p-1", 0, 1).recv("p-1", 0, 1);
    assert_only(&story.check(), Fault::Lost);
}

#[test]
fn nothing_is_lost_before_consumption_was_drained() {
    let mut story = Story::with_consumer(true);
    story.acked("p-0", 0, 0).acked("p-1", 0, 1).recv("p-1", 0, 1);
    assert_clean(&story.check_in(&Circumstances::default()));
}

#[test]
fn an_unknown_send_may_be_there_or_not() {
    for status in
        ["FLUSH_DISK_TIMEOUT", "FLUSH_SLAVE_TIMEOUT", "SLAVE_NOT_AVAILABLE", "RemotingTimeoutException", "ONEWAY"]
    {
        let mut absent = Story::with_consumer(true);
        absent.acked("p-0", 0, 0).start("p-1", 1).end("p-1", status, None).recv("p-0", 0, 0);
        let verdict = absent.check();
        assert_clean(&verdict);
        assert_eq!((verdict.counts.unknown_ends, verdict.counts.unknown_present), (1, 0));

        absent.recv("p-1", 0, 1);
        let verdict = absent.check();
        assert_clean(&verdict);
        assert_eq!(verdict.counts.unknown_present, 1);
    }
}

#[test]
fn a_send_whose_end_nobody_saw_is_unknown_too() {
    let mut story = Story::with_consumer(true);
    story.acked("p-0", 0, 0).recv("p-0", 0, 0).start("p-1", 1);
    assert_clean(&story.check());
}

#[test]
fn a_message_that_nobody_sent_is_a_phantom() {
    let mut story = Story::with_consumer(true);
    story.acked("p-0", 0, 0).recv("p-0", 0, 0).recv("p-7", 0, 1);
    assert_only(&story.check(), Fault::Phantom);
}

#[test]
fn another_body_is_a_phantom() {
    let mut story = Story::with_consumer(true);
    story.acked("p-0", 0, 0).recv_with("p-0", 0, 0, |delivery| delivery.intact = false);
    assert_only(&story.check(), Fault::Phantom);
}

#[test]
fn one_place_with_two_messages_is_found_in_deliveries() {
    let mut story = Story::with_consumer(false);
    story.start("p-0", 1).start("p-1", 1).end("p-0", "OK", None).end("p-1", "OK", None);
    story.recv("p-0", 0, 0).recv_with("p-1", 0, 0, |_| {});
    let verdict = story.check();
    assert!(verdict.has(Fault::Position), "{verdict}");
}

#[test]
fn one_place_with_two_messages_is_found_between_an_acknowledgement_and_a_delivery() {
    let mut story = Story::with_consumer(false);
    story.acked("p-0", 0, 0).start("p-1", 1).end("p-1", "OK", None).recv("p-0", 0, 5).recv("p-1", 0, 0);
    assert!(story.check().has(Fault::Position));
}

#[test]
fn the_same_offset_in_another_queue_or_topic_is_another_place() {
    let mut story = Story::with_consumer(false);
    story.acked("p-0", 0, 0).acked("p-1", 1, 0).recv("p-1", 1, 0);
    story.recv_with("p-0", 0, 0, |delivery| delivery.later = true);
    story.recv_with("p-0", 0, 0, |delivery| delivery.topic = "%RETRY%g".into());
    let verdict = story.check();
    assert_clean(&verdict);
    assert_eq!(verdict.counts.retried, 1);
}

#[test]
fn a_later_send_with_a_smaller_offset_breaks_the_send_order() {
    let mut story = Story::with_consumer(false);
    story.acked("p-0", 0, 5).acked("p-1", 0, 4).recv("p-0", 0, 5).recv("p-1", 0, 4);
    assert_only(&story.check(), Fault::SendOrder);
}

#[test]
fn sends_that_overlap_have_no_order_to_keep() {
    let mut story = Story::with_consumer(false);
    story.start("p-0", 1).start("p-1", 1).end("p-1", "OK", Some((0, 4))).end("p-0", "OK", Some((0, 5)));
    story.recv("p-0", 0, 5).recv("p-1", 0, 4);
    assert_clean(&story.check());
}

#[test]
fn two_producers_have_no_order_between_them() {
    let mut story = Story::with_consumer(false);
    story.acked("a-0", 0, 5).acked("b-0", 0, 4).recv("a-0", 0, 5).recv("b-0", 0, 4);
    assert_clean(&story.check());
}

#[test]
fn an_ordered_consumer_must_not_get_an_older_message_late() {
    let mut story = Story::with_consumer(true);
    story.acked("p-0", 0, 0).acked("p-1", 0, 1).recv("p-1", 0, 1).recv("p-0", 0, 0);
    assert_only(&story.check(), Fault::DeliveryOrder);
}

#[test]
fn a_concurrent_consumer_has_no_order_to_keep() {
    let mut story = Story::with_consumer(false);
    story.acked("p-0", 0, 0).acked("p-1", 0, 1).recv("p-1", 0, 1).recv("p-0", 0, 0);
    assert_clean(&story.check());
}

#[test]
fn a_rewind_after_a_fault_is_a_redelivery_and_no_break_of_order() {
    let mut story = Story::with_consumer(true);
    story.acked("p-0", 0, 0).acked("p-1", 0, 1).recv("p-0", 0, 0).recv("p-1", 0, 1);
    let fault_us = story.now() - 500;
    story.recv("p-0", 0, 0).recv("p-1", 0, 1);
    let circumstances = Circumstances { drained: true, faults_us: vec![fault_us], ..Circumstances::default() };
    let verdict = story.check_in(&circumstances);
    assert_clean(&verdict);
    assert_eq!(verdict.counts.redelivered, 2);
}

#[test]
fn a_redelivery_without_a_fault_before_it_is_not_explained() {
    let mut story = Story::with_consumer(true);
    story.acked("p-0", 0, 0).recv("p-0", 0, 0).recv("p-0", 0, 0);
    assert_only(&story.check(), Fault::Redelivery);
    let later = Circumstances { drained: true, faults_us: vec![story.now() + 1], ..Circumstances::default() };
    assert_only(&story.check_in(&later), Fault::Redelivery);
}

#[test]
fn copies_are_explained_by_attempts() {
    let mut story = Story::with_consumer(true);
    story.start("p-0", 1).end("p-0", "RemotingTimeoutException", None).start("p-0", 2).end("p-0", "OK", Some((0, 1)));
    story.recv("p-0", 0, 0).recv("p-0", 0, 1);
    let verdict = story.check();
    assert_clean(&verdict);
    assert_eq!(verdict.counts.resent_copies, 1);
    story.recv("p-0", 0, 2);
    assert_only(&story.check(), Fault::Copy);
}

#[test]
fn copies_are_explained_by_what_the_library_tells_or_hides() {
    let mut told = Story::with_consumer(true);
    told.start("p-0", 1);
    let t = told.now();
    told.events.push(Event::Inner { id: "p-0".into(), status: "RemotingTimeoutException".into(), t });
    told.end("p-0", "OK", Some((0, 1))).recv("p-0", 0, 0).recv("p-0", 0, 1);
    assert_clean(&told.check());

    let mut hidden = Story::with_consumer(true);
    hidden.acked("p-0", 0, 1).recv("p-0", 0, 0).recv("p-0", 0, 1);
    assert_only(&hidden.check(), Fault::Copy);
    hidden.events.push(Event::Producer { producer: "p".into(), hidden: 1, t: 0 });
    assert_clean(&hidden.check());
}

#[test]
fn a_retry_that_nobody_asked_for_is_not_explained() {
    let mut story = Story::with_consumer(false);
    story.acked("p-0", 0, 0).recv("p-0", 0, 0);
    story.recv_with("p-0", 0, 0, |delivery| delivery.topic = "%RETRY%g".into());
    assert_only(&story.check(), Fault::Redelivery);
}

#[test]
fn only_subscribed_tags_come_and_only_they_can_be_lost() {
    let only_a = Circumstances { drained: true, tags: Some(vec!["A".into()]), ..Circumstances::default() };
    let mut story = Story::with_consumer(true);
    story.tagged("p-0", "A").end("p-0", "OK", Some((0, 0))).tagged("p-1", "B").end("p-1", "OK", Some((0, 1)));
    assert!(story.check_in(&only_a).has(Fault::Lost));
    story.recv("p-0", 0, 0);
    assert_clean(&story.check_in(&only_a));
    story.recv("p-1", 0, 1);
    assert_only(&story.check_in(&only_a), Fault::Unwanted);
}

#[test]
fn a_history_that_shows_nothing_is_not_clean() {
    assert_only(&Story::with_consumer(true).check(), Fault::Empty);
    let mut oneway = Story::with_consumer(true);
    oneway.start("p-0", 1).end("p-0", "ONEWAY", None).recv("p-0", 0, 0);
    assert_only(&oneway.check(), Fault::Empty);
    assert_clean(&oneway.check_in(&Circumstances { drained: true, oneway: true, ..Circumstances::default() }));
}

#[test]
fn the_gap_runs_from_the_fault_to_the_answer_of_a_send_begun_after_it() {
    let mut story = Story::with_consumer(true);
    story.acked("p-0", 0, 0).start("p-1", 1);
    let fault_us = story.now() - 500;
    story.end("p-1", "OK", Some((0, 1))).recv("p-0", 0, 0).acked("p-2", 0, 2);
    let circumstances = Circumstances { faults_us: vec![fault_us, i64::MAX], ..Circumstances::default() };
    let verdict = story.check_in(&circumstances);
    assert_eq!(verdict.gaps[0].to_next_ack_us, Some(3500));
    assert_eq!(verdict.gaps[1].to_next_ack_us, None);
    assert_eq!(verdict.longest_pause, Some(Pause { from_us: 5000, length_us: 3000 }));
}

#[test]
fn many_findings_are_counted_and_a_few_told() {
    let mut story = Story::with_consumer(true);
    story.acked("p-0", 0, 0).recv("p-0", 0, 0);
    for n in 1..=40 {
        story.acked(&format!("p-{n}"), 0, n);
    }
    let verdict = story.check();
    assert_eq!(verdict.totals[&Fault::Lost], 40);
    assert_eq!(verdict.violations.len(), 5);
    assert!(verdict.to_string().contains("VIOLATION Lost: 40"), "{verdict}");
}
