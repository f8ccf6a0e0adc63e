package gantry.e2e;

import org.apache.rocketmq.common.message.MessageConst;
import org.apache.rocketmq.common.message.MessageExt;

/** One delivery, as the history tells it. */
final class Received {
    final String id;
    final String consumer;
    final String topic;
    final int queue;
    final long offset;
    final int reconsumeTimes;
    final boolean intact;
    final boolean later;

    Received(MessageExt message, String consumer, String group, boolean later) {
        this.id = message.getKeys();
        this.consumer = consumer;
        this.topic = storedTopic(message, group);
        this.queue = message.getQueueId();
        this.offset = message.getQueueOffset();
        this.reconsumeTimes = message.getReconsumeTimes();
        this.intact = Body.isIntact(message.getBody(), id);
        this.later = later;
    }

    /**
     * The topic whose queue and offset the message carries: the library shows a retried message under its first
     * topic, but with the retry topic's queue and offset.
     */
    private static String storedTopic(MessageExt message, String group) {
        String first = message.getProperty(MessageConst.PROPERTY_RETRY_TOPIC);
        boolean shownUnderFirst = first != null && first.equals(message.getTopic());
        return shownUnderFirst ? "%RETRY%" + group : message.getTopic();
    }
}
