//! The two kinds of offsets, as types of their own so that they are never mixed up.

use std::fmt;
use std::ops::{Add, Sub};

/// A byte's place in the commit log: counted from the first byte ever written, over all segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysicalOffset(pub u64);

/// A message's number in its (topic, queue), from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueOffset(pub u64);

macro_rules! offset {
    ($name:ident, $what:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl Add<u64> for $name {
            type Output = Self;

            fn add(self, rhs: u64) -> Self {
                Self(self.0 + rhs)
            }
        }

        impl Sub for $name {
            type Output = u64;

            #[doc = $what]
            fn sub(self, rhs: Self) -> u64 {
                debug_assert!(self >= rhs, "{self} - {rhs}");
                self.0.saturating_sub(rhs.0)
            }
        }
    };
}

offset!(PhysicalOffset, "Bytes from `rhs` to `self`; 0 when `rhs` is the later one.");
offset!(QueueOffset, "Messages from `rhs` to `self`; 0 when `rhs` is the later one.");
