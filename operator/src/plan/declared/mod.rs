//! Declared topics and consumer groups: what has to change at one master so that it has what is declared, and what a status says of it.
//! Pure: what a master has comes in as values.

mod consumer_group;
mod standing;
mod topic;

pub use consumer_group::plan_consumer_group;
pub use standing::{Standing, conditions, on_groups};
pub use topic::{TopicChange, plan_topic};

/// What is to be done at one master.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned<C> {
    /// What it is afterwards.
    pub becomes: C,
    /// Whether the master has to be asked for that.
    pub needed: bool,
    /// What differs and is changed by that, in words: `writeQueues 4 -> 8`. Empty where all of it is new.
    pub differs: Vec<String>,
    /// What differs and can't be changed, and why.
    pub cannot: Vec<String>,
}

/// `field there -> declared`, where they differ.
fn differing<T: PartialEq + std::fmt::Display>(differs: &mut Vec<String>, field: &str, there: &T, declared: &T) {
    if there != declared {
        differs.push(format!("{field} {there} -> {declared}"));
    }
}
