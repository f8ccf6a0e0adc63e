//! An operator that ends between any two steps of a first election and of a failover, and the one that comes after it.

use std::sync::Arc;

use parking_lot::Mutex;

use super::mock::{Fate, Mock};
use super::rig::{Brokers, Operator, Turn, until};

/// How many runs go on at once: they mostly wait.
const AT_ONCE: usize = 12;

/// What is done by an operator: calls of the API server, and requests to brokers. At one of them it ends.
#[derive(Clone, Default)]
struct Steps(Arc<Mutex<Count>>);

#[derive(Default)]
struct Count {
    taken: usize,
    stop_at: usize,
    /// The last step is carried out, and nobody hears of it.
    done: bool,
    stopped: bool,
}

enum Step {
    GoesOn,
    IsLost,
    IsDoneUnheard,
}

impl Steps {
    fn next(&self) -> Step {
        let mut count = self.0.lock();
        count.taken += 1;
        if count.stopped {
            return Step::IsLost;
        }
        count.stopped = count.taken > count.stop_at;
        match (count.stopped, count.done) {
            (false, _) => Step::GoesOn,
            (true, true) => Step::IsDoneUnheard,
            (true, false) => Step::IsLost,
        }
    }

    fn stopped(&self) -> bool {
        self.0.lock().stopped
    }
}

struct Run {
    mock: Mock,
    steps: Steps,
    brokers: Brokers,
    operator: Option<Operator>,
    /// The first operator has ended.
    ended: bool,
}

impl Run {
    fn start(stop_at: usize, done: bool) -> Self {
        let steps = Steps(Arc::new(Mutex::new(Count { stop_at, done, ..Count::default() })));
        let mock = Mock::start();
        let of_calls = steps.clone();
        mock.judge(move |call| {
            if call.watch {
                // It changes nothing.
                return Fate::Served;
            }
            match of_calls.next() {
                Step::GoesOn => Fate::Served,
                Step::IsLost => Fate::Lost,
                Step::IsDoneUnheard => Fate::Unanswered,
            }
        });
        let brokers = Brokers::start(&mock, "shop", "g");
        let of_requests = steps.clone();
        brokers.on_request(move |_, _| match of_requests.next() {
            Step::GoesOn => Turn::Obey,
            Step::IsLost => Turn::Ignore,
            Step::IsDoneUnheard => Turn::ObeySilently,
        });
        let operator = Some(Operator::start(&mock));
        Self { mock, steps, brokers, operator, ended: false }
    }

    /// Until there is a master of a later epoch; by the next operator, if this one has ended before.
    fn settle(&mut self, after: u64) -> String {
        let settled = || {
            let epoch = self.brokers.record().map_or(0, |record| record.epoch.0);
            self.brokers.master().filter(|_| epoch > after)
        };
        until("a master, or the operator's end", || settled().is_some() || self.steps.stopped());
        if self.steps.stopped() && !self.ended {
            self.ended = true;
            self.operator = None;
            self.mock.judge_nothing();
            self.brokers.obey_all();
            self.operator = Some(Operator::start(&self.mock));
        }
        until("a master", || settled().is_some());
        settled().unwrap()
    }
}

/// Whether it came as far as that step.
fn election_and_failover(stop_at: usize, done: bool) -> bool {
    let mut run = Run::start(stop_at, done);
    let first = run.settle(0);
    let epoch = run.brokers.record().unwrap().epoch.0;
    run.brokers.restart(&first);
    run.settle(epoch);
    run.brokers.check_history();
    run.steps.stopped()
}

#[test]
fn an_operator_that_ends_between_any_two_steps_is_followed_by_one_that_goes_on() {
    let mut runs = 0;
    for first in (0..).step_by(AT_ONCE / 2) {
        let reached = std::thread::scope(|scope| {
            let both = (first..first + AT_ONCE / 2).flat_map(|stop_at| [(stop_at, false), (stop_at, true)]);
            let all: Vec<_> = both.map(|(at, done)| scope.spawn(move || election_and_failover(at, done))).collect();
            all.into_iter().map(|run| usize::from(run.join().unwrap())).sum::<usize>()
        });
        runs += reached;
        if reached == 0 {
            break;
        }
    }
    // Objects of the group, the first election, its master's directives, the slice, the status, and most of it again.
    assert!(runs > 50, "the operator was ended {runs} times only");
}
