use std::collections::BTreeMap;

use super::*;
use crate::StoreId;

/// A group of fake replicas around a real elector, on a virtual clock; directives are obeyed at once by whoever lives.
struct Rig {
    elector: Elector,
    now: Millis,
    register: (Option<GroupRecord>, u64),
    replicas: BTreeMap<String, Fake>,
    sessions: u64,
    published: Vec<(Epoch, String)>,
    notices: Vec<String>,
    switched: Vec<Result<SwitchoverDone, String>>,
    answered: Vec<GroupRecord>,
    /// Lost answers of compare-and-set: the next is applied but reported as unknown.
    lose_next_set: bool,
}

#[derive(Clone)]
struct Fake {
    session: Option<SessionId>,
    answers: bool,
    obeys: bool,
    hello: Hello,
}

fn hello(n: u64) -> Hello {
    let report = Report {
        role: Role::Fenced,
        promised: Epoch(0),
        revision: 0,
        last_epoch: Epoch(0),
        min_offset: 0,
        max_offset: 0,
        flushed_offset: 0,
        confirm_offset: 0,
        master_heard_ms_ago: None,
        drained: false,
        data_plane_alive: true,
        intact: true,
        degraded: false,
        last_cut: None,
        settings: None,
    };
    Hello {
        group: "g".into(),
        token: String::new(),
        member: Member::new(format!("r{n}"), StoreId(n)),
        client_address: format!("127.0.0.1:1{n}"),
        ha_address: format!("127.0.0.1:2{n}"),
        pid: 1,
        priority: 0,
        zone: None,
        report,
    }
}

impl Rig {
    fn new(mode: Mode) -> Self {
        let config = Config::new((0..3).map(|n| format!("r{n}")), mode, 2);
        let replicas =
            (0..3).map(|n| (format!("r{n}"), Fake { session: None, answers: true, obeys: true, hello: hello(n) }));
        Self {
            elector: Elector::new(config, 0),
            now: 0,
            register: (None, 0),
            replicas: replicas.collect(),
            sessions: 0,
            published: Vec::new(),
            notices: Vec::new(),
            switched: Vec::new(),
            answered: Vec::new(),
            lose_next_set: false,
        }
    }

    /// Three replicas, r0 master of epoch 1, all in sync, all with a log of 100.
    fn steady(mode: Mode) -> Self {
        let mut rig = Self::new(mode);
        for n in 0..3 {
            rig.join(&format!("r{n}"));
        }
        rig.pass(500);
        assert_eq!(rig.published, [(Epoch(1), "127.0.0.1:10".to_owned())]);
        for fake in rig.replicas.values_mut() {
            fake.hello.report.max_offset = 100;
            fake.hello.report.last_epoch = Epoch(1);
        }
        rig.pass(100);
        rig
    }

    fn event(&mut self, event: Event) {
        let mut queue = self.elector.handle(self.now, event);
        while !queue.is_empty() {
            let mut next = Vec::new();
            for action in queue {
                for event in self.carry_out(action) {
                    next.extend(self.elector.handle(self.now, event));
                }
            }
            queue = next;
        }
    }

    fn carry_out(&mut self, action: Action) -> Vec<Event> {
        match action {
            Action::Read => {
                let version = Version(self.register.1.to_string());
                return vec![Event::Read(Recorded { record: self.register.0.clone(), version })];
            }
            Action::CompareAndSet { expected, record } => {
                if expected.0 != self.register.1.to_string() {
                    return vec![Event::Set(SetOutcome::Conflict)];
                }
                self.register = (Some(record), self.register.1 + 1);
                if std::mem::take(&mut self.lose_next_set) {
                    return vec![Event::Set(SetOutcome::Unknown)];
                }
                return vec![Event::Set(SetOutcome::Done(Version(self.register.1.to_string())))];
            }
            Action::Direct { session, directive } => return self.obey(session, &directive),
            Action::Probe { session } => {
                let fake = self.replicas.values().find(|fake| fake.session == Some(session) && fake.answers);
                return fake
                    .map(|fake| Event::Answered { session, report: fake.hello.report.clone() })
                    .into_iter()
                    .collect();
            }
            Action::Publish { record, address } => self.published.push((record.epoch, address)),
            Action::Switched { result, .. } => self.switched.push(result),
            Action::Answer { record, .. } => self.answered.push(record),
            Action::Tell(notice) => self.notices.push(notice.to_string()),
        }
        Vec::new()
    }

    fn obey(&mut self, session: SessionId, directive: &Directive) -> Vec<Event> {
        let Some(fake) = self.replicas.values_mut().find(|fake| fake.session == Some(session)) else {
            return Vec::new();
        };
        if !fake.answers || !fake.obeys {
            return Vec::new();
        }
        let report = &mut fake.hello.report;
        match directive {
            Directive::Master { record } => {
                (report.role, report.promised, report.last_epoch) = (Role::Master, record.epoch, record.epoch);
                report.drained = false;
            }
            Directive::Slave { record, ha_address } => {
                (report.role, report.promised) = (Role::Slave, record.epoch);
                report.drained = false;
                report.master_heard_ms_ago = ha_address.as_ref().map(|_| 10);
            }
            Directive::Park { .. } => report.drained = true,
            Directive::Unpark { .. } => report.drained = false,
        }
        vec![Event::Reported { session, report: report.clone() }]
    }

    fn join(&mut self, name: &str) {
        self.sessions += 1;
        let session = self.sessions;
        let fake = self.replicas.get_mut(name).unwrap();
        fake.session = Some(session);
        fake.answers = true;
        let hello = Box::new(fake.hello.clone());
        self.event(Event::Joined { session, hello });
    }

    /// The process is gone; its slaves notice at once.
    fn kill(&mut self, name: &str) {
        let fake = self.replicas.get_mut(name).unwrap();
        fake.hello.report.role = Role::Fenced;
        if let Some(session) = fake.session.take() {
            self.lose_master();
            self.event(Event::Left { session });
        }
        self.event(Event::Died { name: name.to_owned() });
    }

    fn lose_master(&mut self) {
        self.replicas.values_mut().for_each(|fake| fake.hello.report.master_heard_ms_ago = None);
    }

    /// Time passes in steps of 50 ms; whoever answers reports.
    fn pass(&mut self, ms: Millis) {
        for _ in 0..ms / 50 {
            self.now += 50;
            for (session, report) in self.reports() {
                self.event(Event::Reported { session, report });
            }
            self.event(Event::Tick);
        }
    }

    fn reports(&self) -> Vec<(SessionId, Report)> {
        let speaking = self.replicas.values().filter(|fake| fake.answers);
        speaking.filter_map(|fake| Some((fake.session?, fake.hello.report.clone()))).collect()
    }

    fn record(&self) -> GroupRecord {
        self.register.0.clone().expect("a record")
    }

    fn fake(&mut self, name: &str) -> &mut Fake {
        self.replicas.get_mut(name).unwrap()
    }
}

fn names(record: &GroupRecord) -> Vec<&str> {
    record.in_sync.iter().map(|member| member.name.as_str()).collect()
}

#[test]
fn a_new_group_starts_when_all_its_replicas_have_joined() {
    let mut rig = Rig::new(Mode::Sync);
    rig.join("r0");
    rig.join("r1");
    rig.pass(10_000);
    assert_eq!(rig.register.0, None, "the third may bring a log");
    rig.join("r2");
    assert_eq!(rig.record().master.name, "r0");
    assert_eq!(names(&rig.record()), ["r0", "r1", "r2"]);
}

#[test]
fn a_log_that_was_there_before_becomes_the_groups_log() {
    let mut rig = Rig::new(Mode::Sync);
    rig.fake("r1").hello.report.max_offset = 4_000;
    (0..3).for_each(|n| rig.join(&format!("r{n}")));
    assert_eq!((rig.record().master.name.as_str(), names(&rig.record())), ("r1", vec!["r1"]));
}

#[test]
fn a_lost_record_elects_nobody() {
    let mut rig = Rig::new(Mode::Sync);
    rig.fake("r1").hello.report.promised = Epoch(7);
    (0..3).for_each(|n| rig.join(&format!("r{n}")));
    rig.pass(60_000);
    assert_eq!(rig.register.0, None);
    assert!(rig.notices.iter().any(|notice| notice.contains("promised epoch 7")), "{:?}", rig.notices);
}

#[test]
fn a_killed_master_is_replaced_at_once_by_the_longest_log() {
    let mut rig = Rig::steady(Mode::Sync);
    rig.fake("r2").hello.report.max_offset = 140;
    rig.kill("r0");
    assert_eq!(rig.record().epoch, Epoch(2));
    assert_eq!(rig.record().master.name, "r2");
    assert_eq!(names(&rig.record()), ["r1", "r2"]);
    assert_eq!(rig.published.last(), Some(&(Epoch(2), "127.0.0.1:12".to_owned())));
}

#[test]
fn only_members_in_sync_are_elected_however_long_their_logs() {
    let mut rig = Rig::steady(Mode::Sync);
    let session = rig.fake("r0").session.unwrap();
    let in_sync = rig.record().in_sync.into_iter().filter(|member| member.name != "r2").collect();
    rig.event(Event::Alter { session, wish: AlterInSync { epoch: Epoch(1), revision: 1, in_sync }, ticket: 1 });
    assert_eq!(names(&rig.record()), ["r0", "r1"]);
    rig.fake("r2").hello.report.max_offset = 900;
    rig.kill("r1");
    rig.kill("r0");
    rig.pass(60_000);
    assert_eq!(rig.record().epoch, Epoch(1), "r2 may lack acknowledged messages");
    assert!(rig.notices.iter().any(|notice| notice.contains("none of the in-sync members")), "{:?}", rig.notices);
    rig.join("r1");
    rig.pass(3_000);
    assert_eq!(rig.record().master.name, "r1");
}

#[test]
fn what_comes_late_by_an_old_session_says_nothing_of_the_new_one() {
    let mut rig = Rig::steady(Mode::Sync);
    let old = rig.fake("r1").session.unwrap();
    let stale = Report { max_offset: 7, ..rig.fake("r1").hello.report.clone() };
    // The process is known dead before the connection's end is heard, and another one has joined by then.
    rig.event(Event::Died { name: "r1".to_owned() });
    rig.join("r1");
    rig.event(Event::Reported { session: old, report: stale });
    rig.event(Event::Left { session: old });
    let (report, _) = rig.elector.report("r1").expect("the new session stands");
    assert_eq!(report.max_offset, 100);
    rig.kill("r0");
    rig.pass(1_000);
    assert_eq!((rig.record().master.name.as_str(), names(&rig.record())), ("r1", vec!["r1", "r2"]));
}

#[test]
fn nobody_wishes_by_a_session_that_is_over() {
    let mut rig = Rig::steady(Mode::Sync);
    let before = rig.record();
    let old = rig.fake("r0").session.unwrap();
    rig.join("r0");
    let wish = AlterInSync {
        epoch: before.epoch,
        revision: before.revision,
        in_sync: BTreeSet::from([before.master.clone()]),
    };
    rig.event(Event::Alter { session: old, wish, ticket: 1 });
    assert_eq!(rig.record(), before);
}

#[test]
fn an_elector_that_is_cut_off_from_the_master_demotes_nobody() {
    let mut rig = Rig::steady(Mode::Sync);
    let session = rig.fake("r0").session.take().unwrap();
    rig.event(Event::Left { session });
    rig.pass(60_000);
    assert_eq!(rig.record().epoch, Epoch(1));
    assert!(rig.notices.iter().any(|notice| notice.contains("still hears it")), "{:?}", rig.notices);
    rig.lose_master();
    rig.pass(500);
    assert_eq!(rig.record().epoch, Epoch(2), "now nobody hears it");
}

#[test]
fn a_frozen_master_is_replaced_after_three_silent_seconds() {
    let mut rig = Rig::steady(Mode::Sync);
    rig.fake("r0").answers = false;
    rig.lose_master();
    rig.pass(2_900);
    assert_eq!(rig.record().epoch, Epoch(1));
    rig.pass(500);
    assert_eq!(rig.record().epoch, Epoch(2));
}

#[test]
fn failovers_on_suspicion_keep_their_distance_and_those_on_certainty_do_not() {
    let mut rig = Rig::steady(Mode::Sync);
    rig.fake("r0").answers = false;
    rig.lose_master();
    rig.pass(3_500);
    assert_eq!(rig.record().epoch, Epoch(2));
    rig.fake("r0").answers = true;
    rig.pass(1_000);
    let master = rig.record().master.name;
    let session = rig.fake(&master).session.unwrap();
    let in_sync = (0..3).map(|n| Member::new(format!("r{n}"), StoreId(n))).collect();
    let wish = AlterInSync { epoch: Epoch(2), revision: rig.record().revision, in_sync };
    rig.event(Event::Alter { session, wish, ticket: 1 });
    rig.fake(&master).answers = false;
    rig.lose_master();
    rig.pass(20_000);
    assert_eq!(rig.record().epoch, Epoch(2), "suspicion again within a minute");
    rig.kill(&master);
    assert_eq!(rig.record().epoch, Epoch(3));
}

#[test]
fn in_async_mode_a_silent_master_gets_time_to_fence_itself() {
    let mut rig = Rig::steady(Mode::Async);
    let session = rig.fake("r0").session.take().unwrap();
    rig.lose_master();
    rig.event(Event::Left { session });
    rig.pass(4_900);
    assert_eq!(rig.record().epoch, Epoch(1));
    rig.pass(500);
    assert_eq!(rig.record().epoch, Epoch(2));
}

#[test]
fn a_master_whose_disk_is_stuck_is_replaced_though_its_process_answers() {
    let mut rig = Rig::steady(Mode::Sync);
    rig.fake("r0").hello.report.data_plane_alive = false;
    rig.pass(500);
    assert_eq!(rig.record().epoch, Epoch(2));
    assert_ne!(rig.record().master.name, "r0");
}

#[test]
fn a_master_that_restarted_needs_a_new_epoch_before_it_writes_again() {
    let mut rig = Rig::steady(Mode::Sync);
    rig.fake("r0").hello.report.role = Role::Fenced;
    rig.fake("r0").hello.report.max_offset = 150;
    rig.join("r0");
    rig.pass(200);
    assert_eq!(rig.record().epoch, Epoch(2));
    assert_eq!(rig.record().master.name, "r0", "it has the longest log");
}

#[test]
fn a_member_with_another_disk_is_not_the_member_of_the_record() {
    let mut rig = Rig::steady(Mode::Sync);
    rig.kill("r1");
    rig.kill("r2");
    rig.kill("r0");
    rig.fake("r0").hello.member.store_id = StoreId(99);
    rig.fake("r0").hello.report.promised = Epoch(0);
    rig.join("r0");
    rig.pass(60_000);
    assert_eq!(rig.record().epoch, Epoch(1), "an empty disk has no acknowledged message");
}

#[test]
fn a_lost_answer_of_the_compare_and_set_is_settled_by_reading() {
    let mut rig = Rig::steady(Mode::Sync);
    rig.lose_next_set = true;
    rig.kill("r0");
    rig.pass(500);
    assert_eq!(rig.record().epoch, Epoch(2), "what was written stands, and its master is told");
    assert_eq!(rig.published.len(), 2);
}

#[test]
fn an_elector_restarted_after_writing_the_record_goes_on_with_the_election() {
    let mut rig = Rig::steady(Mode::Sync);
    for fake in rig.replicas.values_mut() {
        fake.obeys = false;
    }
    rig.kill("r0");
    let elected = rig.record();
    assert_eq!(elected.epoch, Epoch(2));
    rig.elector = Elector::new(Config::new((0..3).map(|n| format!("r{n}")), Mode::Sync, 2), rig.now);
    for fake in rig.replicas.values_mut() {
        fake.obeys = true;
    }
    rig.join("r1");
    rig.join("r2");
    rig.pass(200);
    assert_eq!(rig.record().epoch, elected.epoch);
    assert_eq!(rig.published.last().map(|(epoch, _)| *epoch), Some(Epoch(2)));
}

#[test]
fn a_record_restored_from_the_past_elects_nobody_until_all_have_answered() {
    let mut rig = Rig::steady(Mode::Sync);
    rig.fake("r1").hello.report.promised = Epoch(8);
    rig.fake("r2").obeys = false;
    rig.fake("r1").obeys = false;
    rig.kill("r0");
    rig.pass(30_000);
    assert_eq!(rig.record().epoch, Epoch(1));
    assert!(rig.notices.iter().any(|notice| notice.contains("from the past")), "{:?}", rig.notices);
    rig.join("r0");
    rig.pass(1_000);
    assert_eq!(rig.record().epoch, Epoch(9));
}

/// A record of the same epoch that names r2, which was let go since and lacks what was acknowledged without it.
fn restored_within_its_epoch() -> (Rig, GroupRecord) {
    let mut rig = Rig::steady(Mode::Sync);
    let old = rig.record();
    let session = rig.fake("r0").session.unwrap();
    let in_sync = [0, 1].map(|n| Member::new(format!("r{n}"), StoreId(n))).into();
    let wish = AlterInSync { epoch: Epoch(1), revision: old.revision, in_sync };
    rig.event(Event::Alter { session, wish, ticket: 1 });
    for name in ["r0", "r1"] {
        rig.fake(name).hello.report.max_offset = 200;
        rig.fake(name).hello.report.revision = old.revision + 1;
    }
    rig.pass(100);
    rig.register = (Some(old.clone()), rig.register.1 + 1);
    (rig, old)
}

#[test]
fn a_record_restored_within_its_epoch_elects_nobody_on_its_word() {
    let (mut rig, old) = restored_within_its_epoch();
    rig.kill("r0");
    rig.kill("r1");
    rig.pass(20_000);
    assert_eq!(rig.record(), old, "r2 would be the set's last");
    let said =
        "the record is of epoch 1, revision 1, but epoch 1, revision 2 stood there before: the record is from the past";
    assert!(rig.notices.iter().any(|notice| notice.contains(said)), "{:?}", rig.notices);
    rig.join("r0");
    rig.join("r1");
    rig.pass(2_000);
    assert_eq!((rig.record().epoch, names(&rig.record())), (Epoch(2), vec!["r1"]), "{:?}", rig.notices);
}

#[test]
fn an_elector_that_starts_is_told_by_replicas_of_a_record_restored_within_its_epoch() {
    let (mut rig, old) = restored_within_its_epoch();
    rig.elector = Elector::new(Config::new((0..3).map(|n| format!("r{n}")), Mode::Sync, 2), rig.now);
    rig.fake("r0").session = None;
    rig.join("r1");
    rig.join("r2");
    rig.event(Event::Died { name: "r0".into() });
    rig.pass(20_000);
    assert_eq!(rig.record(), old, "r0 did not answer");
    let said = "r1#0000000000000001 knows revision 2: the record is from the past, and r0 did not answer yet";
    assert!(rig.notices.iter().any(|notice| notice.contains(said)), "{:?}", rig.notices);
    rig.join("r0");
    rig.pass(2_000);
    assert_eq!(rig.record().epoch, Epoch(2), "{:?}", rig.notices);
    assert!(rig.record().master.name != "r2");
}

#[test]
fn over_a_record_restored_within_its_epoch_a_serving_master_goes_on_in_a_new_epoch() {
    let (mut rig, _) = restored_within_its_epoch();
    rig.pass(15_000);
    assert_eq!((rig.record().epoch, names(&rig.record())), (Epoch(2), vec!["r0"]), "{:?}", rig.notices);
}

#[test]
fn members_that_lost_unflushed_data_wait_for_one_another() {
    let mut rig = Rig::steady(Mode::Sync);
    rig.replicas.values_mut().for_each(|fake| fake.answers = false);
    (0..3).for_each(|n| rig.kill(&format!("r{n}")));
    for fake in rig.replicas.values_mut() {
        fake.hello.report.intact = false;
    }
    rig.fake("r2").hello.report.max_offset = 120;
    rig.join("r0");
    rig.join("r1");
    rig.pass(30_000);
    let before = rig.record().epoch;
    rig.join("r2");
    rig.pass(1_000);
    assert_eq!((rig.record().epoch, rig.record().master.name.as_str()), (before.next(), "r2"));
}

#[test]
fn when_the_whole_set_is_torn_a_whole_log_outside_it_is_better() {
    let mut rig = Rig::steady(Mode::Sync);
    let alone = GroupRecord { revision: 2, in_sync: BTreeSet::from([rig.record().master]), ..rig.record() };
    rig.register = (Some(alone), rig.register.1 + 1);
    rig.pass(11_000);
    rig.kill("r0");
    rig.fake("r0").hello.report.intact = false;
    rig.fake("r0").hello.report.max_offset = 60;
    rig.join("r0");
    rig.pass(3_000);
    assert_eq!((rig.record().master.name.as_str(), names(&rig.record())), ("r1", vec!["r1"]));
}

#[test]
fn a_torn_candidate_gives_up_its_epoch_before_anybody_outside_the_set_is_elected() {
    let mut rig = Rig::steady(Mode::Sync);
    // Elected alone, r0 could acknowledge alone; it hasn't opened its epoch when its machine loses power.
    let alone =
        GroupRecord { epoch: Epoch(2), revision: 2, in_sync: BTreeSet::from([rig.record().master]), ..rig.record() };
    rig.kill("r0");
    rig.register = (Some(alone), rig.register.1 + 1);
    rig.pass(11_000);
    rig.fake("r0").hello.report.intact = false;
    rig.fake("r0").hello.report.max_offset = 60;
    rig.fake("r0").obeys = false;
    rig.join("r0");
    rig.pass(5_000);
    assert_eq!(rig.record().epoch, Epoch(2), "a directive that it got before may be on its way");
    rig.fake("r0").obeys = true;
    rig.pass(3_000);
    assert_eq!((rig.record().epoch, rig.record().master.name.as_str()), (Epoch(3), "r1"));
}

#[test]
fn a_member_that_got_back_what_a_crash_took_needs_no_new_session_to_be_elected() {
    let mut rig = Rig::steady(Mode::Sync);
    rig.kill("r1");
    rig.kill("r2");
    rig.fake("r1").hello.report.intact = false;
    rig.join("r1");
    rig.pass(1_000);
    rig.fake("r1").hello.report.intact = true;
    rig.pass(500);
    rig.kill("r0");
    rig.pass(10_000);
    assert_eq!(rig.record().master.name, "r1");
}

#[test]
fn a_candidate_that_lost_its_tail_before_it_could_serve_is_elected_anew_or_not_at_all() {
    let mut rig = Rig::steady(Mode::Sync);
    rig.fake("r0").obeys = false;
    rig.fake("r1").obeys = false;
    rig.kill("r0");
    rig.pass(1_000);
    assert_eq!(rig.record().master.name, "r1");
    let elected = rig.record().epoch;
    // The machine goes down before the directive is carried out, and takes unflushed messages with it.
    rig.kill("r1");
    rig.fake("r1").hello.report.intact = false;
    rig.fake("r1").hello.report.max_offset = 90;
    rig.fake("r1").obeys = true;
    rig.join("r1");
    rig.pass(3_000);
    assert_eq!((rig.record().master.name.as_str(), rig.record().epoch > elected), ("r2", true));
}

#[test]
fn a_report_that_was_long_on_its_way_is_no_answer_to_a_probe() {
    let mut rig = Rig::steady(Mode::Sync);
    rig.fake("r1").answers = false;
    rig.kill("r0");
    let (session, report) = (rig.fake("r1").session.unwrap(), rig.fake("r1").hello.report.clone());
    for _late in 0..10 {
        rig.event(Event::Reported { session, report: report.clone() });
        rig.pass(100);
    }
    rig.pass(3_000);
    assert_eq!((rig.record().master.name.as_str(), names(&rig.record())), ("r2", vec!["r2"]), "r1 may be long dead");
}

#[test]
fn a_wish_that_changes_nothing_is_written_all_the_same() {
    let mut rig = Rig::steady(Mode::Sync);
    let before = rig.record();
    let session = rig.fake("r0").session.unwrap();
    let wish = AlterInSync { epoch: before.epoch, revision: before.revision, in_sync: before.in_sync.clone() };
    // An elector that is no more may have a write on its way, over the version that this one read.
    rig.event(Event::Alter { session, wish, ticket: 1 });
    assert_eq!(rig.answered.len(), 1);
    assert_eq!(rig.record(), GroupRecord { revision: before.revision + 1, ..before });
    assert_eq!(rig.answered[0], rig.record());
}

#[test]
fn a_wish_made_on_an_older_record_is_void() {
    let mut rig = Rig::steady(Mode::Sync);
    let before = rig.record();
    let session = rig.fake("r0").session.unwrap();
    // Another elector has granted a wish since; this one doesn't know yet.
    let newer = GroupRecord { revision: before.revision + 1, ..before.clone() };
    rig.register = (Some(newer.clone()), rig.register.1 + 1);
    let in_sync = BTreeSet::from([before.master]);
    let wish = AlterInSync { epoch: before.epoch, revision: before.revision, in_sync };
    rig.event(Event::Alter { session, wish, ticket: 1 });
    rig.pass(100);
    assert_eq!((rig.record(), &rig.answered[..]), (newer.clone(), &[newer][..]));
}

#[test]
fn a_record_that_another_elector_wrote_is_seen() {
    let mut rig = Rig::steady(Mode::Sync);
    let newer = GroupRecord { revision: 7, in_sync: BTreeSet::from([rig.record().master]), ..rig.record() };
    rig.register = (Some(newer.clone()), rig.register.1 + 1);
    rig.pass(11_000);
    assert_eq!(rig.elector.record(), Some(&newer));
}

#[test]
fn over_a_record_from_the_past_a_serving_master_goes_on_in_a_new_epoch() {
    let mut rig = Rig::steady(Mode::Sync);
    let old = rig.record();
    rig.event(Event::Switchover { to: "r2".to_owned(), ticket: 5 });
    rig.pass(100);
    // r1 happens to have reported a longer log than the master's last report.
    rig.fake("r1").hello.report.max_offset = 130;
    rig.register = (Some(old), rig.register.1 + 1);
    rig.pass(15_000);
    assert_eq!((rig.record().master.name.as_str(), rig.record().epoch), ("r2", Epoch(3)));
    assert_eq!(names(&rig.record()), ["r2"], "the others join as they acknowledge");
}

#[test]
fn a_switchover_parks_moves_and_tells_how_long_it_took() {
    let mut rig = Rig::steady(Mode::Sync);
    rig.event(Event::Switchover { to: "r2".to_owned(), ticket: 5 });
    rig.pass(100);
    assert_eq!(rig.switched, [Ok(SwitchoverDone { epoch: Epoch(2), pause_ms: 0 })]);
    assert_eq!(rig.record().master.name, "r2");
    assert_eq!(names(&rig.record()), ["r0", "r1", "r2"]);
    assert_eq!(rig.fake("r0").hello.report.role, Role::Slave);
}

#[test]
fn a_master_that_an_earlier_switchover_left_parked_is_let_go_before_the_next() {
    let mut rig = Rig::steady(Mode::Async);
    // The elector that parked it is no more; any moment it lets its sends pass by itself.
    rig.fake("r0").hello.report.drained = true;
    rig.pass(100);
    rig.event(Event::Switchover { to: "r2".to_owned(), ticket: 5 });
    let said = rig.switched.pop().unwrap().unwrap_err();
    assert!(said.contains("still parked"), "{said}");
    assert!(!rig.fake("r0").hello.report.drained, "it was told to let them pass");
    rig.pass(100);
    rig.event(Event::Switchover { to: "r2".to_owned(), ticket: 6 });
    rig.pass(100);
    assert_eq!(rig.record().master.name, "r2");
}

#[test]
fn a_switchover_to_somebody_unfit_is_refused_with_the_reason() {
    let mut rig = Rig::steady(Mode::Sync);
    for (to, why) in [("r0", "is the master already"), ("r7", "there is no replica r7; this group has r0, r1, r2")] {
        rig.event(Event::Switchover { to: to.to_owned(), ticket: 5 });
        let said = rig.switched.pop().unwrap().unwrap_err();
        assert!(said.contains(why), "{said}");
    }
    rig.kill("r2");
    rig.event(Event::Switchover { to: "r2".to_owned(), ticket: 5 });
    assert_eq!(rig.switched.pop(), Some(Err("r2 is not connected".to_owned())));
}

#[test]
fn a_switchover_waits_for_a_candidate_that_lost_its_tail_meanwhile() {
    let mut rig = Rig::steady(Mode::Sync);
    rig.fake("r0").obeys = false;
    rig.event(Event::Switchover { to: "r2".to_owned(), ticket: 5 });
    // The master hasn't heard yet that r2's machine was restarted, and goes by what r2 acknowledged before.
    rig.fake("r2").hello.report.intact = false;
    rig.join("r2");
    rig.fake("r0").hello.report.drained = true;
    rig.pass(1_000);
    assert_eq!(rig.record().epoch, Epoch(1));
    rig.fake("r2").hello.report.intact = true;
    rig.pass(1_000);
    assert_eq!((rig.record().master.name.as_str(), rig.record().epoch), ("r2", Epoch(2)));
}

#[test]
fn a_switchover_whose_candidate_never_reaches_the_end_is_given_up() {
    let mut rig = Rig::steady(Mode::Sync);
    rig.fake("r0").obeys = false;
    rig.event(Event::Switchover { to: "r1".to_owned(), ticket: 5 });
    rig.pass(6_000);
    assert!(rig.switched[0].as_ref().unwrap_err().contains("did not reach"), "{:?}", rig.switched);
    assert_eq!(rig.record().epoch, Epoch(1));
}

#[test]
fn degrading_and_recovering_are_told_once_each() {
    let mut rig = Rig::steady(Mode::Sync);
    let before = rig.notices.len();
    rig.fake("r0").hello.report.degraded = true;
    rig.pass(2_000);
    rig.fake("r0").hello.report.degraded = false;
    rig.pass(2_000);
    let told = &rig.notices[before..];
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("degraded: master r0") && told[1].starts_with("degraded no more"), "{told:?}");
}

#[test]
fn a_tail_that_was_cut_is_told_once_however_often_it_is_reported() {
    let mut rig = Rig::steady(Mode::Sync);
    let before = rig.notices.len();
    let tail = CutTail {
        number: 1,
        epoch: Epoch(1),
        from: 80,
        bytes: 20,
        kept: Some("divergent/x".to_owned()),
        no_room: false,
    };
    rig.fake("r1").hello.report.last_cut = Some(tail.clone());
    rig.pass(2_000);
    // Its session breaks, its process lives.
    let session = rig.fake("r1").session.take().unwrap();
    rig.event(Event::Left { session });
    rig.join("r1");
    rig.pass(500);
    let second = CutTail { number: 2, from: 90, bytes: 10, kept: None, ..tail.clone() };
    rig.fake("r1").hello.report.last_cut = Some(second.clone());
    rig.pass(500);
    let member = rig.fake("r1").hello.member.clone();
    let cut = |tail: CutTail| Notice::Cut { member: member.clone(), tail }.to_string();
    assert_eq!(rig.notices[before..], [cut(tail), cut(second)]);
}

#[test]
fn an_unclean_election_names_epoch_and_replica_and_counts_once() {
    let mut rig = Rig::steady(Mode::Sync);
    let refused = |rig: &mut Rig, to: &str, epoch: u64, why: &str| {
        rig.event(Event::ElectUnclean { to: to.to_owned(), epoch: Epoch(epoch), ticket: 1 });
        let said = rig.switched.pop().unwrap().unwrap_err();
        assert!(said.contains(why), "{said}");
    };
    refused(&mut rig, "r1", 1, "serves");
    // Only r0 is in sync, and it is lost with its disk.
    let only =
        GroupRecord { in_sync: BTreeSet::from([rig.record().master.clone()]), revision: 50, ..rig.record().clone() };
    rig.register = (Some(only), 50);
    let config = Config::new((0..3).map(|n| format!("r{n}")), Mode::Sync, 2);
    rig.elector = Elector::new(config, rig.now);
    (0..3).for_each(|n| rig.join(&format!("r{n}")));
    rig.pass(500);
    rig.kill("r0");
    rig.pass(10_000);
    assert_eq!(rig.record().epoch, Epoch(1), "never by itself");
    refused(&mut rig, "r1", 2, "is of epoch 1");
    refused(&mut rig, "r0", 1, "is not connected");
    refused(&mut rig, "r9", 1, "no replica");
    rig.event(Event::ElectUnclean { to: "r1".to_owned(), epoch: Epoch(1), ticket: 2 });
    assert_eq!(rig.switched.pop().unwrap().unwrap().epoch, Epoch(2));
    assert_eq!((rig.record().master.name.as_str(), rig.record().in_sync.len()), ("r1", 1));
    assert!(rig.notices.last().unwrap().contains("unclean election by hand: r1"), "{:?}", rig.notices);
    rig.pass(1_000);
    refused(&mut rig, "r2", 1, "is of epoch 2");
}

#[test]
fn among_equals_priority_counts_then_another_zone_then_the_name() {
    // Priority and zone of r1, then of r2; r0, the master that is lost, is in zone x.
    for (first, second, winner) in [
        ((0, "x"), (0, "x"), "r1"),
        ((0, "x"), (0, "y"), "r2"),
        ((1, "x"), (0, "y"), "r1"),
        ((0, "y"), (1, "x"), "r2"),
        ((0, "y"), (0, "z"), "r1"),
    ] {
        let mut rig = Rig::steady(Mode::Sync);
        for (name, (priority, zone)) in [("r0", (0, "x")), ("r1", first), ("r2", second)] {
            let hello = &mut rig.fake(name).hello;
            (hello.priority, hello.zone) = (priority, Some(zone.to_owned()));
            rig.join(name);
        }
        rig.pass(500);
        assert_eq!(rig.record().epoch, Epoch(1), "a new session is no new master");
        rig.kill("r0");
        rig.pass(500);
        assert_eq!(rig.record().master.name, winner, "{first:?} {second:?}");
    }
}

fn fence(rig: &mut Rig, names: &[&str]) {
    let fenced = names.iter().map(|name| (*name).to_owned()).collect();
    rig.event(Event::Facts(Facts { fenced, ..Facts::default() }));
}

#[test]
fn who_is_fenced_follows_nobody_and_is_not_elected_until_it_is_unfenced() {
    let mut rig = Rig::steady(Mode::Sync);
    fence(&mut rig, &["r1"]);
    rig.pass(500);
    assert_eq!(rig.fake("r1").hello.report.master_heard_ms_ago, None, "it was told to follow nobody");
    rig.event(Event::Switchover { to: "r1".to_owned(), ticket: 1 });
    assert_eq!(rig.switched.pop(), Some(Err("r1 is fenced: unfence it first".to_owned())));
    rig.kill("r0");
    rig.pass(5_000);
    assert_eq!((rig.record().master.name.as_str(), names(&rig.record())), ("r2", vec!["r2"]));
    rig.kill("r2");
    rig.pass(5_000);
    assert_eq!(rig.record().master.name, "r2", "nobody else has every acknowledged message");
    fence(&mut rig, &[]);
    rig.join("r2");
    rig.pass(5_000);
    assert_eq!(rig.record().master.name, "r2");
    assert!(rig.fake("r1").hello.report.master_heard_ms_ago.is_some(), "it follows again");
}

#[test]
fn a_fenced_replica_alone_in_the_set_says_what_would_help() {
    let mut rig = Rig::steady(Mode::Sync);
    fence(&mut rig, &["r1", "r2"]);
    rig.pass(500);
    rig.kill("r0");
    rig.pass(5_000);
    let said = rig.notices.last().unwrap();
    assert!(said.contains("r1, r2 may when it is unfenced"), "{said}");
    assert_eq!(rig.record().epoch, Epoch(1));
    fence(&mut rig, &["r1"]);
    rig.pass(500);
    assert_eq!(rig.record().master.name, "r2");
}

#[test]
fn a_fenced_master_serves_until_it_is_switched_over_and_then_follows_nobody() {
    let mut rig = Rig::steady(Mode::Sync);
    fence(&mut rig, &["r0"]);
    rig.pass(1_000);
    assert_eq!((rig.record().epoch, rig.fake("r0").hello.report.role), (Epoch(1), Role::Master));
    rig.event(Event::Switchover { to: "r2".to_owned(), ticket: 1 });
    rig.pass(1_000);
    assert_eq!(rig.record().master.name, "r2");
    let report = &rig.fake("r0").hello.report;
    assert_eq!((report.role, report.master_heard_ms_ago), (Role::Slave, None));
}

#[test]
fn a_new_group_begins_without_who_is_fenced() {
    let mut rig = Rig::new(Mode::Sync);
    fence(&mut rig, &["r0"]);
    for n in 0..3 {
        rig.join(&format!("r{n}"));
    }
    rig.pass(500);
    assert_eq!((rig.record().master.name.as_str(), names(&rig.record())), ("r1", vec!["r1", "r2"]));
}

#[test]
fn the_platforms_zones_count_over_what_replicas_say() {
    let mut rig = Rig::steady(Mode::Sync);
    let zones = [("r0", "x"), ("r1", "x"), ("r2", "y")].map(|(name, zone)| (name.to_owned(), zone.to_owned()));
    rig.event(Event::Facts(Facts { zones: zones.into(), ..Facts::default() }));
    rig.fake("r1").hello.zone = Some("y".to_owned());
    rig.join("r1");
    rig.pass(500);
    rig.kill("r0");
    rig.pass(500);
    assert_eq!(rig.record().master.name, "r2");
}
