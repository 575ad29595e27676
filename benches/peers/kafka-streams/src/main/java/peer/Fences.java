package peer;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * All fences, by number, over a plain grid of their parts.
 *
 * <p>Numbers are by id, so they mean the same to every task as long as the fences stay.
 */
final class Fences {
    private static final double CELL_DEG = 0.002;

    private record Entry(int fence, Fence.Part part) {}

    private final Fence[] all;
    private double west = Double.POSITIVE_INFINITY;
    private double south = Double.POSITIVE_INFINITY;
    private int columns;
    private int rows;
    private Entry[][] cells = new Entry[0][];

    /** The fences around the end of a way, ascending, and how many. */
    int[] inside = new int[64];

    int insideCount;
    private final List<Entry> passed = new ArrayList<>();
    private int[] crossed = new int[64];

    Fences(List<Fence> fences) {
        all = fences.toArray(new Fence[0]);
        Arrays.sort(all, (a, b) -> a.id.compareTo(b.id));
        double east = Double.NEGATIVE_INFINITY;
        double north = Double.NEGATIVE_INFINITY;
        for (Fence fence : all) {
            for (Fence.Part part : fence.parts) {
                west = Math.min(west, part.west);
                south = Math.min(south, part.south);
                east = Math.max(east, part.east);
                north = Math.max(north, part.north);
            }
        }
        if (all.length == 0) {
            return;
        }
        columns = (int) ((east - west) / CELL_DEG) + 1;
        rows = (int) ((north - south) / CELL_DEG) + 1;
        Map<Integer, List<Entry>> filled = new HashMap<>();
        for (int number = 0; number < all.length; number++) {
            for (Fence.Part part : all[number].parts) {
                Entry entry = new Entry(number, part);
                for (int row = row(part.south); row <= row(part.north); row++) {
                    for (int column = column(part.west); column <= column(part.east); column++) {
                        filled.computeIfAbsent(row * columns + column, cell -> new ArrayList<>())
                                .add(entry);
                    }
                }
            }
        }
        cells = new Entry[rows * columns][];
        filled.forEach((cell, entries) -> cells[cell] = entries.toArray(new Entry[0]));
    }

    Fence get(int number) {
        return all[number];
    }

    private int column(double x) {
        return Math.min(Math.max((int) Math.floor((x - west) / CELL_DEG), 0), columns - 1);
    }

    private int row(double y) {
        return Math.min(Math.max((int) Math.floor((y - south) / CELL_DEG), 0), rows - 1);
    }

    /** Finds the fences around a place. */
    void around(double x, double y) {
        insideCount = 0;
        passed.clear();
        if (all.length == 0) {
            return;
        }
        Entry[] entries = cells[row(y) * columns + column(x)];
        if (entries != null) {
            for (Entry entry : entries) {
                Fence.Part part = entry.part;
                if (part.west <= x && x <= part.east && part.south <= y && y <= part.north
                        && all[entry.fence].partContains(part, x, y)) {
                    addInside(entry.fence);
                }
            }
        }
        arrange();
    }

    /** Finds the fences around the end of a way, and the parts of others that it may meet. */
    void along(double fromX, double fromY, double x, double y) {
        insideCount = 0;
        passed.clear();
        if (all.length == 0) {
            return;
        }
        double wayWest = Math.min(fromX, x);
        double wayEast = Math.max(fromX, x);
        double waySouth = Math.min(fromY, y);
        double wayNorth = Math.max(fromY, y);
        for (int row = row(waySouth); row <= row(wayNorth); row++) {
            for (int column = column(wayWest); column <= column(wayEast); column++) {
                Entry[] entries = cells[row * columns + column];
                if (entries == null) {
                    continue;
                }
                for (Entry entry : entries) {
                    Fence.Part part = entry.part;
                    if (wayWest > part.east || part.west > wayEast || waySouth > part.north || part.south > wayNorth) {
                        continue;
                    }
                    if (part.west <= x && x <= part.east && part.south <= y && y <= part.north
                            && all[entry.fence].partContains(part, x, y)) {
                        addInside(entry.fence);
                    } else {
                        passed.add(entry);
                    }
                }
            }
        }
        arrange();
    }

    boolean nonePassed() {
        return passed.isEmpty();
    }

    boolean isInside(int fence) {
        return Arrays.binarySearch(inside, 0, insideCount, fence) >= 0;
    }

    /** The fences that the way of {@link #along} crosses, each once; none that are visited. */
    int[] crossed(Driver driver, double fromX, double fromY, double x, double y) {
        int count = 0;
        for (Entry entry : passed) {
            if (!isInside(entry.fence) && !driver.visits(entry.fence)
                    && all[entry.fence].partIsCrossed(entry.part, fromX, fromY, x, y)) {
                if (count == crossed.length) {
                    crossed = Arrays.copyOf(crossed, 2 * count);
                }
                crossed[count++] = entry.fence;
            }
        }
        return Arrays.stream(crossed, 0, count).sorted().distinct().toArray();
    }

    private void addInside(int fence) {
        if (insideCount == inside.length) {
            inside = Arrays.copyOf(inside, 2 * insideCount);
        }
        inside[insideCount++] = fence;
    }

    private void arrange() {
        if (insideCount > 1) {
            Arrays.sort(inside, 0, insideCount);
            int kept = 1;
            for (int at = 1; at < insideCount; at++) {
                if (inside[at] != inside[kept - 1]) {
                    inside[kept++] = inside[at];
                }
            }
            insideCount = kept;
        }
    }
}
