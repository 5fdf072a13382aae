package dev.serin.bench;

import java.util.Arrays;

/**
 * Serin's summaries with Serin's bytes (crates/sketches): a rate, a log histogram, a linear histogram, and the plain counts of an
 * arm. One class, because a store has one serde.
 */
final class Sketch {
    static final byte RATE = 1;
    static final byte LOG = 2;
    static final byte LIN = 3;
    /** Not a summary of Serin: predictions, errors, invalid, labelled of one arm. */
    static final byte COUNTS = 100;

    private static final byte FORMAT = 1;
    private static final int CAP = 2048;
    private static final int LIN_CELLS = 512;
    private static final double LN_GAMMA = 0.020000666706669525;

    final byte kind;
    /** RATE: trials and events. LOG: zeros. COUNTS: four counts. */
    final long[] numbers = new long[4];
    private int first;
    private int length;
    private long[] counts = new long[0];

    Sketch(byte kind) {
        this.kind = kind;
    }

    void rate(boolean event) {
        numbers[0]++;
        if (event) {
            numbers[1]++;
        }
    }

    void log(double value) {
        if (value == 0) {
            numbers[0]++;
        } else {
            add((int) Math.ceil(Math.log(value) / LN_GAMMA));
        }
    }

    void lin(double value, double dither) {
        double scaled = value * LIN_CELLS;
        int lower = (int) scaled;
        add(dither < scaled - lower ? lower + 1 : lower);
    }

    /** Dense counts over consecutive keys; the lowest fold together beyond CAP (crates/sketches/src/bins.rs). */
    private void add(int key) {
        if (length == 0) {
            first = key;
            reserve(1);
        } else if (key >= first + length) {
            int lowest = key - (CAP - 1);
            if (first < lowest) {
                collapse(lowest);
            }
            reserve(key - first + 1);
        } else if (key < first) {
            int lowest = Math.max(key, first + length - CAP);
            int shift = first - lowest;
            if (shift > 0) {
                int old = length;
                reserve(old + shift);
                System.arraycopy(counts, 0, counts, shift, old);
                Arrays.fill(counts, 0, shift, 0);
                first = lowest;
            }
        }
        counts[Math.max(key, first) - first]++;
    }

    private void collapse(int lowest) {
        int fold = Math.min(length, lowest - first);
        long folded = 0;
        for (int i = 0; i < fold; i++) {
            folded += counts[i];
        }
        System.arraycopy(counts, fold, counts, 0, length - fold);
        Arrays.fill(counts, length - fold, length, 0);
        length -= fold;
        first = lowest;
        if (length == 0) {
            reserve(1);
        }
        counts[0] += folded;
    }

    private void reserve(int wanted) {
        if (counts.length < wanted) {
            counts = Arrays.copyOf(counts, Math.max(wanted, 2 * counts.length));
        }
        length = wanted;
    }

    byte[] encode() {
        Writer out = new Writer(16 + 2 * length);
        out.put(FORMAT);
        out.put(kind);
        int plain = kind == RATE ? 2 : kind == LOG ? 1 : kind == COUNTS ? 4 : 0;
        for (int i = 0; i < plain; i++) {
            out.varint(numbers[i]);
        }
        if (kind == LOG || kind == LIN) {
            int f = length == 0 ? 0 : first;
            out.varint(((long) f << 1) ^ ((long) f >> 63));
            out.varint(length);
            for (int i = 0; i < length; ) {
                out.varint(counts[i]);
                if (counts[i] != 0) {
                    i++;
                    continue;
                }
                int run = i;
                while (run < length && counts[run] == 0) {
                    run++;
                }
                out.varint(run - i);
                i = run;
            }
        }
        return out.done();
    }

    static Sketch decode(byte[] bytes) {
        Reader in = new Reader(bytes);
        if (in.next() != FORMAT) {
            throw new IllegalStateException("unknown format of a sketch");
        }
        Sketch sketch = new Sketch(in.next());
        byte kind = sketch.kind;
        int plain = kind == RATE ? 2 : kind == LOG ? 1 : kind == COUNTS ? 4 : 0;
        for (int i = 0; i < plain; i++) {
            sketch.numbers[i] = in.varint();
        }
        if (kind == LOG || kind == LIN) {
            long zigzag = in.varint();
            sketch.first = (int) ((zigzag >>> 1) ^ -(zigzag & 1));
            int length = (int) in.varint();
            sketch.counts = new long[length];
            sketch.length = length;
            for (int i = 0; i < length; ) {
                long count = in.varint();
                if (count != 0) {
                    sketch.counts[i++] = count;
                } else {
                    i += (int) in.varint();
                }
            }
        }
        return sketch;
    }

    /** LEB128. */
    private static final class Writer {
        private byte[] bytes;
        private int at;

        Writer(int room) {
            bytes = new byte[room];
        }

        void put(byte value) {
            if (at == bytes.length) {
                bytes = Arrays.copyOf(bytes, 2 * at + 16);
            }
            bytes[at++] = value;
        }

        void varint(long value) {
            while ((value & ~0x7fL) != 0) {
                put((byte) (value | 0x80));
                value >>>= 7;
            }
            put((byte) value);
        }

        byte[] done() {
            return at == bytes.length ? bytes : Arrays.copyOf(bytes, at);
        }
    }

    private static final class Reader {
        private final byte[] bytes;
        private int at;

        Reader(byte[] bytes) {
            this.bytes = bytes;
        }

        byte next() {
            return bytes[at++];
        }

        long varint() {
            long value = 0;
            for (int shift = 0; ; shift += 7) {
                byte next = bytes[at++];
                value |= (long) (next & 0x7f) << shift;
                if (next >= 0) {
                    return value;
                }
            }
        }
    }
}
