//! Settings that a group's brokers shall go by while they run. Level-triggered: whoever reports others is told, and told again.

use std::collections::HashMap;
use std::time::Duration;

use gantry_remoting::Command;
use gantry_replication::elector::SessionId;
use gantry_replication::settings::Settings;
use gantry_replication::wire::CONFIGURE;
use tokio::time::Instant;

/// An order that shows no effect is repeated after this.
const AGAIN: Duration = Duration::from_secs(6);
/// One that was refused, after this: it is most likely refused again.
const AFTER_REFUSAL: Duration = Duration::from_mins(1);

/// How a replica's settings are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Configured {
    /// It goes by what was wanted, or nothing is.
    #[default]
    Yes,
    /// It goes by others yet.
    Pending,
    /// It goes by others, and says why.
    Refused(String),
}

/// What is wanted of one group's brokers, and what they were told.
#[derive(Debug, Default)]
pub(super) struct Configuration {
    wanted: Option<(Settings, u64)>,
    told: HashMap<SessionId, Told>,
}

#[derive(Debug)]
struct Told {
    digest: u64,
    repeat_at: Instant,
    refused: Option<String>,
}

impl Configuration {
    pub(super) fn want(&mut self, settings: Settings) {
        let digest = settings.digest();
        self.wanted = Some((settings, digest));
    }

    /// What to tell a broker that reports `applied` now, if anything.
    pub(super) fn due(&mut self, session: SessionId, applied: Option<u64>, now: Instant) -> Option<Command> {
        let (settings, digest) = self.wanted.as_ref().filter(|wanted| !is_met(wanted, applied))?;
        let told = |told: &Told| told.digest == *digest && now < told.repeat_at;
        if self.told.get(&session).is_some_and(told) {
            return None;
        }
        let refused = self.told.remove(&session).filter(|told| told.digest == *digest).and_then(|told| told.refused);
        self.told.insert(session, Told { digest: *digest, repeat_at: now + AGAIN, refused });
        Some(Command::request(CONFIGURE).with_body(serde_json::json!(settings).to_string().into_bytes()))
    }

    pub(super) fn refused(&mut self, session: SessionId, why: String, now: Instant) {
        if let Some(told) = self.told.get_mut(&session) {
            (told.refused, told.repeat_at) = (Some(why), now + AFTER_REFUSAL);
        }
    }

    pub(super) fn left(&mut self, session: SessionId) {
        self.told.remove(&session);
    }

    pub(super) fn of(&self, session: SessionId, applied: Option<u64>) -> Configured {
        let Some((_, digest)) = self.wanted.as_ref().filter(|wanted| !is_met(wanted, applied)) else {
            return Configured::Yes;
        };
        let told = self.told.get(&session).filter(|told| told.digest == *digest);
        told.and_then(|told| told.refused.clone()).map_or(Configured::Pending, Configured::Refused)
    }
}

/// A broker that can't change any goes by the defaults, which is what is wanted where nothing is set.
fn is_met((settings, digest): &(Settings, u64), applied: Option<u64>) -> bool {
    applied.map_or(settings.0.is_empty(), |applied| applied == *digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(hours: &str) -> Settings {
        Settings([("fileReservedTime".to_owned(), hours.to_owned())].into())
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_is_told_until_it_reports_what_is_wanted() {
        let mut configuration = Configuration::default();
        let start = Instant::now();
        assert!(configuration.due(1, Some(7), start).is_none(), "nothing is wanted");
        configuration.want(hours("48"));
        let wanted = hours("48").digest();
        let order = configuration.due(1, Some(7), start).unwrap();
        let body: Settings = serde_json::from_slice(&order.body.to_bytes()).unwrap();
        assert_eq!((order.code, body), (CONFIGURE, hours("48")));
        assert!(configuration.due(1, Some(7), start).is_none(), "it was told just now");
        assert_eq!(configuration.of(1, Some(7)), Configured::Pending);
        assert!(configuration.due(1, Some(7), start + AGAIN).is_some());
        assert!(configuration.due(1, Some(wanted), start + 2 * AGAIN).is_none());
        assert_eq!(configuration.of(1, Some(wanted)), Configured::Yes);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_remembered_until_something_else_is_wanted() {
        let mut configuration = Configuration::default();
        configuration.want(hours("x"));
        let start = Instant::now();
        configuration.due(1, Some(7), start).unwrap();
        configuration.refused(1, "no number".to_owned(), start);
        let refused = Configured::Refused("no number".to_owned());
        assert_eq!(configuration.of(1, Some(7)), refused);
        assert!(configuration.due(1, Some(7), start + AGAIN).is_none());
        assert!(configuration.due(1, Some(7), start + AFTER_REFUSAL).is_some());
        assert_eq!(configuration.of(1, Some(7)), refused, "until it takes it");
        configuration.want(hours("48"));
        assert_eq!(configuration.of(1, Some(7)), Configured::Pending);
        assert!(configuration.due(1, Some(7), start + AFTER_REFUSAL).is_some());
        configuration.left(1);
        assert!(configuration.due(1, Some(7), start + AFTER_REFUSAL).is_some(), "another session");
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_knows_no_settings_is_asked_for_none_where_none_are_set() {
        let mut configuration = Configuration::default();
        configuration.want(Settings::default());
        assert!(configuration.due(1, None, Instant::now()).is_none());
        assert_eq!(configuration.of(1, None), Configured::Yes);
        configuration.want(hours("48"));
        assert!(configuration.due(1, None, Instant::now()).is_some());
    }
}
