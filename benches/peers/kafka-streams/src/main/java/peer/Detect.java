package peer;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;

/**
 * One partition's drivers: updates and timers against fences and legs.
 *
 * <p>Needs every update of a driver in the driver's partition, by the key's murmur2. Fences and
 * orders are looked up once, before the first update; later versions are not followed.
 */
final class Detect implements Processor<byte[], byte[], byte[], byte[]> {
    private static final double NEAR_M = 500;
    private static final double ARRIVE_M = 60;
    private static final double DEPART_M = 150;
    private static final long ARRIVE_MS = 10_000;
    private static final long SILENT_MS = 30_000;
    private static final long CROSSING_GAP_MS = 60_000;
    private static final double MAX_SPEED_MPS = 70;
    private static final float MAX_ACCURACY_M = 100;
    private static final double MIN_SPEED_MPS = 1;
    /** Timers are looked for this often. */
    private static final Duration TICK = Duration.ofSeconds(1);
    /** After so long without an update the task is in time, and timers run on the wall clock. */
    private static final long QUIET_NS = 3_000_000_000L;

    private final String application;
    private final int partitions;
    private byte[] source;
    private ProcessorContext<byte[], byte[]> context;
    private KeyValueStore<Long, Driver> drivers;
    private Fences fences;
    private final Agenda agenda = new Agenda();
    private final Update update = new Update();
    /** What is told of one cause. */
    private final List<Event> events = new ArrayList<>();

    private boolean hasOrders;
    private long latestMs = Long.MIN_VALUE;
    private long lastNs;

    Detect(String application, int partitions) {
        this.application = application;
        this.partitions = partitions;
    }

    @Override
    public void init(ProcessorContext<byte[], byte[]> context) {
        this.context = context;
        source = Event.bytes("/riderflow/" + application);
        drivers = context.getStateStore(Main.DRIVERS);
        KeyValueStore<String, Kept> kept = context.getStateStore(Main.FENCES);
        List<Fence> all = new ArrayList<>();
        try (KeyValueIterator<String, Kept> each = kept.all()) {
            each.forEachRemaining(it -> all.add(new Fence(it.key, it.value.value())));
        }
        fences = new Fences(all);
        try (KeyValueIterator<Long, Driver> each = drivers.all()) {
            each.forEachRemaining(it -> expect(it.key, it.value));
        }
        lastNs = System.nanoTime();
        context.schedule(TICK, PunctuationType.STREAM_TIME, nowMs -> meet(nowMs));
        context.schedule(TICK, PunctuationType.WALL_CLOCK_TIME, nowMs -> {
            takeOrders();
            if (System.nanoTime() - lastNs > QUIET_NS) {
                meet(nowMs);
            }
        });
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
        takeOrders();
        lastNs = System.nanoTime();
        latestMs = Math.max(latestMs, record.timestamp());
        update.read(record.value(), record.timestamp());
        Driver driver = drivers.get(update.driver);
        if (driver == null) {
            driver = new Driver();
        } else if (first(driver) <= latestMs) {
            meet(update.driver, driver, latestMs);
        }
        var metadata = context.recordMetadata().orElseThrow();
        Driver.Begun begun =
                new Driver.Begun(false, latestMs, update.timeMs, metadata.partition(), metadata.offset());
        driver.heard = begun;
        if (driver.silent) {
            driver.silent = false;
            Event event = new Event(Event.Kind.DRIVER_RESUMED, begun, "position", begun.timeMs());
            event.x = update.longitude;
            event.y = update.latitude;
            events.add(event);
        }
        judge(driver, begun);
        tell(update.driver);
        drivers.put(update.driver, driver);
        expect(update.driver, driver);
    }

    /** Gives the drivers of this partition the orders that they don't know of. */
    private void takeOrders() {
        if (hasOrders) {
            return;
        }
        hasOrders = true;
        KeyValueStore<String, Kept> orders = context.getStateStore(Main.ORDERS);
        int partition = context.taskId().partition();
        try (KeyValueIterator<String, Kept> each = orders.all()) {
            each.forEachRemaining(it -> {
                Map<String, Object> order = Json.object(it.value.value());
                Object status = order.get("status");
                if (!status.equals("assigned") && !status.equals("picked_up")) {
                    return;
                }
                long driver = ((Double) order.get("driverId")).longValue();
                if (BuiltInPartitioner.partitionForKey(Event.bytes(Long.toString(driver)), partitions) == partition) {
                    takeOrder(driver, it.key, it.value, order, status.equals("picked_up"));
                }
            });
        }
    }

    @SuppressWarnings("unchecked")
    private void takeOrder(long id, String order, Kept kept, Map<String, Object> fields, boolean isPickedUp) {
        Driver known = drivers.get(id);
        Driver driver = known == null ? new Driver() : known;
        int at = 0;
        for (; at < driver.legs.size(); at++) {
            int difference = driver.legs.get(at).order.compareTo(order);
            if (difference == 0) {
                return;
            }
            if (difference > 0) {
                break;
            }
        }
        long timeMs = ((Double) fields.getOrDefault("updatedAt", (double) kept.atMs())).longValue();
        Driver.Begun begun = new Driver.Begun(true, kept.atMs(), timeMs, kept.partition(), kept.offset());
        Map<String, Object> stop = (Map<String, Object>) fields.get(isPickedUp ? "dropoff" : "pickup");
        Driver.Leg leg = new Driver.Leg();
        leg.order = order;
        leg.isDropoff = isPickedUp;
        leg.x = (Double) stop.get("longitude");
        leg.y = (Double) stop.get("latitude");
        leg.place = (String) stop.get("place");
        driver.legs.add(at, leg);
        if (driver.openSince == null) {
            driver.openSince = begun;
        }
        Event event = new Event(
                isPickedUp ? Event.Kind.ORDER_PICKED_UP : Event.Kind.ORDER_ASSIGNED, begun, "order", timeMs);
        event.order = order;
        event.status = leg.status();
        events.add(event);
        tell(id);
        drivers.put(id, driver);
        expect(id, driver);
    }

    private void judge(Driver driver, Driver.Begun begun) {
        double x = update.longitude;
        double y = update.latitude;
        boolean jumped = false;
        if (driver.hasFix() && update.timeMs <= driver.timeMs || update.accuracyM > MAX_ACCURACY_M) {
            return;
        }
        if (driver.hasFix() && !reaches(driver.x, driver.y, driver.timeMs)) {
            jumped = !Double.isNaN(driver.teleportX)
                    && driver.teleportMs < update.timeMs
                    && reaches(driver.teleportX, driver.teleportY, driver.teleportMs);
            if (!jumped) {
                driver.teleportX = x;
                driver.teleportY = y;
                driver.teleportMs = update.timeMs;
                return;
            }
        }
        fireShown(driver, update.timeMs);
        boolean initial = !driver.hasFix();
        double fromX = driver.x;
        double fromY = driver.y;
        boolean hasWay = !initial && !jumped && (fromX != x || fromY != y)
                && update.timeMs - driver.timeMs <= CROSSING_GAP_MS;
        driver.previousX = fromX;
        driver.previousY = fromY;
        driver.previousMs = driver.timeMs;
        driver.teleportX = Double.NaN;
        driver.x = x;
        driver.y = y;
        driver.timeMs = update.timeMs;
        driver.speedMps = update.speedMps;
        if (hasWay) {
            fences.along(fromX, fromY, x, y);
        } else {
            fences.around(x, y);
        }
        judgeVisits(driver, begun, initial, fromX, fromY);
        for (Driver.Leg leg : driver.legs) {
            judgeLeg(driver, leg, begun);
        }
    }

    private boolean reaches(double x, double y, long timeMs) {
        double limitM = MAX_SPEED_MPS * (update.timeMs - timeMs) / 1000.0;
        return Geo.isWithinM(x, y, update.longitude, update.latitude, limitM);
    }

    private void judgeVisits(Driver driver, Driver.Begun begun, boolean initial, double fromX, double fromY) {
        List<Driver.Visit> visits = driver.visits;
        boolean unchanged = fences.insideCount == visits.size();
        for (int at = 0; unchanged && at < visits.size(); at++) {
            unchanged = visits.get(at).fence == fences.inside[at];
        }
        if (!fences.nonePassed()) {
            for (int fence : fences.crossed(driver, fromX, fromY, driver.x, driver.y)) {
                fenceEvent(Event.Kind.GEOFENCE_CROSSED, driver, fence, begun);
            }
        }
        if (unchanged) {
            return;
        }
        for (int at = 0; at < visits.size(); at++) {
            Driver.Visit visit = visits.get(at);
            if (!fences.isInside(visit.fence) && fences.get(visit.fence).isLeftAt(driver.x, driver.y)) {
                fenceEvent(Event.Kind.GEOFENCE_EXITED, driver, visit.fence, begun).dwellS =
                        visit.begun.secondsTo(begun.timeMs());
                visits.remove(at--);
            }
        }
        for (int number = 0; number < fences.insideCount; number++) {
            int fence = fences.inside[number];
            if (driver.visits(fence)) {
                continue;
            }
            fenceEvent(Event.Kind.GEOFENCE_ENTERED, driver, fence, begun).initial = initial;
            boolean atOnce = fences.get(fence).dwellMs == 0;
            if (atOnce) {
                fenceEvent(Event.Kind.GEOFENCE_DWELLED, driver, fence, begun).dwellS = 0;
            }
            int at = 0;
            while (at < visits.size() && visits.get(at).fence < fence) {
                at++;
            }
            visits.add(at, new Driver.Visit(fence, begun, atOnce));
        }
    }

    private Event fenceEvent(Event.Kind kind, Driver driver, int fence, Driver.Begun begun) {
        Event event = new Event(kind, begun, "position", begun.timeMs());
        event.fence = fences.get(fence).id;
        event.x = driver.x;
        event.y = driver.y;
        events.add(event);
        return event;
    }

    private void judgeLeg(Driver driver, Driver.Leg leg, Driver.Begun begun) {
        double distanceM = Geo.distanceM(driver.x, driver.y, leg.x, leg.y);
        if (!leg.nearTold && distanceM <= NEAR_M) {
            leg.nearTold = true;
            Event event = new Event(Event.Kind.AGENT_NEAR, begun, "position", begun.timeMs());
            event.etaS = etaS(driver, distanceM);
            legEvent(event, driver, leg, distanceM);
        }
        switch (leg.stay) {
            case AWAY -> {
                if (distanceM <= ARRIVE_M) {
                    leg.stay = Driver.Stay.WITHIN;
                    leg.since = begun;
                }
            }
            case WITHIN -> {
                if (distanceM > ARRIVE_M) {
                    leg.stay = Driver.Stay.AWAY;
                    leg.since = null;
                }
            }
            case ARRIVED -> {
                if (distanceM > DEPART_M) {
                    Event event = new Event(Event.Kind.AGENT_DEPARTED, begun, "position", begun.timeMs());
                    event.dwellS = leg.since.secondsTo(begun.timeMs());
                    legEvent(event, driver, leg, distanceM);
                    leg.stay = Driver.Stay.DEPARTED;
                    leg.since = null;
                }
            }
            case DEPARTED -> {}
        }
    }

    private void legEvent(Event event, Driver driver, Driver.Leg leg, double distanceM) {
        event.order = leg.order;
        event.leg = leg.name();
        event.place = leg.place;
        event.status = leg.status();
        event.x = driver.x;
        event.y = driver.y;
        event.distanceM = distanceM;
        events.add(event);
    }

    private static double etaS(Driver driver, double distanceM) {
        if (driver.speedMps >= MIN_SPEED_MPS) {
            return distanceM / driver.speedMps;
        }
        if (Double.isNaN(driver.previousX)) {
            return Double.NaN;
        }
        double seconds = (driver.timeMs - driver.previousMs) / 1000.0;
        double speed = Geo.distanceM(driver.previousX, driver.previousY, driver.x, driver.y) / seconds;
        return speed >= MIN_SPEED_MPS ? distanceM / speed : Double.NaN;
    }

    /** When the first of a driver's timers is due on the clock. */
    private long first(Driver driver) {
        long first = Driver.NEVER;
        for (Driver.Visit visit : driver.visits) {
            if (!visit.dwelled) {
                first = Math.min(first, visit.begun.due(fences.get(visit.fence).dwellMs));
            }
        }
        for (Driver.Leg leg : driver.legs) {
            if (leg.stay == Driver.Stay.WITHIN) {
                first = Math.min(first, leg.since.due(ARRIVE_MS));
            }
        }
        Driver.Begun silentFrom = driver.silentFrom();
        return silentFrom == null ? first : Math.min(first, silentFrom.due(SILENT_MS));
    }

    private void expect(long id, Driver driver) {
        agenda.expect(id, first(driver));
    }

    /** All timers that are due at a time. */
    private void meet(long nowMs) {
        for (long id = agenda.next(nowMs); id >= 0; id = agenda.next(nowMs)) {
            Driver driver = drivers.get(id);
            if (meet(id, driver, nowMs)) {
                drivers.put(id, driver);
            }
            expect(id, driver);
        }
    }

    /** A driver's timers that are due at a time, by deadline; whether there were any. */
    private boolean meet(long id, Driver driver, long nowMs) {
        boolean any = false;
        for (long dueMs = first(driver); dueMs <= nowMs; dueMs = first(driver)) {
            fire(driver, dueMs, false);
            Driver.Begun silentFrom = driver.silentFrom();
            if (silentFrom != null && silentFrom.due(SILENT_MS) <= dueMs) {
                driver.silent = true;
                Event event =
                        new Event(Event.Kind.DRIVER_SILENT, silentFrom, "timer", silentFrom.dueTime(SILENT_MS));
                event.x = driver.x;
                event.y = driver.y;
                events.add(event);
            }
            tell(id);
            any = true;
        }
        return any;
    }

    /** The dwells and arrivals that a fix shows to be due by event time. */
    private void fireShown(Driver driver, long timeMs) {
        fire(driver, timeMs, true);
    }

    private void fire(Driver driver, long untilMs, boolean isShownByFix) {
        for (Driver.Visit visit : driver.visits) {
            long afterMs = fences.get(visit.fence).dwellMs;
            if (!visit.dwelled && isDue(visit.begun, afterMs, untilMs, isShownByFix)) {
                visit.dwelled = true;
                Event event =
                        new Event(Event.Kind.GEOFENCE_DWELLED, visit.begun, "timer", visit.begun.dueTime(afterMs));
                event.isShownByFix = isShownByFix;
                event.fence = fences.get(visit.fence).id;
                event.x = driver.x;
                event.y = driver.y;
                event.dwellS = afterMs / 1000.0;
                events.add(event);
            }
        }
        for (Driver.Leg leg : driver.legs) {
            if (leg.stay == Driver.Stay.WITHIN && isDue(leg.since, ARRIVE_MS, untilMs, isShownByFix)) {
                leg.stay = Driver.Stay.ARRIVED;
                Event event =
                        new Event(Event.Kind.AGENT_ARRIVED, leg.since, "timer", leg.since.dueTime(ARRIVE_MS));
                event.isShownByFix = isShownByFix;
                event.dwellS = ARRIVE_MS / 1000.0;
                legEvent(event, driver, leg, Geo.distanceM(driver.x, driver.y, leg.x, leg.y));
            }
        }
    }

    private static boolean isDue(Driver.Begun begun, long afterMs, long untilMs, boolean byEventTime) {
        return afterMs != Driver.NEVER && (byEventTime ? begun.dueTime(afterMs) : begun.due(afterMs)) <= untilMs;
    }

    /** Tells what one cause set off. */
    private void tell(long id) {
        if (events.isEmpty()) {
            return;
        }
        if (events.size() > 1) {
            events.sort(Event::compare);
        }
        byte[] key = Event.bytes(Long.toString(id));
        long nowMs = System.currentTimeMillis();
        for (Event event : events) {
            context.forward(new Record<>(
                    key, event.data(id, nowMs), Math.max(event.timeMs, 0), event.headers(id, source)));
        }
        events.clear();
    }
}
