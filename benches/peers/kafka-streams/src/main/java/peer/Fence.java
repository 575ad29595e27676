package peer;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/**
 * A fence: a circle, or parts that are polygons with holes.
 *
 * <p>Of a city: no ring comes near the antimeridian, no edge is longer than a degree.
 */
final class Fence {
    final String id;
    /** NEVER if dwelling is not to be told. */
    final long dwellMs;

    final double exitMarginM;
    final Part[] parts;
    private final boolean isCircle;
    private double centerX;
    private double centerY;
    private double radiusM;

    static final long NEVER = Long.MAX_VALUE;
    /** The haversine of a millimetre. */
    private static final double MILLIMETRE = 6.2e-21;

    /** Rings as x, y, x, y …, the first the outer one; and a box around it. */
    static final class Part {
        double[][] rings;
        double west = Double.POSITIVE_INFINITY;
        double east = Double.NEGATIVE_INFINITY;
        double south = Double.POSITIVE_INFINITY;
        double north = Double.NEGATIVE_INFINITY;

        private void add(double x, double y) {
            west = Math.min(west, x);
            east = Math.max(east, x);
            south = Math.min(south, y);
            north = Math.max(north, y);
        }
    }

    @SuppressWarnings("unchecked")
    Fence(String id, byte[] json) {
        this.id = id;
        Map<String, Object> feature = Json.object(json);
        Map<String, Object> geometry = (Map<String, Object>) feature.get("geometry");
        Map<String, Object> properties = (Map<String, Object>) feature.get("properties");
        Double dwellS = (Double) properties.get("dwell");
        dwellMs = dwellS == null ? NEVER : Math.round(dwellS * 1000);
        exitMarginM = (Double) properties.getOrDefault("exitMargin", 0.0);
        List<Object> coordinates = (List<Object>) geometry.get("coordinates");
        isCircle = geometry.get("type").equals("Point");
        List<Part> all = new ArrayList<>();
        if (isCircle) {
            centerX = (Double) coordinates.get(0);
            centerY = (Double) coordinates.get(1);
            radiusM = (Double) properties.get("radius");
            double radius = radiusM / Geo.EARTH_RADIUS_M + 2e-8;
            double halfHeight = Math.toDegrees(radius);
            double halfWidth = Math.toDegrees(Math.asin(Math.sin(radius) / Math.cos(Math.toRadians(centerY))));
            Part part = new Part();
            part.add(centerX - halfWidth, centerY - halfHeight);
            part.add(centerX + halfWidth, centerY + halfHeight);
            all.add(part);
        } else if (geometry.get("type").equals("Polygon")) {
            all.add(polygon(coordinates));
        } else {
            coordinates.forEach(polygon -> all.add(polygon((List<Object>) polygon)));
        }
        parts = all.toArray(new Part[0]);
    }

    @SuppressWarnings("unchecked")
    private static Part polygon(List<Object> rings) {
        Part part = new Part();
        part.rings = new double[rings.size()][];
        for (int number = 0; number < rings.size(); number++) {
            List<List<Double>> ring = (List<List<Double>>) rings.get(number);
            double[] path = new double[2 * ring.size()];
            for (int at = 0; at < ring.size(); at++) {
                path[2 * at] = ring.get(at).get(0);
                path[2 * at + 1] = ring.get(at).get(1);
                if (number == 0) {
                    part.add(path[2 * at], path[2 * at + 1]);
                }
            }
            part.rings[number] = path;
        }
        return part;
    }

    boolean partContains(Part part, double x, double y) {
        if (isCircle) {
            return Geo.distanceM(centerX, centerY, x, y) <= radiusM;
        }
        if (side(part.rings[0], x, y) < 0) {
            return false;
        }
        for (int hole = 1; hole < part.rings.length; hole++) {
            if (side(part.rings[hole], x, y) > 0) {
                return false;
            }
        }
        return true;
    }

    /** Of a place that is not inside: whether it is farther outside than the exit margin. */
    boolean isLeftAt(double x, double y) {
        if (exitMarginM <= 0) {
            return true;
        }
        if (isCircle) {
            return Math.max(Geo.distanceM(centerX, centerY, x, y) - radiusM, 0) > exitMarginM;
        }
        double best = 2;
        for (Part part : parts) {
            for (double[] ring : part.rings) {
                best = Math.min(best, nearest(ring, x, y));
            }
        }
        return Geo.metres(best) > exitMarginM;
    }

    /** Whether a way whose ends are outside a part meets it. */
    boolean partIsCrossed(Part part, double fromX, double fromY, double toX, double toY) {
        if (isCircle) {
            double x = toX - fromX;
            double y = toY - fromY;
            double length = Math.toRadians(Math.sqrt(x * x + y * y)) * Geo.EARTH_RADIUS_M * (1 + 1e-9);
            return Geo.distanceM(centerX, centerY, toX, toY) <= radiusM + length
                    && Geo.metres(Geo.haversineToEdge(centerX, centerY, fromX, fromY, toX, toY)) <= radiusM;
        }
        double[] point = new double[4];
        for (int number = 0; number < part.rings.length; number++) {
            double[] ring = part.rings[number];
            for (int at = 0; at + 3 < ring.length; at += 2) {
                int touches = touch(fromX, fromY, toX, toY, ring, at, point);
                for (int touch = 0; touch < touches; touch++) {
                    if (counts(part, number, point[2 * touch], point[2 * touch + 1])) {
                        return true;
                    }
                }
            }
        }
        return false;
    }

    /** Whether a point of a ring is in the polygon: another ring may say that it isn't. */
    private static boolean counts(Part part, int ring, double x, double y) {
        double[] outer = part.rings[0];
        if (ring > 0 && side(outer, x, y) < 0 && nearest(outer, x, y) >= MILLIMETRE) {
            return false;
        }
        for (int hole = 1; hole < part.rings.length; hole++) {
            double[] path = part.rings[hole];
            if (hole != ring && side(path, x, y) > 0 && nearest(path, x, y) >= MILLIMETRE) {
                return false;
            }
        }
        return true;
    }

    /** Where a way touches an edge: how many points, into {@code out}. */
    private static int touch(
            double ax, double ay, double bx, double by, double[] ring, int at, double[] out) {
        double cx = ring[at];
        double cy = ring[at + 1];
        double dx = ring[at + 2];
        double dy = ring[at + 3];
        double toC = Geo.orient(ax, ay, bx, by, cx, cy);
        double toD = Geo.orient(ax, ay, bx, by, dx, dy);
        if (apart(toC, toD)) {
            return 0;
        }
        if (toC == 0 && toD == 0) {
            boolean forth = before(ax, ay, bx, by);
            boolean edgeForth = before(cx, cy, dx, dy);
            double[] way = forth ? new double[] {ax, ay, bx, by} : new double[] {bx, by, ax, ay};
            double[] edge = edgeForth ? new double[] {cx, cy, dx, dy} : new double[] {dx, dy, cx, cy};
            double[] begins = before(way[0], way[1], edge[0], edge[1]) ? edge : way;
            double[] ends = before(way[2], way[3], edge[2], edge[3]) ? way : edge;
            if (before(ends[2], ends[3], begins[0], begins[1])) {
                return 0;
            }
            out[0] = begins[0];
            out[1] = begins[1];
            out[2] = ends[2];
            out[3] = ends[3];
            return 2;
        }
        double toA = Geo.orient(cx, cy, dx, dy, ax, ay);
        double toB = Geo.orient(cx, cy, dx, dy, bx, by);
        if (apart(toA, toB)) {
            return 0;
        }
        if (toC == 0) {
            out[0] = cx;
            out[1] = cy;
        } else if (toD == 0) {
            out[0] = dx;
            out[1] = dy;
        } else if (toA == 0) {
            out[0] = ax;
            out[1] = ay;
        } else if (toB == 0) {
            out[0] = bx;
            out[1] = by;
        } else {
            double share = toC / (toC - toD);
            out[0] = cx + share * (dx - cx);
            out[1] = cy + share * (dy - cy);
        }
        return 1;
    }

    private static boolean apart(double u, double v) {
        return u > 0 && v > 0 || u < 0 && v < 0;
    }

    private static boolean before(double ax, double ay, double bx, double by) {
        return ax < bx || ax == bx && ay < by;
    }

    /** 1 inside a ring, 0 on it, -1 outside. */
    private static int side(double[] ring, double x, double y) {
        boolean odd = false;
        for (int at = 0; at + 3 < ring.length; at += 2) {
            double ax = ring[at];
            double ay = ring[at + 1];
            double bx = ring[at + 2];
            double by = ring[at + 3];
            if (ay > y != by > y) {
                double side = Geo.orient(ax, ay, bx, by, x, y);
                if (side == 0) {
                    return 0;
                }
                odd ^= side > 0 == by > ay;
            } else if (ay == y && by == y
                    ? Math.min(ax, bx) <= x && x <= Math.max(ax, bx)
                    : ax == x && ay == y || bx == x && by == y) {
                return 0;
            }
        }
        return odd ? 1 : -1;
    }

    private static double nearest(double[] ring, double x, double y) {
        double best = 2;
        for (int at = 0; at + 3 < ring.length; at += 2) {
            best = Math.min(
                    best, Geo.haversineToEdge(x, y, ring[at], ring[at + 1], ring[at + 2], ring[at + 3]));
        }
        return best;
    }
}
