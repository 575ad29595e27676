package peer;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serializer;

/** What is known of a driver, and its bytes in the store. */
final class Driver {
    static final long NEVER = Long.MAX_VALUE;

    /** What started something: a record, by its Kafka timestamp, and its event time. */
    record Begun(boolean isOrder, long atMs, long timeMs, int partition, long offset) {
        long due(long afterMs) {
            return afterMs == NEVER ? NEVER : atMs + afterMs;
        }

        long dueTime(long afterMs) {
            return afterMs == NEVER ? NEVER : timeMs + afterMs;
        }

        double secondsTo(long timeMs) {
            return Math.max(timeMs - this.timeMs, 0) / 1000.0;
        }
    }

    static final class Visit {
        int fence;
        Begun begun;
        boolean dwelled;

        Visit(int fence, Begun begun, boolean dwelled) {
            this.fence = fence;
            this.begun = begun;
            this.dwelled = dwelled;
        }
    }

    enum Stay {
        AWAY,
        WITHIN,
        ARRIVED,
        DEPARTED
    }

    static final class Leg {
        String order;
        boolean isDropoff;
        double x;
        double y;
        String place;
        boolean nearTold;
        Stay stay = Stay.AWAY;
        /** Of a stay within or arrived. */
        Begun since;

        String name() {
            return isDropoff ? "dropoff" : "pickup";
        }

        String status() {
            return isDropoff ? "picked_up" : "assigned";
        }
    }

    /** The last ok fix; its place is not a number before the first. */
    double x = Double.NaN;

    double y = Double.NaN;
    long timeMs;
    float speedMps = Float.NaN;
    /** The ok fix before it. */
    double previousX = Double.NaN;

    double previousY = Double.NaN;
    long previousMs;
    /** A teleport since. */
    double teleportX = Double.NaN;

    double teleportY = Double.NaN;
    long teleportMs;

    Begun heard;
    Begun openSince;
    boolean silent;
    /** By fence. */
    final List<Visit> visits = new ArrayList<>(4);
    /** By order. */
    final List<Leg> legs = new ArrayList<>(1);

    boolean hasFix() {
        return !Double.isNaN(x);
    }

    boolean visits(int fence) {
        for (Visit visit : visits) {
            if (visit.fence == fence) {
                return true;
            }
        }
        return false;
    }

    /** What silence is counted from, if it is still to be told. */
    Begun silentFrom() {
        if (openSince == null || silent) {
            return null;
        }
        return heard != null && heard.atMs >= openSince.atMs ? heard : openSince;
    }

    static final class Codec implements Serde<Driver> {
        private static final ThreadLocal<byte[]> ROOM = ThreadLocal.withInitial(() -> new byte[16 * 1024]);

        @Override
        public Serializer<Driver> serializer() {
            return (topic, driver) -> driver == null ? null : encode(driver);
        }

        @Override
        public Deserializer<Driver> deserializer() {
            return (topic, bytes) -> bytes == null ? null : decode(ByteBuffer.wrap(bytes));
        }

        private static byte[] encode(Driver driver) {
            ByteBuffer out = ByteBuffer.wrap(ROOM.get());
            int has = (driver.hasFix() ? 1 : 0)
                    | (Double.isNaN(driver.previousX) ? 0 : 2)
                    | (Double.isNaN(driver.teleportX) ? 0 : 4)
                    | (driver.heard != null ? 8 : 0)
                    | (driver.openSince != null ? 16 : 0)
                    | (driver.silent ? 32 : 0);
            out.put((byte) has);
            if ((has & 1) != 0) {
                out.putDouble(driver.x).putDouble(driver.y).putLong(driver.timeMs).putFloat(driver.speedMps);
            }
            if ((has & 2) != 0) {
                out.putDouble(driver.previousX).putDouble(driver.previousY).putLong(driver.previousMs);
            }
            if ((has & 4) != 0) {
                out.putDouble(driver.teleportX).putDouble(driver.teleportY).putLong(driver.teleportMs);
            }
            if ((has & 8) != 0) {
                put(out, driver.heard);
            }
            if ((has & 16) != 0) {
                put(out, driver.openSince);
            }
            out.putShort((short) driver.visits.size());
            for (Visit visit : driver.visits) {
                out.putInt(visit.fence).put((byte) (visit.dwelled ? 1 : 0));
                put(out, visit.begun);
            }
            out.putShort((short) driver.legs.size());
            for (Leg leg : driver.legs) {
                put(out, leg.order);
                put(out, leg.place == null ? "" : leg.place);
                out.putDouble(leg.x).putDouble(leg.y);
                int flags = (leg.isDropoff ? 1 : 0) | (leg.nearTold ? 2 : 0) | (leg.since != null ? 4 : 0);
                out.put((byte) flags).put((byte) leg.stay.ordinal());
                if (leg.since != null) {
                    put(out, leg.since);
                }
            }
            byte[] bytes = new byte[out.position()];
            System.arraycopy(out.array(), 0, bytes, 0, bytes.length);
            return bytes;
        }

        private static Driver decode(ByteBuffer in) {
            Driver driver = new Driver();
            int has = in.get();
            if ((has & 1) != 0) {
                driver.x = in.getDouble();
                driver.y = in.getDouble();
                driver.timeMs = in.getLong();
                driver.speedMps = in.getFloat();
            }
            if ((has & 2) != 0) {
                driver.previousX = in.getDouble();
                driver.previousY = in.getDouble();
                driver.previousMs = in.getLong();
            }
            if ((has & 4) != 0) {
                driver.teleportX = in.getDouble();
                driver.teleportY = in.getDouble();
                driver.teleportMs = in.getLong();
            }
            if ((has & 8) != 0) {
                driver.heard = begun(in);
            }
            if ((has & 16) != 0) {
                driver.openSince = begun(in);
            }
            driver.silent = (has & 32) != 0;
            for (int left = in.getShort(); left > 0; left--) {
                int fence = in.getInt();
                boolean dwelled = in.get() != 0;
                driver.visits.add(new Visit(fence, begun(in), dwelled));
            }
            for (int left = in.getShort(); left > 0; left--) {
                Leg leg = new Leg();
                leg.order = text(in);
                leg.place = text(in);
                if (leg.place.isEmpty()) {
                    leg.place = null;
                }
                leg.x = in.getDouble();
                leg.y = in.getDouble();
                int flags = in.get();
                leg.isDropoff = (flags & 1) != 0;
                leg.nearTold = (flags & 2) != 0;
                leg.stay = STAYS[in.get()];
                if ((flags & 4) != 0) {
                    leg.since = begun(in);
                }
                driver.legs.add(leg);
            }
            return driver;
        }

        private static final Stay[] STAYS = Stay.values();

        private static void put(ByteBuffer out, Begun begun) {
            out.put((byte) (begun.isOrder ? 1 : 0))
                    .putLong(begun.atMs)
                    .putLong(begun.timeMs)
                    .putInt(begun.partition)
                    .putLong(begun.offset);
        }

        private static Begun begun(ByteBuffer in) {
            return new Begun(in.get() != 0, in.getLong(), in.getLong(), in.getInt(), in.getLong());
        }

        private static void put(ByteBuffer out, String text) {
            byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
            out.putShort((short) bytes.length).put(bytes);
        }

        private static String text(ByteBuffer in) {
            int length = in.getShort();
            String text = new String(in.array(), in.position(), length, StandardCharsets.UTF_8);
            in.position(in.position() + length);
            return text;
        }
    }
}
