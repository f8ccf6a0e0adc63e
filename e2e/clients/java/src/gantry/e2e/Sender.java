package gantry.e2e;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Semaphore;
import java.util.concurrent.locks.LockSupport;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;

/** One producer of the history: sequential in its own thread, except in asynchronous mode. */
final class Sender {
    private static final long PAUSE_AFTER_ERROR_NS = 10_000_000;

    private final Load load;
    private final LoadOptions options;
    private final int index;
    private final String name;
    private final long startNs = System.nanoTime();
    private long sequence;

    /** A message on its way, with what is needed to send it again. */
    private static final class Outgoing {
        final String id;
        final Message message;
        final long deadlineNs;
        int attempt;

        Outgoing(String id, Message message, long deadlineNs) {
            this.id = id;
            this.message = message;
            this.deadlineNs = deadlineNs;
        }
    }

    Sender(Load load, int index) {
        this.load = load;
        this.options = load.options;
        this.index = index;
        this.name = options.name + "." + index;
    }

    void run() throws Exception {
        load.history.producer(name, 0);
        switch (options.mode) {
            case "async":
                runAsync();
                break;
            case "batch":
                runBatches();
                break;
            case "oneway":
                runOneway();
                break;
            default:
                runSync();
        }
    }

    private void runSync() throws Exception {
        for (Outgoing next = next(); next != null; next = next()) {
            boolean acked = false;
            while (!acked && mayTry(next)) {
                begin(next);
                try {
                    acked = finish(next, send(next.message), 0);
                } catch (Exception e) {
                    failed(next, e);
                    LockSupport.parkNanos(PAUSE_AFTER_ERROR_NS);
                }
            }
        }
    }

    private SendResult send(Message message) throws Exception {
        if (!options.sticky) {
            return load.producer.send(message);
        }
        return load.producer.send(message, (queues, m, arg) -> queues.get(index % queues.size()), null);
    }

    private void runOneway() throws Exception {
        for (Outgoing next = next(); next != null; next = next()) {
            begin(next);
            load.producer.sendOneway(next.message);
            load.history.sendFailed(next.id, next.attempt, "ONEWAY");
            load.want(next.id);
        }
    }

    private void runBatches() throws Exception {
        for (List<Outgoing> batch = nextBatch(); !batch.isEmpty(); batch = nextBatch()) {
            boolean acked = false;
            while (!acked && mayTry(batch.get(0))) {
                List<Message> messages = new ArrayList<>();
                for (Outgoing one : batch) {
                    begin(one);
                    messages.add(one.message);
                }
                try {
                    SendResult result = load.producer.send(messages);
                    acked = true;
                    for (int i = 0; i < batch.size(); i++) {
                        acked &= finish(batch.get(i), result, i);
                    }
                } catch (Exception e) {
                    for (Outgoing one : batch) {
                        failed(one, e);
                    }
                    LockSupport.parkNanos(PAUSE_AFTER_ERROR_NS);
                }
            }
        }
    }

    private void runAsync() throws Exception {
        Semaphore window = new Semaphore(options.inFlight);
        ConcurrentLinkedQueue<Outgoing> again = new ConcurrentLinkedQueue<>();
        boolean more = true;
        while (true) {
            window.acquire();
            Outgoing next = again.poll();
            if (next == null && more) {
                next = next();
                more = next != null;
            }
            if (next != null) {
                if (mayTry(next)) {
                    sendAsync(next, window, again);
                } else {
                    window.release();
                }
                continue;
            }
            // Nothing new and nothing to repeat: the end, unless answers are still on their way.
            window.release();
            window.acquire(options.inFlight);
            window.release(options.inFlight);
            if (again.isEmpty()) {
                return;
            }
        }
    }

    private void sendAsync(Outgoing next, Semaphore window, ConcurrentLinkedQueue<Outgoing> again) {
        begin(next);
        SendCallback callback = new SendCallback() {
            @Override
            public void onSuccess(SendResult result) {
                if (!finish(next, result, 0)) {
                    again.add(next);
                }
                window.release();
            }

            @Override
            public void onException(Throwable error) {
                failed(next, error);
                LockSupport.parkNanos(PAUSE_AFTER_ERROR_NS);
                again.add(next);
                window.release();
            }
        };
        try {
            load.producer.send(next.message, callback);
        } catch (Exception e) {
            callback.onException(e);
        }
    }

    private List<Outgoing> nextBatch() {
        List<Outgoing> batch = new ArrayList<>();
        while (batch.size() < options.batch) {
            Outgoing one = next();
            if (one == null) {
                break;
            }
            batch.add(one);
        }
        return batch;
    }

    /** The next message, at its time where a rate was asked for; null when this producer has made its share. */
    private Outgoing next() {
        if (!load.goesOn() || !options.goesOn(index, sequence, startNs)) {
            return null;
        }
        while (options.intervalNs > 0 && System.nanoTime() - startNs < sequence * options.intervalNs) {
            LockSupport.parkNanos(startNs + sequence * options.intervalNs - System.nanoTime());
        }
        String id = name + "-" + sequence++;
        String tag = options.tag(id);
        Message message = new Message(options.topic, tag == null ? "" : tag, id, Body.of(id, options.size));
        return new Outgoing(id, message, System.nanoTime() + options.giveUpMs * 1_000_000);
    }

    private boolean mayTry(Outgoing message) {
        if (message.attempt > 0 && (System.nanoTime() > message.deadlineNs || !load.goesOn())) {
            System.err.println("gave up " + message.id + " after " + message.attempt + " attempts");
            load.gaveUp();
            return false;
        }
        return true;
    }

    private void begin(Outgoing message) {
        message.attempt++;
        load.history.sendStart(message.id, message.attempt, options.tag(message.id));
    }

    /** Notes an answer; only SEND_OK acknowledges. `place` is the message's place in its batch. */
    private boolean finish(Outgoing message, SendResult result, int place) {
        boolean acked = result.getSendStatus() == SendStatus.SEND_OK;
        String[] offsetIds = String.valueOf(result.getOffsetMsgId()).split(",");
        load.history.sendEnd(message.id, message.attempt, acked ? "OK" : result.getSendStatus().name(),
                result.getMessageQueue().getQueueId(), result.getQueueOffset() + place,
                offsetIds[Math.min(place, offsetIds.length - 1)]);
        if (acked) {
            load.acknowledged(message.id);
        }
        return acked;
    }

    private void failed(Outgoing message, Throwable error) {
        long before = load.progress.errors.getAndIncrement();
        if (before < 20) {
            System.err.println(message.id + " attempt " + message.attempt + ": " + error);
        }
        load.history.sendFailed(message.id, message.attempt, Errors.name(error));
    }
}
