package peer;

import java.math.BigDecimal;

/** Distances on the sphere and exact questions in the plane of longitude and latitude. */
final class Geo {
    static final double EARTH_RADIUS_M = 6_371_008.8;
    private static final double DEGREES_PER_M = 180.0 / (Math.PI * EARTH_RADIUS_M);
    /** Shewchuk's bound for the sign of a rounded orientation. */
    private static final double SURE = 3.3306690738754716e-16;

    private Geo() {}

    static double distanceM(double lonA, double latA, double lonB, double latB) {
        return metres(haversine(lonA, latA, lonB, latB));
    }

    static double metres(double h) {
        return 2 * EARTH_RADIUS_M * Math.asin(Math.sqrt(Math.min(Math.max(h, 0), 1)));
    }

    static double haversine(double lonA, double latA, double lonB, double latB) {
        double halfLat = Math.sin(Math.toRadians(0.5 * (latB - latA)));
        double halfLon = Math.sin(Math.toRadians(0.5 * (lonB - lonA)));
        return halfLat * halfLat
                + Math.cos(Math.toRadians(latA)) * Math.cos(Math.toRadians(latB)) * (halfLon * halfLon);
    }

    /** Without any trigonometry where the two are much nearer than the limit. */
    static boolean isWithinM(double lonA, double latA, double lonB, double latB, double limitM) {
        double x = lonA - lonB;
        double y = latA - latB;
        double limit = limitM * DEGREES_PER_M;
        return x * x + y * y <= limit * limit * 0.999_999 || distanceM(lonA, latA, lonB, latB) <= limitM;
    }

    /** Over 0 if c lies to the left of the line from a to b, 0 exactly if on it. */
    static double orient(double ax, double ay, double bx, double by, double cx, double cy) {
        double left = (ax - cx) * (by - cy);
        double right = (ay - cy) * (bx - cx);
        double det = left - right;
        if (Math.abs(det) >= SURE * (Math.abs(left) + Math.abs(right))) {
            return det;
        }
        BigDecimal x = new BigDecimal(cx);
        BigDecimal y = new BigDecimal(cy);
        BigDecimal exactLeft =
                new BigDecimal(ax).subtract(x).multiply(new BigDecimal(by).subtract(y));
        BigDecimal exactRight =
                new BigDecimal(ay).subtract(y).multiply(new BigDecimal(bx).subtract(x));
        return exactLeft.compareTo(exactRight);
    }

    /** The haversine of the distance to the nearest point of an edge of at most a degree. */
    static double haversineToEdge(double lon, double lat, double ax, double ay, double bx, double by) {
        double ends = Math.min(haversine(lon, lat, ax, ay), haversine(lon, lat, bx, by));
        double cosHere = Math.cos(Math.toRadians(lat));
        double low = 0;
        double high = 1;
        double falling = slope(lon, lat, cosHere, ax, ay, bx, by, low);
        double rising = slope(lon, lat, cosHere, ax, ay, bx, by, high);
        if (falling >= 0 || rising <= 0) {
            return ends;
        }
        // Regula falsi (Illinois) for where the slope turns from falling to rising.
        double t = 0.5;
        int side = 0;
        for (int step = 0; step < 60; step++) {
            t = (low * rising - high * falling) / (rising - falling);
            double here = slope(lon, lat, cosHere, ax, ay, bx, by, t);
            if (here == 0 || high - low < 1e-12) {
                break;
            }
            if (here < 0) {
                low = t;
                falling = here;
                if (side == -1) {
                    rising *= 0.5;
                }
                side = -1;
            } else {
                high = t;
                rising = here;
                if (side == 1) {
                    falling *= 0.5;
                }
                side = 1;
            }
        }
        return Math.min(ends, haversine(lon, lat, ax + t * (bx - ax), ay + t * (by - ay)));
    }

    private static double slope(
            double lon, double lat, double cosHere, double ax, double ay, double bx, double by, double t) {
        double y = Math.toRadians(ay + t * (by - ay));
        double dLat = Math.toRadians(ay + t * (by - ay) - lat);
        double dLon = Math.toRadians(ax + t * (bx - ax) - lon);
        double halfLon = Math.sin(0.5 * dLon);
        return (by - ay) * (0.5 * Math.sin(dLat) - cosHere * Math.sin(y) * halfLon * halfLon)
                + (bx - ax) * (0.5 * cosHere * Math.cos(y) * Math.sin(dLon));
    }
}
