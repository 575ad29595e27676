package peer;

import java.util.HashMap;
import java.util.Map;
import java.util.PriorityQueue;

/**
 * When to look at which driver; perhaps too early, never too late.
 *
 * <p>In memory alone: deadlines follow from what the store has.
 */
final class Agenda {
    private record Entry(long atMs, long driver) {}

    private final PriorityQueue<Entry> entries = new PriorityQueue<>((a, b) -> Long.compare(a.atMs, b.atMs));
    private final Map<Long, Long> earliest = new HashMap<>();

    void expect(long driver, long atMs) {
        if (atMs == Driver.NEVER) {
            return;
        }
        Long known = earliest.get(driver);
        if (known == null || atMs < known) {
            earliest.put(driver, atMs);
            entries.add(new Entry(atMs, driver));
        }
    }

    /** A driver to be looked at by a time, who must be expected again; -1 if there is none. */
    long next(long nowMs) {
        for (Entry entry = entries.peek(); entry != null && entry.atMs <= nowMs; entry = entries.peek()) {
            entries.poll();
            if (earliest.remove(entry.driver, entry.atMs)) {
                return entry.driver;
            }
        }
        return -1;
    }
}
