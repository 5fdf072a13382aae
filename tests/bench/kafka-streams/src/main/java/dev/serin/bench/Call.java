package dev.serin.bench;

import java.nio.ByteBuffer;

/** The state of a tracked prediction that waits for its label: window, arm, segment, and the output that the label is compared with. */
record Call(long windowStart, byte arm, short segment, double score) {
    byte[] encode() {
        return ByteBuffer.allocate(19).putLong(windowStart).put(arm).putShort(segment).putDouble(score).array();
    }

    static Call decode(byte[] bytes) {
        ByteBuffer in = ByteBuffer.wrap(bytes);
        return new Call(in.getLong(), in.get(), in.getShort(), in.getDouble());
    }
}
