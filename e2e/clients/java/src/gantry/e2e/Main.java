package gantry.e2e;

import java.io.IOException;

/**
 * One program over the official RocketMQ client. Subcommands: load, consume, pair, create-topic.
 *
 * Standard output is for the harness, one line an event: "ready", then "progress acked A received R errors E" every
 * 100 ms, at last "done …" with the same figures. The history file holds what the checker judges.
 * Exit codes: 0 the job was done, 2 bad arguments, 3 the job was not done in time, 1 anything else.
 */
public final class Main {
    private Main() {}

    public static void main(String[] args) {
        int code;
        try {
            code = run(args);
        } catch (IllegalArgumentException e) {
            System.err.println("error: " + e.getMessage());
            code = 2;
        } catch (Throwable e) {
            e.printStackTrace();
            code = 1;
        }
        System.out.flush();
        // The client library leaves threads behind that are not daemons.
        System.exit(code);
    }

    private static int run(String[] args) throws Exception {
        if (args.length == 0) {
            throw new IllegalArgumentException("a subcommand is needed: load, consume, pair or create-topic");
        }
        Flags flags = new Flags(args);
        if (args[0].equals("create-topic")) {
            return createTopic(flags);
        }
        try (History history = History.open(flags.text("history"))) {
            Progress progress = new Progress();
            switch (args[0]) {
                case "load":
                    return load(flags, history, progress);
                case "consume":
                    return consume(flags, history, progress);
                case "pair":
                    return pair(flags, history, progress);
                default:
                    throw new IllegalArgumentException("unknown subcommand " + args[0]);
            }
        }
    }

    private static int createTopic(Flags flags) throws Exception {
        Load load = new Load(flags, null, new Progress());
        flags.refuseUnread();
        load.start();
        load.createTopic();
        load.shutdown();
        return 0;
    }

    private static int load(Flags flags, History history, Progress progress) throws Exception {
        Load load = new Load(flags, history, progress);
        flags.refuseUnread();
        load.start();
        if (load.creates()) {
            load.createTopic();
        }
        progress.start();
        boolean complete = load.run();
        load.shutdown();
        progress.done();
        return complete ? 0 : 3;
    }

    private static int consume(Flags flags, History history, Progress progress) throws Exception {
        Consume consume = new Consume(flags, history, progress);
        Wanted wanted = Wanted.from(flags);
        flags.refuseUnread();
        consume.start();
        progress.start();
        boolean drained = consume.drain(wanted);
        consume.shutdown();
        progress.done();
        return drained ? 0 : 3;
    }

    /** Producer and consumer in one process: a JVM's start costs more than most tests. */
    private static int pair(Flags flags, History history, Progress progress) throws Exception {
        Load load = new Load(flags, history, progress);
        Consume consume = new Consume(flags, history, progress);
        Wanted fixed = Wanted.from(flags);
        flags.refuseUnread();
        load.start();
        if (load.creates()) {
            load.createTopic();
        }
        consume.start();
        progress.start();
        boolean complete = load.run();
        boolean drained = consume.drain(fixed.isGiven() ? fixed : Wanted.ids(load.wanted()));
        load.shutdown();
        consume.shutdown();
        progress.done();
        return complete && drained ? 0 : 3;
    }
}
