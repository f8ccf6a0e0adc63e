//! Where a slave begins, seeing its own log's ends and its master's.

/// Asked for once more and compared, before anything is appended: the protocol itself compares nothing.
const OVERLAP_BYTES: u64 = 64 << 10;

/// The ends of a log: its oldest byte, and where the next will go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) oldest: u64,
    pub(super) end: u64,
}

/// How to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begin {
    /// Nothing of this log is of use: it begins anew at the master's oldest byte.
    pub(super) anew: bool,
    /// Where this log goes on.
    pub(super) end: u64,
    /// What to ask the master for. Never 0, for which Apache's master takes its newest file: then its slave would lack all
    /// older ones. Not above `end`, but for an empty log whose master's begins at 0: that asks for 1, and knows that the first
    /// byte of a log is 0 (of the first record's size, which is below 2^24).
    pub(super) request: u64,
}

/// Where nothing can be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this log ends at {own}, the master's at {master}: it holds what the master lacks. If the master is the right one, empty the store directory to take its log anew"
)]
pub(super) struct Ahead {
    own: u64,
    master: u64,
}

impl Begin {
    /// Decides.
    pub(super) fn of(own: Ends, master: Ends) -> Result<Self, Ahead> {
        if own.oldest == own.end || own.end < master.oldest {
            let anew = own.end != master.oldest;
            return Ok(Self { anew, end: master.oldest, request: master.oldest.max(1) });
        }
        if own.end > master.end {
            return Err(Ahead { own: own.end, master: master.end });
        }
        let request = own.end.saturating_sub(OVERLAP_BYTES).max(own.oldest).max(master.oldest).max(1);
        Ok(Self { anew: false, end: own.end, request })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn ends(oldest: u64, end: u64) -> Ends {
        Ends { oldest, end }
    }

    #[test]
    fn an_empty_slave_gets_all_files_of_its_master() {
        let all = Begin { anew: false, end: 0, request: 1 };
        assert_eq!(Begin::of(ends(0, 0), ends(0, 9 * MIB)), Ok(all));
        assert_eq!(Begin::of(ends(0, 0), ends(0, 0)), Ok(all));
        let retained = Begin { anew: true, end: 4 * MIB, request: 4 * MIB };
        assert_eq!(Begin::of(ends(0, 0), ends(4 * MIB, 9 * MIB)), Ok(retained));
    }

    #[test]
    fn a_slave_goes_on_where_it_was_and_compares_a_little() {
        let begin = Begin::of(ends(0, 3 * MIB), ends(0, 9 * MIB)).unwrap();
        assert_eq!(begin, Begin { anew: false, end: 3 * MIB, request: 3 * MIB - OVERLAP_BYTES });
        assert_eq!(Begin::of(ends(0, 100), ends(0, 200)).unwrap().request, 1);
        assert_eq!(Begin::of(ends(MIB, MIB + 9), ends(0, 2 * MIB)).unwrap().request, MIB);
    }

    #[test]
    fn a_slave_whose_place_is_gone_begins_anew() {
        let begin = Begin::of(ends(0, MIB), ends(4 * MIB, 9 * MIB)).unwrap();
        assert_eq!(begin, Begin { anew: true, end: 4 * MIB, request: 4 * MIB });
    }

    #[test]
    fn a_slave_with_more_than_its_master_follows_nobody() {
        assert_eq!(Begin::of(ends(0, 10), ends(0, 9)), Err(Ahead { own: 10, master: 9 }));
    }

    proptest! {
        #[test]
        fn nothing_is_left_out_and_nothing_asked_for_that_is_gone(
            own in (0_u64..100, 0_u64..100), master in (0_u64..100, 0_u64..100),
        ) {
            let (own, master) = (ends(own.0, own.0 + own.1), ends(master.0, master.0 + master.1));
            if let Ok(begin) = Begin::of(own, master) {
                prop_assert!(begin.request >= 1 && begin.request <= begin.end.max(1));
                prop_assert!(begin.request >= master.oldest);
                prop_assert_eq!(begin.end, if begin.anew { master.oldest } else { own.end });
            }
        }
    }
}
