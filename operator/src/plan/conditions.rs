//! Conditions in Kubernetes' usual form.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// A condition's type, whether it is so, the reason and the message.
pub type Fact = (&'static str, bool, &'static str, String);

/// The conditions now. Where one has not changed, it keeps its time.
pub fn conditions(
    facts: impl IntoIterator<Item = Fact>,
    generation: i64,
    now: &Time,
    before: &[Condition],
) -> Vec<Condition> {
    let condition = |(type_, holds, reason, message): Fact| {
        let status = if holds { "True" } else { "False" };
        let same = before.iter().find(|old| old.type_ == type_ && old.status == status);
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: Some(generation),
            last_transition_time: same.map_or_else(|| now.clone(), |old| old.last_transition_time.clone()),
        }
    };
    facts.into_iter().map(condition).collect()
}
