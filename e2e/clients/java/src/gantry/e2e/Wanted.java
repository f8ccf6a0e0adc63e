package gantry.e2e;

import java.io.BufferedReader;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.HashSet;
import java.util.Set;

/** What a consumer must have received before it may stop: so many different messages, or these. */
final class Wanted {
    private final long count;
    private final Set<String> ids;

    private Wanted(long count, Set<String> ids) {
        this.count = count;
        this.ids = ids;
    }

    static Wanted ids(Set<String> ids) {
        return new Wanted(0, ids);
    }

    /** `--expect N`, or `--expect-acked FILE`: every message that this history says was acknowledged. */
    static Wanted from(Flags flags) throws IOException {
        Set<String> ids = new HashSet<>();
        String file = flags.text("expect-acked", null);
        if (file != null) {
            try (BufferedReader in = Files.newBufferedReader(Paths.get(file))) {
                for (String line = in.readLine(); line != null; line = in.readLine()) {
                    if (line.startsWith("{\"e\":\"end\"") && line.contains("\"s\":\"OK\"")) {
                        int start = line.indexOf("\"id\":\"") + 6;
                        ids.add(line.substring(start, line.indexOf('"', start)));
                    }
                }
            }
        }
        return new Wanted(flags.number("expect", 0), ids);
    }

    boolean isGiven() {
        return count > 0 || !ids.isEmpty();
    }

    boolean isIn(Set<String> received) {
        if (received.size() < count) {
            return false;
        }
        ids.removeIf(received::contains);
        return ids.isEmpty();
    }
}
