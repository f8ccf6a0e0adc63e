//! What is done to a group, drawn from a seed alone: the same seed, the same faults in the same order.

use std::fmt;
use std::time::Duration;

/// What is done to one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SIGKILL; it stays down until the heal.
    Kill,
    /// SIGSTOP, and SIGCONT at the heal.
    Freeze,
    /// Nobody hears it, and it hears nobody.
    Isolated,
    /// Nobody hears it, but it hears all.
    Unheard,
    /// It hears nobody, but all hear it.
    Deaf,
    /// No packets to and from the elector.
    NoElector,
    /// No packets to and from the other replicas.
    NoPeers,
    /// Neither elector nor other replicas; clients reach it all the same.
    ClientsOnly,
    /// Its link carries less than the load.
    SlowLink,
    /// Its disk is full.
    DiskFull,
    /// SIGKILL, and it comes back with an empty disk.
    DiskReplaced,
}

/// All kinds.
pub const KINDS: [Kind; 11] = [
    Kind::Kill,
    Kind::Freeze,
    Kind::Isolated,
    Kind::Unheard,
    Kind::Deaf,
    Kind::NoElector,
    Kind::NoPeers,
    Kind::ClientsOnly,
    Kind::SlowLink,
    Kind::DiskFull,
    Kind::DiskReplaced,
];

/// Who it is done to, when the round begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Whoever is master.
    Master,
    /// The first or the second of the others, by ordinal.
    Slave(usize),
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is done.
    pub kind: Kind,
    /// To whom.
    pub target: Target,
}

/// One round's faults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// One, or two that overlap.
    pub faults: Vec<Fault>,
    /// Between the first and the second.
    pub apart: Duration,
    /// From the last fault to the heal.
    pub hold: Duration,
}

/// Every so many rounds two faults overlap.
const PAIR_EVERY: u32 = 4;

/// A full disk is felt when the segments that were made ahead are full too.
const FULL_FELT: Duration = Duration::from_secs(6);

/// All rounds of a seed. Kinds and targets are dealt like cards: each comes once before any comes again.
pub fn schedules(seed: u64, rounds: u32) -> Vec<Schedule> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut deck = Vec::new();
    let draw = |random: &mut fastrand::Rng, deck: &mut Vec<Fault>| {
        if deck.is_empty() {
            *deck = shuffled(random);
        }
        deck.pop()
    };
    let mut round = |number: u32| {
        let first = draw(&mut random, &mut deck);
        let mut faults: Vec<Fault> = first.into_iter().collect();
        if number % PAIR_EVERY == PAIR_EVERY - 1
            && let Some(first) = first
            && first.kind != Kind::DiskReplaced
        {
            faults.push(beside(first, &mut random));
        }
        let apart = Duration::from_millis(random.u64(0..1_500));
        // From a hiccup to what a failover on silence takes, and a while beyond.
        let hold = Duration::from_millis(random.u64(500..8_000));
        let hold = if faults.iter().any(|fault| fault.kind == Kind::DiskFull) { hold + FULL_FELT } else { hold };
        Schedule { faults, apart, hold }
    };
    (0..rounds).map(&mut round).collect()
}

fn shuffled(random: &mut fastrand::Rng) -> Vec<Fault> {
    let both = |kind| [Target::Master, Target::Slave(random.usize(..2))].map(|target| Fault { kind, target });
    let mut deck: Vec<Fault> = KINDS.into_iter().flat_map(both).collect();
    random.shuffle(&mut deck);
    deck
}

/// A second fault on another replica. Never a disk that is replaced: with the set down to one member, what it held
/// would be the only copy.
fn beside(first: Fault, random: &mut fastrand::Rng) -> Fault {
    let kinds: Vec<Kind> = KINDS.into_iter().filter(|kind| *kind != Kind::DiskReplaced).collect();
    let kind = kinds[random.usize(..kinds.len())];
    let target = match first.target {
        Target::Master => Target::Slave(random.usize(..2)),
        Target::Slave(which) if random.bool() => Target::Slave(1 - which),
        Target::Slave(_) => Target::Master,
    };
    Fault { kind, target }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill -9",
            Self::Freeze => "freeze",
            Self::Isolated => "partition",
            Self::Unheard => "one-way: not heard",
            Self::Deaf => "one-way: hears nobody",
            Self::NoElector => "cut from the elector",
            Self::NoPeers => "cut from the replicas",
            Self::ClientsOnly => "cut from all but clients",
            Self::SlowLink => "slow link",
            Self::DiskFull => "disk full",
            Self::DiskReplaced => "disk replaced",
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Master { "master" } else { "slave" })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.kind, self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_schedule_with_everything_in_it() {
        let rounds = schedules(7, 200);
        assert_eq!(rounds, schedules(7, 200));
        assert_ne!(rounds, schedules(8, 200));
        for kind in KINDS {
            for master in [true, false] {
                let is_it = |fault: &Fault| fault.kind == kind && (fault.target == Target::Master) == master;
                assert!(rounds.iter().any(|round| round.faults.iter().any(is_it)), "{kind:?} {master}");
            }
        }
        assert!(rounds.iter().filter(|round| round.faults.len() == 2).count() > 30);
    }

    #[test]
    fn faults_that_overlap_are_on_two_replicas_and_a_replaced_disk_is_alone() {
        for round in (0..50).flat_map(|seed| schedules(seed, 100)) {
            if let [one, other] = round.faults[..] {
                assert_ne!(one.target, other.target, "{round:?}");
                assert!(![one.kind, other.kind].contains(&Kind::DiskReplaced), "{round:?}");
            }
        }
    }
}
