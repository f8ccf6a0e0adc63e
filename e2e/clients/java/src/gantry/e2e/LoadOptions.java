package gantry.e2e;

import java.io.IOException;

/** The flags of load and of pair's producing half. */
final class LoadOptions {
    final String namesrv;
    final String topic;
    final String name;
    final int queues;
    final boolean create;
    final int producers;
    final String mode;
    final int size;
    final int batch;
    final int inFlight;
    final boolean sticky;
    final long giveUpMs;
    final long intervalNs;
    private final long messages;
    private final long seconds;
    private final boolean untilStdinEnds;
    private volatile boolean stdinEnded;
    private final String[] tags;
    private final String subscribe;

    LoadOptions(Flags flags) {
        namesrv = flags.text("namesrv");
        topic = flags.text("topic");
        // Unique for each process of one history: message ids begin with it.
        name = flags.text("name", "p");
        queues = flags.count("queues", 4);
        create = Boolean.parseBoolean(flags.text("create", "true"));
        producers = flags.count("producers", 4);
        mode = flags.text("mode", "sync");
        if (!mode.matches("sync|async|oneway|batch")) {
            throw new IllegalArgumentException("--mode is sync, async, oneway or batch, not " + mode);
        }
        size = flags.count("size", 1024);
        batch = flags.count("batch", 16);
        inFlight = flags.count("in-flight", 64);
        sticky = flags.is("sticky");
        giveUpMs = flags.number("give-up", 60) * 1000;
        long rate = flags.number("rate", 0);
        intervalNs = rate == 0 ? 0 : 1_000_000_000L * producers / rate;
        messages = flags.number("messages", 0);
        seconds = flags.number("seconds", 0);
        untilStdinEnds = flags.is("until-stdin-ends");
        if (untilStdinEnds) {
            Thread reader = new Thread(this::awaitStdinEnd, "stdin");
            reader.setDaemon(true);
            reader.start();
        }
        String tagList = flags.text("tags", "");
        tags = tagList.isEmpty() ? new String[0] : tagList.split(",");
        subscribe = flags.text("subscribe", "*");
    }

    /** Whether a producer thread that has made `sequence` messages since `startNs` makes another one. */
    boolean goesOn(int producer, long sequence, long startNs) {
        if (untilStdinEnds) {
            return !stdinEnded;
        }
        if (seconds > 0) {
            return System.nanoTime() - startNs < seconds * 1_000_000_000L;
        }
        long share = messages / producers + (producer < messages % producers ? 1 : 0);
        return sequence < share;
    }

    private void awaitStdinEnd() {
        try {
            while (System.in.read() >= 0) {
                // What is written there means nothing; its end does.
            }
        } catch (IOException e) {
            System.err.println("standard input: " + e);
        }
        stdinEnded = true;
    }

    /** The tag of a message, going round by its sequence; null where no tags were asked for. */
    String tag(String id) {
        if (tags.length == 0) {
            return null;
        }
        long sequence = Long.parseLong(id.substring(id.lastIndexOf('-') + 1));
        return tags[(int) (sequence % tags.length)];
    }

    boolean subscribed(String id) {
        if (subscribe.equals("*")) {
            return true;
        }
        for (String tag : subscribe.split("\\|\\|")) {
            if (tag.trim().equals(tag(id))) {
                return true;
            }
        }
        return false;
    }
}
