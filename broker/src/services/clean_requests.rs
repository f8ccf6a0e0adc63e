//! What an administrator asks the broker to clean up: `mqadmin cleanExpiredCQ`, `cleanUnusedTopic`, `deleteExpiredCommitLog`.
//! Each replica cleans its own store; answers are RocketMQ's, a bare SUCCESS.

use super::Services;
use super::failure::Refusal;
use super::names;
use gantry_remoting::Inbound;
use gantry_remoting::code::response;

impl Services {
    /// DELETE_EXPIRED_COMMITLOG: expired segments go now, whatever the hour. The store's own thread does it.
    pub(super) fn delete_expired_log(&self, inbound: Inbound) {
        self.store.delete_expired();
        inbound.ticket.reply_success();
    }

    /// CLEAN_EXPIRED_CONSUMEQUEUE: consume queue files that hold nothing any more go.
    pub(super) fn clean_expired_queues(&self, inbound: Inbound) {
        self.clean_queues(inbound, |_, _| true);
    }

    /// CLEAN_UNUSED_TOPIC: and what is left of topics that no longer exist, once all their messages are gone.
    pub(super) fn clean_unused_topics(&self, inbound: Inbound) {
        self.clean_queues(inbound, |services, topic| {
            names::is_system_topic(topic) || services.live.topics.get(topic).is_some()
        });
    }

    /// Thousands of files may be looked at: not on the connection's thread.
    fn clean_queues(&self, inbound: Inbound, keep: fn(&Self, &str) -> bool) {
        let Some(services) = self.me.upgrade() else { return };
        self.runtime.spawn_blocking(move || match services.store.clean_queues(|topic| keep(&services, topic)) {
            Ok(queues) => {
                tracing::info!(queues, "queues of topics that are gone were removed");
                inbound.ticket.reply_success();
            }
            Err(problem) => {
                tracing::error!(%problem, "cleaning the consume queues broke off");
                let refusal = Refusal::new(response::SYSTEM_ERROR, problem.to_string());
                inbound.ticket.reply_failure(refusal.code, refusal.remark);
            }
        });
    }
}
