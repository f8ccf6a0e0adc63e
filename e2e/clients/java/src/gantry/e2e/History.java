package gantry.e2e;

import java.io.BufferedWriter;
import java.io.Closeable;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.time.Instant;
import java.time.temporal.ChronoUnit;

/**
 * The history: JSON lines, one event a line; e2e/src/history.rs reads it and says what each field means.
 * Time is the wall clock at the start plus the monotonic clock since: microseconds that never run backwards
 * inside a process and can be compared between processes of one machine.
 */
final class History implements Closeable {
    private static final long WALL_US = ChronoUnit.MICROS.between(Instant.EPOCH, Instant.now());
    private static final long MONO_NS = System.nanoTime();

    private final BufferedWriter out;
    private final Thread flusher = new Thread(this::flushEachSecond, "history");
    private IOException failure;
    private volatile boolean closed;

    private History(BufferedWriter out) {
        this.out = out;
        flusher.setDaemon(true);
        flusher.start();
    }

    static History open(String path) throws IOException {
        return new History(Files.newBufferedWriter(Paths.get(path), StandardCharsets.UTF_8));
    }

    static long nowUs() {
        return WALL_US + (System.nanoTime() - MONO_NS) / 1000;
    }

    void producer(String producer, int hidden) {
        write("{\"e\":\"producer\",\"p\":\"" + producer + "\",\"hidden\":" + hidden + end());
    }

    void consumer(String consumer, String group, boolean ordered) {
        write("{\"e\":\"consumer\",\"c\":\"" + consumer + "\",\"group\":\"" + group + "\",\"ordered\":" + ordered + end());
    }

    void sendStart(String id, int attempt, String tag) {
        write("{\"e\":\"start\",\"id\":\"" + id + "\",\"a\":" + attempt
                + (tag == null ? "" : ",\"g\":\"" + tag + "\"") + end());
    }

    void sendEnd(String id, int attempt, String status, int queue, long offset, String offsetMsgId) {
        write("{\"e\":\"end\",\"id\":\"" + id + "\",\"a\":" + attempt + ",\"s\":\"" + status + "\",\"q\":" + queue
                + ",\"o\":" + offset + ",\"m\":\"" + offsetMsgId + "\"" + end());
    }

    void sendFailed(String id, int attempt, String errorClass) {
        write("{\"e\":\"end\",\"id\":\"" + id + "\",\"a\":" + attempt + ",\"s\":\"" + errorClass + "\"" + end());
    }

    /** The library failed an attempt by itself and will, or won't, make another one. */
    void innerFailure(String id, String errorClass) {
        write("{\"e\":\"inner\",\"id\":\"" + id + "\",\"s\":\"" + errorClass + "\"" + end());
    }

    void received(Received r) {
        write("{\"e\":\"recv\",\"id\":\"" + r.id + "\",\"c\":\"" + r.consumer + "\",\"tp\":\"" + r.topic + "\",\"q\":"
                + r.queue + ",\"o\":" + r.offset + ",\"r\":" + r.reconsumeTimes + (r.intact ? "" : ",\"intact\":false")
                + (r.later ? ",\"later\":true" : "") + end());
    }

    private static String end() {
        return ",\"t\":" + nowUs() + "}\n";
    }

    private synchronized void write(String line) {
        try {
            out.write(line);
        } catch (IOException e) {
            failure = e;
        }
    }

    private void flushEachSecond() {
        while (!closed) {
            try {
                Thread.sleep(1000);
                synchronized (this) {
                    if (!closed) {
                        out.flush();
                    }
                }
            } catch (InterruptedException | IOException e) {
                synchronized (this) {
                    failure = e instanceof IOException ? (IOException) e : new IOException(e);
                }
                return;
            }
        }
    }

    @Override
    public synchronized void close() throws IOException {
        closed = true;
        out.close();
        if (failure != null) {
            throw failure;
        }
    }
}
