package gantry.e2e;

import java.nio.charset.StandardCharsets;
import java.util.zip.CRC32;

/** A body is `crc:id:filler`: eight hex digits of the CRC-32 of all that follows the first colon. */
final class Body {
    private Body() {}

    static byte[] of(String id, int size) {
        byte[] head = ("00000000:" + id + ":").getBytes(StandardCharsets.US_ASCII);
        byte[] body = new byte[Math.max(size, head.length)];
        System.arraycopy(head, 0, body, 0, head.length);
        int letter = id.hashCode() & 0xFFFF;
        for (int i = head.length; i < body.length; i++) {
            body[i] = (byte) ('a' + (letter + i) % 26);
        }
        System.arraycopy(crc(body), 0, body, 0, 8);
        return body;
    }

    static boolean isIntact(byte[] body, String id) {
        byte[] head = (":" + id + ":").getBytes(StandardCharsets.US_ASCII);
        if (id.isEmpty() || body.length < 8 + head.length) {
            return false;
        }
        for (int i = 0; i < head.length; i++) {
            if (body[8 + i] != head[i]) {
                return false;
            }
        }
        byte[] crc = crc(body);
        for (int i = 0; i < 8; i++) {
            if (body[i] != crc[i]) {
                return false;
            }
        }
        return true;
    }

    private static byte[] crc(byte[] body) {
        CRC32 crc = new CRC32();
        crc.update(body, 9, body.length - 9);
        return String.format("%08x", crc.getValue()).getBytes(StandardCharsets.US_ASCII);
    }
}
