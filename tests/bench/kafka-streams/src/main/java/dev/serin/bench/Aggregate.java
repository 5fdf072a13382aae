package dev.serin.bench;

import dev.serin.Arm;
import dev.serin.Feedback;
import dev.serin.Heartbeat;
import dev.serin.Prediction;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.specific.SpecificDatumReader;
import org.apache.avro.util.Utf8;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.kstream.Windowed;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.WindowStore;
import org.apache.kafka.streams.state.WindowStoreIterator;

/**
 * The aggregator's work: windows of sketches per arm, metric and segment, labels joined by request id, windows written when the
 * watermark passes. One processor on the input's own partitions, so nothing is repartitioned. Simpler than Serin in ways that
 * favor it: it does not look for duplicates, and it supports no revisions of labels and no feedback before its prediction.
 */
final class Aggregate implements Processor<byte[], byte[], String, byte[]> {
    static final String CELLS = "cells";
    static final String CALLS = "calls";
    static final AtomicLong PROCESSED = new AtomicLong();
    static final AtomicLong LATE = new AtomicLong();
    static final AtomicLong UNJOINED = new AtomicLong();

    /** The settings that the control record contains in Serin. */
    record Plan(String rollout, long generation, long windowUs, long graceUs, long maturityUs, Set<String> segments) {}

    /** Number 0 is the plain counts of an arm. */
    private static final String[] METRICS = {"", "error_rate", "invalid_output", "latency_p99", "score", "wrong"};
    private static final int COUNTS = 0, ERROR_RATE = 1, INVALID_OUTPUT = 2, LATENCY = 3, MEAN_SCORE = 4, WRONG = 5;
    /** Numbers of segments that are not values. */
    private static final short ALL = 0, OTHER = 1;

    private static final byte[] SCORE = "score".getBytes(StandardCharsets.UTF_8);
    private static final Utf8 SCORE_KEY = new Utf8("score");
    private static final Utf8 LATE_KEY = new Utf8("late");
    private static final Utf8 ORIGIN = new Utf8("origin");
    private static final String[] ARMS = {"stable", "control", "canary", "shadow"};

    private final Plan plan;
    private final Utf8 rollout;
    private final Map<Utf8, Short> segments = new HashMap<>();
    /** Keys of cells, by stream, arm, metric, segment. */
    private final String[] keys;
    private final int width;
    private final SpecificDatumReader<Prediction> predictions = new SpecificDatumReader<>(Prediction.class);
    private final SpecificDatumReader<Feedback> feedbacks = new SpecificDatumReader<>(Feedback.class);
    private final SpecificDatumReader<Heartbeat> heartbeats = new SpecificDatumReader<>(Heartbeat.class);
    private final Map<String, Long> lows = new HashMap<>();
    /** Starts of windows that are open, by stream: 0 what is known at once, 1 labels. */
    private final TreeSet<Long> open = new TreeSet<>();
    private final TreeSet<Long> maturing = new TreeSet<>();
    private BinaryDecoder decoder;
    private Prediction prediction;
    private Feedback feedback;
    private long watermark = Long.MIN_VALUE;
    private ProcessorContext<String, byte[]> context;
    private WindowStore<String, Sketch> cells;
    private WindowStore<String, Call> calls;

    Aggregate(Plan plan) {
        this.plan = plan;
        rollout = new Utf8(plan.rollout());
        List<String> names = new ArrayList<>(List.of("", "other"));
        for (String name : plan.segments()) {
            segments.put(new Utf8(name), (short) names.size());
            names.add(name);
        }
        width = names.size();
        keys = new String[2 * ARMS.length * METRICS.length * width];
        for (int i = 0; i < keys.length; i++) {
            int metric = i / width % METRICS.length, arm = i / width / METRICS.length % ARMS.length;
            int stream = i / width / METRICS.length / ARMS.length;
            keys[i] = stream + "|" + ARMS[arm] + "|" + METRICS[metric] + "|" + names.get(i % width);
        }
    }

    @Override
    public void init(ProcessorContext<String, byte[]> context) {
        this.context = context;
        cells = context.getStateStore(CELLS);
        calls = context.getStateStore(CALLS);
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
        try {
            apply(record);
        } catch (IOException error) {
            throw new IllegalStateException(error);
        }
        PROCESSED.incrementAndGet();
    }

    private void apply(Record<byte[], byte[]> record) throws IOException {
        Header type = record.headers().lastHeader("ce_type");
        decoder = DecoderFactory.get().binaryDecoder(record.value(), decoder);
        switch (new String(type.value(), StandardCharsets.ISO_8859_1)) {
            case "dev.serin.prediction.v1" -> {
                prediction = predictions.read(prediction, decoder);
                predicted(prediction);
            }
            case "dev.serin.feedback.v1" -> {
                feedback = feedbacks.read(feedback, decoder);
                labelled(feedback);
            }
            case "dev.serin.heartbeat.v1" -> heard(heartbeats.read(null, decoder));
            default -> { }
        }
    }

    private void predicted(Prediction event) {
        if (!rollout.equals(event.getRollout()) || event.getGeneration() != plan.generation()) {
            return;
        }
        long start = Math.floorDiv(event.getCompletedAt(), plan.windowUs()) * plan.windowUs();
        if (start + plan.windowUs() + plan.graceUs() <= watermark) {
            LATE.incrementAndGet();
            return;
        }
        open.add(start);
        byte arm = (byte) event.getArm().ordinal();
        boolean error = event.getStatus() == null || event.getStatus() >= 500;
        boolean invalid = event.getInvalidOutput() != null;
        count(0, arm, start, error, invalid);
        if (event.getArm() == Arm.stable) {
            return;
        }
        short segment = segments.getOrDefault((Utf8) event.getSegments().get(ORIGIN), OTHER);
        update(0, arm, ERROR_RATE, segment, start, Sketch.RATE, error ? 1 : 0, 0);
        update(0, arm, INVALID_OUTPUT, segment, start, Sketch.RATE, invalid ? 1 : 0, 0);
        if (event.getLatencyUs() != null) {
            update(0, arm, LATENCY, segment, start, Sketch.LOG, event.getLatencyUs() / 1e3, 0);
        }
        Utf8 id = (Utf8) event.getRequestId();
        double score = event.getOutputs().get(SCORE_KEY);
        double dither = Hashes.dither(id.getBytes(), id.getByteLength(), SCORE);
        update(0, arm, MEAN_SCORE, segment, start, Sketch.LIN, score, dither);
        maturing.add(start);
        count(1, arm, start, error, invalid);
        calls.put(id.toString(), new Call(start, arm, segment, score), event.getCompletedAt() / 1000);
    }

    private void labelled(Feedback event) {
        long at = event.getObservedAt();
        Call call = null;
        long from = (at - plan.windowUs() - plan.maturityUs()) / 1000;
        try (WindowStoreIterator<Call> found = calls.fetch(event.getRequestId().toString(), from, at / 1000)) {
            if (found.hasNext()) {
                call = found.next().value;
            }
        }
        Double label = event.getValues().get(LATE_KEY);
        if (call == null || label == null || closedLabels(call.windowStart())) {
            UNJOINED.incrementAndGet();
            return;
        }
        boolean wrong = (call.score() >= 0.5) != (label >= 0.5);
        update(1, call.arm(), WRONG, call.segment(), call.windowStart(), Sketch.RATE, wrong ? 1 : 0, 0);
        String key = key(1, call.arm(), COUNTS, ALL);
        Sketch counts = cells.fetch(key, call.windowStart() / 1000);
        counts.numbers[3]++;
        cells.put(key, counts, call.windowStart() / 1000);
    }

    private boolean closedLabels(long start) {
        return start + plan.windowUs() + plan.maturityUs() + plan.graceUs() <= watermark;
    }

    private void count(int stream, byte arm, long start, boolean error, boolean invalid) {
        String key = key(stream, arm, COUNTS, ALL);
        Sketch counts = cells.fetch(key, start / 1000);
        if (counts == null) {
            counts = new Sketch(Sketch.COUNTS);
        }
        counts.numbers[0]++;
        counts.numbers[1] += error ? 1 : 0;
        counts.numbers[2] += invalid ? 1 : 0;
        cells.put(key, counts, start / 1000);
    }

    /** Adds a value to the cell for all traffic and to that of its segment. */
    private void update(
            int stream, byte arm, int metric, short segment, long start, byte kind, double value, double dither) {
        insert(key(stream, arm, metric, ALL), start, kind, value, dither);
        insert(key(stream, arm, metric, segment), start, kind, value, dither);
    }

    private void insert(String key, long start, byte kind, double value, double dither) {
        Sketch cell = cells.fetch(key, start / 1000);
        if (cell == null) {
            cell = new Sketch(kind);
        }
        switch (kind) {
            case Sketch.RATE -> cell.rate(value >= 0.5);
            case Sketch.LOG -> cell.log(value);
            default -> cell.lin(value, dither);
        }
        cells.put(key, cell, start / 1000);
    }

    private String key(int stream, byte arm, int metric, short segment) {
        return keys[((stream * ARMS.length + arm) * METRICS.length + metric) * width + segment];
    }

    private void heard(Heartbeat event) {
        lows.merge(event.getWriter().getName().toString(), event.getLowWatermark(), Math::max);
        watermark = Math.max(watermark, lows.values().stream().min(Long::compare).orElse(Long.MIN_VALUE));
        long passed = plan.windowUs() + plan.graceUs();
        while (!open.isEmpty() && open.first() + passed <= watermark) {
            close(0, open.pollFirst());
        }
        while (!maturing.isEmpty() && closedLabels(maturing.first())) {
            close(1, maturing.pollFirst());
        }
    }

    /** Writes a window's cells; the store's retention removes them, as it does for every windowed aggregation. */
    private void close(int stream, long start) {
        String prefix = stream + "|";
        Instant at = Instant.ofEpochMilli(start / 1000);
        try (KeyValueIterator<Windowed<String>, Sketch> found = cells.fetchAll(at, at)) {
            while (found.hasNext()) {
                KeyValue<Windowed<String>, Sketch> cell = found.next();
                String key = cell.key.key();
                if (key.startsWith(prefix)) {
                    context.forward(new Record<>(start + plan.windowUs() + "|" + key, cell.value.encode(), start / 1000));
                }
            }
        }
    }
}
