package gantry.e2e;

import java.util.concurrent.atomic.AtomicLong;

/** The figures that the harness follows on standard output. */
final class Progress {
    final AtomicLong acked = new AtomicLong();
    final AtomicLong received = new AtomicLong();
    final AtomicLong errors = new AtomicLong();

    void start() {
        say("ready");
        Thread teller = new Thread(() -> {
            try {
                while (true) {
                    Thread.sleep(100);
                    say("progress " + figures());
                }
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
        }, "progress");
        teller.setDaemon(true);
        teller.start();
    }

    void done() {
        say("done " + figures());
    }

    private String figures() {
        return "acked " + acked + " received " + received + " errors " + errors;
    }

    private static void say(String line) {
        synchronized (System.out) {
            System.out.println(line);
            System.out.flush();
        }
    }
}
