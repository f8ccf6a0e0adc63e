//! Topics by request: UPDATE_AND_CREATE_TOPIC, DELETE_TOPIC_IN_BROKER, GET_ALL_TOPIC_CONFIG, GET_TOPIC_CONFIG.

use super::failure::Refusal;
use super::topics::{BATCH_QUEUES, QUEUE_TYPE, SIMPLE_QUEUES};
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
        let old = self.live.topics.get(header.topic);
        let old = old.as_ref().map(|topic| &topic.config.attributes);
        Ok(TopicConfig {
            topic_name: header.topic.to_owned(),
            read_queue_nums: header.read_queue_nums,
            write_queue_nums: header.write_queue_nums,
            perm: header.perm,
            topic_filter_type: header.topic_filter_type.to_owned(),
            topic_sys_flag: header.topic_sys_flag.unwrap_or(0),
            order: header.order.unwrap_or(false),
            attributes: altered(old, header.attributes.unwrap_or_default())?,
        })
    }
}

/// `+key=value,-key` applied to what the topic has. A topic that asks for what isn't there (another kind of cleaning) would
/// get something else than it was told. Its kind of queues stays what it is: messages of the other kind are in the log.
fn altered(old: Option<&BTreeMap<String, String>>, changes: &str) -> Result<BTreeMap<String, String>, Refusal> {
    let mut attributes = old.cloned().unwrap_or_default();
    let bad = |text: String| Err(Refusal::new(response::INVALID_PARAMETER, text));
    for change in changes.split(',').map(str::trim).filter(|change| !change.is_empty()) {
        match (change.strip_prefix('+').map(|set| set.split_once('=')), change.strip_prefix('-')) {
            (Some(Some((key, value))), _) => {
                let is_kind = matches!(value, BATCH_QUEUES | SIMPLE_QUEUES);
                if (key, value) == ("cleanup.policy", "COMPACTION") || (key == QUEUE_TYPE && !is_kind) {
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
    let kind = |attributes: &BTreeMap<String, String>| {
        attributes.get(QUEUE_TYPE).map_or(SIMPLE_QUEUES, String::as_str).to_owned()
    };
    if let Some(old) = old.map(kind).filter(|old| *old != kind(&attributes)) {
        return bad(format!("topic attribute {QUEUE_TYPE} can't be changed: the topic has {old} queues"));
    }
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_added_and_removed() {
        let old = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
        let new = altered(Some(&old), "+a=3,-b,+message.type=NORMAL").unwrap();
        let expected = [("a", "3"), ("message.type", "NORMAL")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(new, BTreeMap::from(expected));
    }

    #[test]
    fn what_cannot_be_had_is_refused() {
        for bad in ["+cleanup.policy=COMPACTION", "+queue.type=RocksDBCQ", "a=b", "+a"] {
            altered(None, bad).unwrap_err();
        }
    }

    #[test]
    fn a_topic_keeps_its_kind_of_queues() {
        let (batch, simple) = (altered(None, "+queue.type=BatchCQ").unwrap(), altered(None, "+a=1").unwrap());
        assert_eq!(altered(Some(&batch), "+queue.type=BatchCQ").unwrap(), batch);
        altered(Some(&simple), "+queue.type=SimpleCQ").unwrap();
        for (old, change) in
            [(&batch, "+queue.type=SimpleCQ"), (&batch, "-queue.type"), (&simple, "+queue.type=BatchCQ")]
        {
            assert!(altered(Some(old), change).unwrap_err().remark.contains("can't be changed"), "{change}");
        }
    }
}
