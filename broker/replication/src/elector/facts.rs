//! What the platform says of replicas, beside what they say themselves.

use std::collections::{BTreeMap, BTreeSet};

use crate::elector::Elector;
use crate::elector::seats::Seat;

/// Facts about replicas, by name. They may change at any time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Kept out by hand: they are never elected, and as slaves they are told to follow nobody. A master stays one until it is switched over.
    pub fenced: BTreeSet<String>,
    /// Where each runs, over what it says itself.
    pub zones: BTreeMap<String, String>,
}

impl Elector {
    pub(super) fn is_fenced(&self, seat: &Seat) -> bool {
        self.config.facts.fenced.contains(&seat.hello.member.name)
    }

    /// Where a replica runs, if anybody knows.
    pub(super) fn zone_of(&self, name: &str) -> Option<&str> {
        let said = || self.seats.get(name).and_then(|seat| seat.hello.zone.as_deref());
        self.config.facts.zones.get(name).map(String::as_str).or_else(said)
    }
}
