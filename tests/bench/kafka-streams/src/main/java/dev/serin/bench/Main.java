package dev.serin.bench;

import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.TreeSet;
import java.util.function.Function;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.state.RocksDBConfigSetter;
import org.apache.kafka.streams.state.Stores;
import org.rocksdb.BlockBasedTableConfig;
import org.rocksdb.LRUCache;
import org.rocksdb.Options;
import org.rocksdb.WriteBufferManager;

/** Reads a backlog to its end and prints its cost after the warm-up as one line of JSON. */
public final class Main {
    private Main() {}

    public static void main(String[] arguments) throws Exception {
        Map<String, String> args = new HashMap<>();
        for (int i = 0; i + 1 < arguments.length; i += 2) {
            args.put(arguments[i], arguments[i + 1]);
        }
        Function<String, String> need = name -> {
            String value = args.get("--" + name);
            if (value == null) {
                throw new IllegalArgumentException("--" + name + " is missing");
            }
            return value;
        };
        long records = Long.parseLong(need.apply("records"));
        long warm = Long.parseLong(need.apply("warm"));
        long limit = Long.parseLong(need.apply("seconds"));
        Path state = Path.of(need.apply("state"));
        Files.createDirectories(state);

        try (KafkaStreams streams = new KafkaStreams(topology(need), config(need, state))) {
            streams.setUncaughtExceptionHandler(error -> {
                error.printStackTrace();
                Runtime.getRuntime().halt(1);
                return null;
            });
            long begun = System.nanoTime();
            streams.start();
            Moment first = await(1, begun, limit);
            Moment warmed = await(warm, begun, limit);
            Moment done = await(records, begun, limit);
            // Wait for the last commit, so that all output is written.
            streams.close(Duration.ofMinutes(1));
            System.out.printf(
                    "{\"records\":%d,\"measured_records\":%d,\"wall_s\":%.3f,\"cpu_s\":%.3f,"
                            + "\"whole_wall_s\":%.3f,\"whole_cpu_s\":%.3f,\"late\":%d,\"unjoined\":%d}%n",
                    done.records,
                    done.records - warmed.records,
                    (done.nanos - warmed.nanos) / 1e9,
                    (done.cpu - warmed.cpu) / 1e9,
                    (done.nanos - first.nanos) / 1e9,
                    done.cpu / 1e9,
                    Aggregate.LATE.get(),
                    Aggregate.UNJOINED.get());
        }
    }

    private static Topology topology(Function<String, String> need) {
        long window = Long.parseLong(need.apply("window-us"));
        long grace = Long.parseLong(need.apply("grace-us"));
        long maturity = Long.parseLong(need.apply("maturity-us"));
        Aggregate.Plan plan = new Aggregate.Plan(
                need.apply("rollout"),
                Long.parseLong(need.apply("generation")),
                window,
                grace,
                maturity,
                new TreeSet<>(Arrays.asList(need.apply("segments").split(","))));
        Duration kept = Duration.ofMillis((window + grace + maturity) / 1000).plusSeconds(60);
        Map<String, String> changelog = Map.of("min.insync.replicas", "1");
        String prefix = need.apply("prefix");
        return new Topology()
                .addSource("events", Serdes.ByteArray().deserializer(), Serdes.ByteArray().deserializer(), prefix + "events")
                .addProcessor("aggregate", () -> new Aggregate(plan), "events")
                // The cells: a windowed store on RocksDB, cached, so that a cell changed many times is written once per commit.
                .addStateStore(
                        Stores.windowStoreBuilder(
                                        Stores.persistentWindowStore(
                                                Aggregate.CELLS, kept, Duration.ofMillis(window / 1000), false),
                                        Serdes.String(),
                                        serde(Sketch::encode, Sketch::decode))
                                .withCachingEnabled()
                                .withLoggingEnabled(changelog),
                        "aggregate")
                // The calls that wait for labels: as the library's own stream-stream join keeps them, a windowed store without cache.
                .addStateStore(
                        Stores.windowStoreBuilder(
                                        Stores.persistentWindowStore(
                                                Aggregate.CALLS, kept, Duration.ofMillis(window / 1000), false),
                                        Serdes.String(),
                                        serde(Call::encode, Call::decode))
                                .withCachingDisabled()
                                .withLoggingEnabled(changelog),
                        "aggregate")
                .addSink("windows", prefix + "streams-windows", Serdes.String().serializer(), Serdes.ByteArray().serializer(), "aggregate");
    }

    private static <T> Serde<T> serde(Function<T, byte[]> encode, Function<byte[], T> decode) {
        return Serdes.serdeFrom(
                (topic, value) -> value == null ? null : encode.apply(value),
                (topic, bytes) -> bytes == null ? null : decode.apply(bytes));
    }

    private static Properties config(Function<String, String> need, Path state) {
        Properties config = new Properties();
        config.put(StreamsConfig.APPLICATION_ID_CONFIG, need.apply("prefix") + "streams");
        config.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, need.apply("brokers"));
        config.put(StreamsConfig.STATE_DIR_CONFIG, state.toString());
        config.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        // The same as Serin's. The default with exactly-once is 100 ms.
        config.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1000);
        config.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, Integer.parseInt(need.apply("threads")));
        config.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        // "Memory management": a cache large enough for all cells between two commits; the default is 10 MB.
        config.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 256L << 20);
        config.put(StreamsConfig.ROCKSDB_CONFIG_SETTER_CLASS_CONFIG, BoundedMemory.class);
        config.put(StreamsConfig.METRICS_RECORDING_LEVEL_CONFIG, "INFO");
        config.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");
        config.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 256 << 10);
        config.put(StreamsConfig.producerPrefix(ProducerConfig.BUFFER_MEMORY_CONFIG), 64 << 20);
        config.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        config.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 5000);
        return config;
    }

    /** As the documentation recommends: one cache for all stores, with write buffers charged to it. */
    public static final class BoundedMemory implements RocksDBConfigSetter {
        private static final LRUCache CACHE = new LRUCache(256L << 20, -1, false, 0.1);
        private static final WriteBufferManager BUFFERS = new WriteBufferManager(128L << 20, CACHE);

        @Override
        public void setConfig(String store, Options options, Map<String, Object> configs) {
            BlockBasedTableConfig table = (BlockBasedTableConfig) options.tableFormatConfig();
            table.setBlockCache(CACHE);
            table.setCacheIndexAndFilterBlocks(true);
            table.setCacheIndexAndFilterBlocksWithHighPriority(true);
            table.setPinTopLevelIndexAndFilter(true);
            options.setWriteBufferManager(BUFFERS);
            options.setTableFormatConfig(table);
        }

        @Override
        public void close(String store, Options options) {
            // Cache and buffers are shared, so do not close them.
        }
    }

    private record Moment(long records, long nanos, long cpu) {}

    /** Waits until this many records are done. */
    private static Moment await(long records, long begun, long limit) throws InterruptedException {
        while (Aggregate.PROCESSED.get() < records) {
            if (System.nanoTime() - begun > limit * 1_000_000_000L) {
                throw new IllegalStateException(
                        "only " + Aggregate.PROCESSED.get() + " of " + records + " records in " + limit + " s");
            }
            Thread.sleep(5);
        }
        var os = (com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        return new Moment(Aggregate.PROCESSED.get(), System.nanoTime(), os.getProcessCpuTime());
    }
}
