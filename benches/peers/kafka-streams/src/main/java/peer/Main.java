package peer;

import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * The detection of riderflow as a Kafka Streams application.
 *
 * <p>Arguments: brokers, application id, topic of the events, memory or rocksdb, state folder,
 * partitions of the updates, and settings of Kafka Streams as key=value. It runs until it is
 * told to end.
 */
public final class Main {
    /** Stores of all fences and all orders, each a copy of its topic. */
    static final String FENCES = "fences";

    static final String ORDERS = "orders";
    /** What is known of each driver. */
    static final String DRIVERS = "drivers";

    private Main() {}

    public static void main(String[] arguments) throws InterruptedException {
        String application = arguments[1];
        Properties settings = new Properties();
        settings.putAll(Map.of(
                StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0],
                StreamsConfig.APPLICATION_ID_CONFIG, application,
                StreamsConfig.STATE_DIR_CONFIG, arguments[4],
                StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2,
                StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2,
                StreamsConfig.REPLICATION_FACTOR_CONFIG, 1,
                ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest"));
        for (int at = 6; at < arguments.length; at++) {
            String[] setting = arguments[at].split("=", 2);
            settings.put(setting[0], setting[1]);
        }
        Topology topology = topology(
                application, arguments[2], arguments[3].equals("rocksdb"), Integer.parseInt(arguments[5]));
        KafkaStreams streams = new KafkaStreams(topology, settings);
        CountDownLatch ended = new CountDownLatch(1);
        streams.setUncaughtExceptionHandler(fault -> {
            fault.printStackTrace();
            ended.countDown();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(5))));
        streams.start();
        ended.await();
        System.exit(1);
    }

    private static Topology topology(String application, String events, boolean rocksdb, int partitions) {
        Topology topology = new Topology();
        keep(topology, FENCES, "geofences");
        keep(topology, ORDERS, "orders");
        topology.addSource("updates", new ByteArrayDeserializer(), new ByteArrayDeserializer(), "rider-updates");
        topology.addProcessor("detect", () -> new Detect(application, partitions), "updates");
        topology.addStateStore(
                Stores.keyValueStoreBuilder(
                        rocksdb ? Stores.persistentKeyValueStore(DRIVERS) : Stores.inMemoryKeyValueStore(DRIVERS),
                        Serdes.Long(),
                        new Driver.Codec()),
                "detect");
        topology.addSink("events", events, new ByteArraySerializer(), new ByteArraySerializer(), "detect");
        return topology;
    }

    /** A copy of a topic that all tasks may read, full before any of them begins. */
    private static void keep(Topology topology, String store, String topic) {
        topology.addGlobalStore(
                Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore(store), Serdes.String(), new Kept.Codec())
                        .withLoggingDisabled(),
                store + "-source",
                new StringDeserializer(),
                new ByteArrayDeserializer(),
                topic,
                store + "-keep",
                () -> new Keep(store));
    }

    private static final class Keep implements Processor<String, byte[], Void, Void> {
        private final String name;
        private ProcessorContext<Void, Void> context;
        private KeyValueStore<String, Kept> store;

        private Keep(String name) {
            this.name = name;
        }

        @Override
        public void init(ProcessorContext<Void, Void> context) {
            this.context = context;
            store = context.getStateStore(name);
        }

        @Override
        public void process(Record<String, byte[]> record) {
            if (record.value() == null) {
                store.delete(record.key());
                return;
            }
            var metadata = context.recordMetadata().orElseThrow();
            store.put(
                    record.key(),
                    new Kept(record.timestamp(), metadata.partition(), metadata.offset(), record.value()));
        }
    }
}
