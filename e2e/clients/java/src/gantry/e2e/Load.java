package gantry.e2e;

import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.hook.SendMessageContext;
import org.apache.rocketmq.client.hook.SendMessageHook;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageBatch;

/**
 * The producing side: `--producers P` threads over one DefaultMQProducer with its own defaults, together
 * `--messages N` messages (or for `--seconds S`, or `--until-stdin-ends true`), `--rate R` a second where given, in `--mode sync|async|oneway|batch`.
 * Each thread sends a message again until it is acknowledged or `--give-up` seconds have passed.
 */
final class Load {
    private static final long CREATE_DEADLINE_MS = 60_000;
    /** The library's own topic for automatic creation, which is also the template for a topic asked for. */
    private static final String TEMPLATE_TOPIC = "TBW102";

    final LoadOptions options;
    final History history;
    final Progress progress;
    final DefaultMQProducer producer;
    private final Set<String> wanted = ConcurrentHashMap.newKeySet();
    private final List<Throwable> failures = new ArrayList<>();
    private volatile boolean complete = true;

    Load(Flags flags, History history, Progress progress) {
        this.options = new LoadOptions(flags);
        this.history = history;
        this.progress = progress;
        this.producer = new DefaultMQProducer(options.name + "-producers");
        producer.setNamesrvAddr(options.namesrv);
        producer.setInstanceName(options.name + "-p");
        producer.setPollNameServerInterval(flags.count("poll-ms", producer.getPollNameServerInterval()));
        producer.setSendMsgTimeout(flags.count("send-timeout-ms", producer.getSendMsgTimeout()));
        // Retries that happen inside the library without a hook would be copies that nobody can explain;
        // asynchronous sends are therefore repeated by us.
        producer.setRetryTimesWhenSendAsyncFailed(0);
        if (history != null) {
            producer.getDefaultMQProducerImpl().registerSendMessageHook(new InnerFailures());
        }
    }

    boolean creates() {
        return options.create;
    }

    void start() throws MQClientException {
        producer.start();
    }

    void shutdown() {
        producer.shutdown();
    }

    /** Creates the topic and waits until its route can be read, however long a young broker takes for that. */
    void createTopic() throws Exception {
        long deadline = System.currentTimeMillis() + CREATE_DEADLINE_MS;
        while (true) {
            try {
                TopicCreation.create(producer, TEMPLATE_TOPIC, options.topic, options.queues);
                if (producer.fetchPublishMessageQueues(options.topic).size() >= options.queues) {
                    return;
                }
            } catch (MQClientException e) {
                if (System.currentTimeMillis() > deadline) {
                    throw e;
                }
            }
            Thread.sleep(50);
        }
    }

    /** Sends everything; false when a message was given up. */
    boolean run() throws Exception {
        List<Thread> threads = new ArrayList<>();
        for (int i = 0; i < options.producers; i++) {
            Sender sender = new Sender(this, i);
            Thread thread = new Thread(() -> runOne(sender), "sender-" + i);
            thread.start();
            threads.add(thread);
        }
        for (Thread thread : threads) {
            thread.join();
        }
        if (!failures.isEmpty()) {
            throw new IllegalStateException("a sender broke", failures.get(0));
        }
        return complete;
    }

    /** What a consumer has to receive: the acknowledged, and in one-way mode all that were sent. */
    Set<String> wanted() {
        return wanted;
    }

    void want(String id) {
        if (options.subscribed(id)) {
            wanted.add(id);
        }
    }

    void acknowledged(String id) {
        progress.acked.incrementAndGet();
        want(id);
    }

    /** A broker that doesn't come back ends the whole load, or each further message would wait as long. */
    void gaveUp() {
        complete = false;
    }

    boolean goesOn() {
        return complete;
    }

    private void runOne(Sender sender) {
        try {
            sender.run();
        } catch (Throwable e) {
            e.printStackTrace();
            synchronized (this) {
                failures.add(e);
            }
        }
    }

    /** Notes each attempt that failed inside one call of send(): it may have been stored all the same. */
    private final class InnerFailures implements SendMessageHook {
        @Override
        public String hookName() {
            return "inner-failures";
        }

        @Override
        public void sendMessageBefore(SendMessageContext context) {}

        @Override
        public void sendMessageAfter(SendMessageContext context) {
            if (context.getException() == null) {
                return;
            }
            String error = Errors.name(context.getException());
            Message message = context.getMessage();
            if (message instanceof MessageBatch) {
                for (Message one : (MessageBatch) message) {
                    history.innerFailure(one.getKeys(), error);
                }
            } else {
                history.innerFailure(message.getKeys(), error);
            }
        }
    }
}
