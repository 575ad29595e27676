package peer;

import java.nio.ByteBuffer;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serializer;

/** The last record of a key: its Kafka timestamp, where it stands, and its value. */
record Kept(long atMs, int partition, long offset, byte[] value) {
    static final class Codec implements Serde<Kept> {
        @Override
        public Serializer<Kept> serializer() {
            return (topic, kept) -> kept == null
                    ? null
                    : ByteBuffer.allocate(20 + kept.value.length)
                            .putLong(kept.atMs)
                            .putInt(kept.partition)
                            .putLong(kept.offset)
                            .put(kept.value)
                            .array();
        }

        @Override
        public Deserializer<Kept> deserializer() {
            return (topic, bytes) -> {
                if (bytes == null) {
                    return null;
                }
                ByteBuffer buffer = ByteBuffer.wrap(bytes);
                long atMs = buffer.getLong();
                int partition = buffer.getInt();
                long offset = buffer.getLong();
                byte[] value = new byte[buffer.remaining()];
                buffer.get(value);
                return new Kept(atMs, partition, offset, value);
            };
        }
    }
}
