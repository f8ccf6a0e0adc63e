//! What an administrator asks the broker to clean up: `mqadmin cleanExpiredCQ`, `cleanUnusedTopic`, `deleteExpiredCommitLog`.
//! Each replica cleans its own store; answers are RocketMQ's, a bare SUCCESS.

use super::Services;
use super::names;
use super::off_thread::BUSY;
use gantry_remoting::Inbound;
use gantry_remoting::code::response;

const CLEANING: &str = "consume queues are being cleaned already; ask again later";

fn refuse(inbound: Inbound, why: &'static str) {
    inbound.ticket.reply_failure(response::SYSTEM_BUSY, why);
}

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

    /// Thousands of files may be looked at: not on the connection's thread, and by one at a time.
    fn clean_queues(&self, inbound: Inbound, keep: fn(&Self, &str) -> bool) {
        let begun = self.off_thread(inbound, move |services, inbound| {
            let Some(one) = services.cleaning.try_lock() else { return refuse(inbound, CLEANING) };
            let cleaned = services.store.clean_queues(|topic| keep(services, topic));
            // Before the answer: whoever has it may ask for the next.
            drop(one);
            match cleaned {
                Ok(queues) => {
                    tracing::info!(queues, "queues of topics that are gone were removed");
                    inbound.ticket.reply_success();
                }
                Err(problem) => {
                    tracing::error!(%problem, "cleaning the consume queues broke off");
                    inbound.ticket.reply_failure(response::SYSTEM_ERROR, problem.to_string());
                }
            }
        });
        if let Err(inbound) = begun {
            refuse(inbound, BUSY);
        }
    }
}
