//! The words of the protocol: epochs, members, offsets, time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Milliseconds of a monotonic clock. Only differences mean anything, and only within one process.
pub type Millis = u64;

/// The reign of one master. Grows with each new one; 0 is "before the first".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The one after this.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// An election, as everybody's log names it: `<group>/<epoch>`. Each epoch of a group is given by one election and never again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Election<'a> {
    /// The group's name.
    pub group: &'a str,
    /// The epoch that its master opens.
    pub epoch: Epoch,
}

impl fmt::Display for Election<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.epoch)
    }
}

/// The identity of a store directory, made with it. An emptied disk is another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub u64);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One replica of a group: its name and the identity of its store. Written `name#0123456789abcdef`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Member {
    /// The replica's name, e.g. `broker-a-0`.
    pub name: String,
    /// Its store's identity.
    pub store_id: StoreId,
}

impl Member {
    /// A member of that name and store.
    pub fn new(name: impl Into<String>, store_id: StoreId) -> Self {
        Self { name: name.into(), store_id }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.name, self.store_id)
    }
}

/// Whether two secrets are the same, in a time that doesn't tell how much of the shown one was right.
pub fn same_secret(expected: &str, shown: &str) -> bool {
    let differing = expected.bytes().zip(shown.bytes()).fold(0, |differing, (a, b)| differing | (a ^ b));
    expected.len() == shown.len() && std::hint::black_box(differing) == 0
}

/// A text that is no member.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is no member: expected NAME#STOREID, the store id in 16 hexadecimal digits")]
pub struct BadMember(String);

impl FromStr for Member {
    type Err = BadMember;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadMember(text.to_owned());
        let (name, id) = text.rsplit_once('#').ok_or_else(bad)?;
        if name.is_empty() || id.len() != 16 {
            return Err(bad());
        }
        let id = u64::from_str_radix(id, 16).map_err(|_| bad())?;
        Ok(Self::new(name, StoreId(id)))
    }
}

impl TryFrom<String> for Member {
    type Error = BadMember;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Member> for String {
    fn from(member: Member) -> Self {
        member.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_reads_back_as_it_was_written() {
        let member = Member::new("broker-a-0", StoreId(0xfeed));
        assert_eq!(member.to_string(), "broker-a-0#000000000000feed");
        assert_eq!(member.to_string().parse(), Ok(member));
    }

    #[test]
    fn only_the_same_secret_is_the_same() {
        assert!(same_secret("", "") && same_secret("s3cret", "s3cret"));
        for other in ["", "s3cre", "s3crets", "S3cret", "s3creT"] {
            assert!(!same_secret("s3cret", other), "{other}");
        }
    }

    #[test]
    fn what_is_no_member_is_named_in_the_error() {
        for text in ["", "x", "x#1", "#000000000000feed", "x#00000000zz00feed"] {
            assert_eq!(text.parse::<Member>(), Err(BadMember(text.to_owned())));
        }
    }
}
