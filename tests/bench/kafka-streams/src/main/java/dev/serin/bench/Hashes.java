package dev.serin.bench;

import java.nio.charset.StandardCharsets;

/** Serin's hash of a request and a purpose (crates/sketches/src/hash.rs): FNV-1a, then MurmurHash3's finalizer. */
final class Hashes {
    private static final long OFFSET = 0xcbf29ce484222325L;
    private static final long PRIME = 0x100000001b3L;
    private static final long DITHER = OFFSET ^ mix(fnv(OFFSET, "dither".getBytes(StandardCharsets.UTF_8), 6));

    private Hashes() {}

    /** The dither of a request's value of a metric, as a number in [0, 1). */
    static double dither(byte[] request, int length, byte[] metric) {
        long hash = mix(fnv(fnv(DITHER, request, length), metric, metric.length));
        return (hash >>> 11) * 0x1.0p-53;
    }

    private static long fnv(long seed, byte[] bytes, int length) {
        long hash = seed;
        for (int i = 0; i < length; i++) {
            hash = (hash ^ (bytes[i] & 0xff)) * PRIME;
        }
        return hash;
    }

    private static long mix(long hash) {
        hash ^= hash >>> 33;
        hash *= 0xff51afd7ed558ccdL;
        hash ^= hash >>> 33;
        hash *= 0xc4ceb9fe1a85ec53L;
        return hash ^ (hash >>> 33);
    }
}
