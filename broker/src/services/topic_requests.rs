//! Topics by request: UPDATE_AND_CREATE_TOPIC, DELETE_TOPIC_IN_BROKER, GET_ALL_TOPIC_CONFIG, GET_TOPIC_CONFIG.

use super::failure::Refusal;
use super::{Services, json, now_ms};
use gantry_remoting::body::topic_config::TopicConfig;
use gantry_remoting::code::response;
use gantry_remoting::headers::topic::{CreateTopic, DeleteTopic, GetTopicConfig};
use gantry_remoting::{Command, Inbound, Response, Ticket};
use std::collections::BTreeMap;

impl Services {
    /// Creates or alters a topic; answered when the other replicas have it too.
    pub(super) fn update_topic(&self, inbound: Inbound) {
        let Inbound { request, ticket } = inbound;
        let changed = self.master_only(&request).and_then(|()| {
            let header: CreateTopic<'_> = request.header()?;
            self.live.topics.put(self.wanted_topic(&header)?, now_ms())
        });
        self.answer_when_logged(changed, ticket);
    }

    /// Deletes a topic and all groups' offsets on it. Its messages age away with the log.
    pub(super) fn delete_topic(&self, inbound: Inbound) {
        let Inbound { request, ticket } = inbound;
        let changed = self.master_only(&request).and_then(|()| {
            let header: DeleteTopic<'_> = request.header()?;
            if self.live.topics.delete(header.topic, now_ms())? {
                self.live.offsets.remove(Some(header.topic), None);
            }
            Ok(())
        });
        self.answer_when_logged(changed, ticket);
    }

    /// The whole topic table.
    pub(super) fn all_topics(&self) -> Result<Response, Refusal> {
        json(&self.topic_config_for_registration())
    }

    /// One topic.
    pub(super) fn topic_config(&self, request: &Command) -> Result<Response, Refusal> {
        let header: GetTopicConfig<'_> = request.header()?;
        json(&self.live.topics.require(header.topic)?.config)
    }

    pub(super) fn master_only(&self, request: &Command) -> Result<(), Refusal> {
        self.role.serving().map_err(|why| why.refusal(request.version))
    }

    /// SUCCESS once the change is acknowledged as safely as a message would be.
    pub(super) fn answer_when_logged(&self, changed: Result<(), Refusal>, ticket: Ticket) {
        if let Err(refusal) = changed {
            return ticket.reply_failure(refusal.code, refusal.remark);
        }
        self.metadata.flush_then(Box::new(move |logged| match logged {
            Ok(()) => ticket.reply_success(),
            Err(failure) => {
                let refusal = failure.refusal(ticket.client_version());
                // The success-class codes of sends mean nothing to an administrator.
                let code = if failure.is_written() { response::SYSTEM_ERROR } else { refusal.code };
                ticket.reply_failure(code, refusal.remark);
            }
        }));
    }

    fn wanted_topic(&self, header: &CreateTopic<'_>) -> Result<TopicConfig, Refusal> {
        let old = self.live.topics.get(header.topic).map(|topic| topic.config.attributes.clone());
        Ok(TopicConfig {
            topic_name: header.topic.to_owned(),
            read_queue_nums: header.read_queue_nums,
            write_queue_nums: header.write_queue_nums,
            perm: header.perm,
            topic_filter_type: header.topic_filter_type.to_owned(),
            topic_sys_flag: header.topic_sys_flag.unwrap_or(0),
            order: header.order.unwrap_or(false),
            attributes: altered(old.unwrap_or_default(), header.attributes.unwrap_or_default())?,
        })
    }
}

/// `+key=value,-key` applied to what the topic has. Nothing here acts on attributes yet, but one: a topic that asks for
/// another kind of queue or of cleaning than the usual ones would get something else than it was told.
fn altered(mut attributes: BTreeMap<String, String>, changes: &str) -> Result<BTreeMap<String, String>, Refusal> {
    let bad = |text: String| Err(Refusal::new(response::INVALID_PARAMETER, text));
    for change in changes.split(',').map(str::trim).filter(|change| !change.is_empty()) {
        match (change.strip_prefix('+').map(|set| set.split_once('=')), change.strip_prefix('-')) {
            (Some(Some((key, value))), _) => {
                let refused = matches!((key, value), ("queue.type", "BatchCQ") | ("cleanup.policy", "COMPACTION"));
                if refused {
                    return bad(format!("topic attribute {key}={value} is not supported by this broker"));
                }
                attributes.insert(key.to_owned(), value.to_owned());
            }
            (_, Some(key)) => {
                attributes.remove(key);
            }
            _ => return bad(format!("topic attribute {change:?}: write +key=value or -key")),
        }
    }
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_added_and_removed() {
        let old = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
        let new = altered(old, "+a=3,-b,+message.type=NORMAL").unwrap();
        let expected = [("a", "3"), ("message.type", "NORMAL")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(new, BTreeMap::from(expected));
    }

    #[test]
    fn what_cannot_be_had_is_refused() {
        for bad in ["+cleanup.policy=COMPACTION", "+queue.type=BatchCQ", "a=b", "+a"] {
            altered(BTreeMap::new(), bad).unwrap_err();
        }
    }
}
