package gantry.e2e;

import java.util.Collection;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * The consuming side: `--listen concurrent|orderly|lite`, from the first offset for a new group. With `--from-ms T` a lite consumer takes
 * all queues and starts each at the first message stored at T (ms since 1970) or later. With
 * `--fail-every K` each K-th message of a producer is answered RECONSUME_LATER for its first `--fail-times` deliveries,
 * to come again after delay level `--retry-level`.
 */
final class Consume {
    private final String namesrv;
    private final String topic;
    private final String group;
    private final String subscribe;
    private final String listen;
    private final String name;
    private final long failEvery;
    private final int failTimes;
    private final int retryLevel;
    private final int maxReconsume;
    private final long fromMs;
    private final long idleMs;
    private final History history;
    private final Progress progress;

    private final Set<String> receivedIds = ConcurrentHashMap.newKeySet();
    /** Sent back and not yet here again. */
    private final Set<String> awaitedIds = ConcurrentHashMap.newKeySet();
    private volatile long lastReceiveMs = System.currentTimeMillis();
    private volatile boolean stopping;
    private DefaultMQPushConsumer push;
    private DefaultLitePullConsumer lite;
    private Thread poller;

    Consume(Flags flags, History history, Progress progress) {
        namesrv = flags.text("namesrv");
        topic = flags.text("topic");
        group = flags.text("group", "e2e-group");
        subscribe = flags.text("subscribe", "*");
        listen = flags.text("listen", "orderly");
        if (!listen.matches("concurrent|orderly|lite")) {
            throw new IllegalArgumentException("--listen is concurrent, orderly or lite, not " + listen);
        }
        name = flags.text("name", "p") + ".c";
        failEvery = flags.number("fail-every", 0);
        failTimes = flags.count("fail-times", 1);
        retryLevel = flags.count("retry-level", 1);
        maxReconsume = flags.count("max-reconsume", -1);
        fromMs = flags.number("from-ms", -1);
        if (fromMs >= 0 && !listen.equals("lite")) {
            throw new IllegalArgumentException("--from-ms goes with --listen lite");
        }
        idleMs = flags.number("idle-timeout", 60) * 1000;
        this.history = history;
        this.progress = progress;
    }

    void start() throws Exception {
        // Listener threads run side by side: what a concurrent listener notes has no order to keep.
        history.consumer(name, group, !listen.equals("concurrent"));
        if (listen.equals("lite")) {
            startLite();
        } else {
            startPush();
        }
    }

    private void startPush() throws Exception {
        push = new DefaultMQPushConsumer(group);
        push.setNamesrvAddr(namesrv);
        push.setInstanceName(name);
        push.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        push.setMaxReconsumeTimes(maxReconsume);
        push.subscribe(topic, subscribe);
        if (listen.equals("orderly")) {
            push.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
                messages.forEach(message -> note(message, false));
                return ConsumeOrderlyStatus.SUCCESS;
            });
        } else {
            push.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                context.setDelayLevelWhenNextConsume(retryLevel);
                return concurrently(messages);
            });
        }
        push.start();
    }

    private ConsumeConcurrentlyStatus concurrently(List<MessageExt> messages) {
        boolean later = messages.stream().anyMatch(this::fails);
        messages.forEach(message -> note(message, later));
        return later ? ConsumeConcurrentlyStatus.RECONSUME_LATER : ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
    }

    private boolean fails(MessageExt message) {
        String id = message.getKeys();
        long sequence = Long.parseLong(id.substring(id.lastIndexOf('-') + 1));
        return failEvery > 0 && sequence % failEvery == 0 && message.getReconsumeTimes() < failTimes;
    }

    @SuppressWarnings("deprecation")
    private void startLite() throws Exception {
        lite = new DefaultLitePullConsumer(group);
        lite.setNamesrvAddr(namesrv);
        lite.setInstanceName(name);
        lite.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        if (fromMs < 0) {
            lite.subscribe(topic, subscribe);
        }
        lite.start();
        if (fromMs >= 0) {
            startAt(fromMs);
        }
        poller = new Thread(() -> {
            while (!stopping) {
                lite.poll(500).forEach(message -> note(message, false));
            }
        }, "poller");
        poller.start();
    }

    private void startAt(long timestampMs) throws Exception {
        Collection<MessageQueue> queues = lite.fetchMessageQueues(topic);
        lite.assign(queues);
        for (MessageQueue queue : queues) {
            lite.seek(queue, lite.offsetForTimestamp(queue, timestampMs));
        }
    }

    private void note(MessageExt message, boolean later) {
        Received received = new Received(message, name, group, later);
        history.received(received);
        receivedIds.add(received.id);
        boolean comesAgain = maxReconsume < 0 || message.getReconsumeTimes() < maxReconsume;
        if (later && comesAgain) {
            awaitedIds.add(received.id);
        } else {
            awaitedIds.remove(received.id);
        }
        progress.received.incrementAndGet();
        lastReceiveMs = System.currentTimeMillis();
    }

    /** Waits until everything wanted was received, and what was sent back came again; false when nothing came for the idle time-out before that. */
    boolean drain(Wanted wanted) throws InterruptedException {
        lastReceiveMs = System.currentTimeMillis();
        while (!wanted.isIn(receivedIds) || !awaitedIds.isEmpty()) {
            if (System.currentTimeMillis() - lastReceiveMs > idleMs) {
                System.err.println("nothing received for " + idleMs + " ms, and not everything wanted is there");
                return false;
            }
            Thread.sleep(20);
        }
        return true;
    }

    void shutdown() throws InterruptedException {
        stopping = true;
        if (push != null) {
            push.shutdown();
        }
        if (lite != null) {
            poller.join();
            lite.shutdown();
        }
    }
}
