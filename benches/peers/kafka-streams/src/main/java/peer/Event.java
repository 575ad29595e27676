package peer;

import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.header.internals.RecordHeaders;

/** An event, as a CloudEvents 1.0 message with the headers and data that riderflow's have. */
final class Event {
    /** In the order in which events of one cause are told. */
    enum Kind {
        DRIVER_RESUMED("driver.resumed"),
        ORDER_ASSIGNED("order.assigned"),
        ORDER_PICKED_UP("order.picked_up"),
        GEOFENCE_EXITED("geofence.exited"),
        GEOFENCE_CROSSED("geofence.crossed"),
        GEOFENCE_ENTERED("geofence.entered"),
        GEOFENCE_DWELLED("geofence.dwelled"),
        AGENT_NEAR("agent.near"),
        AGENT_ARRIVED("agent.arrived"),
        AGENT_DEPARTED("agent.departed"),
        DRIVER_SILENT("driver.silent");

        final String text;
        final byte[] type;

        Kind(String text) {
            this.text = text;
            type = bytes("riderflow." + text + ".v1");
        }
    }

    private static final DateTimeFormatter TIME =
            DateTimeFormatter.ofPattern("uuuu-MM-dd'T'HH:mm:ss.SSS'Z'").withZone(ZoneOffset.UTC);
    private static final byte[] VERSION = bytes("1.0");
    private static final byte[] JSON = bytes("application/json");

    final Kind kind;
    /** What it is named after: the cause, or what started the timer. */
    final Driver.Begun source;

    final String cause;
    final long timeMs;
    /** A timer that a fix shows to be due; it is told before what the fix itself sets off. */
    boolean isShownByFix;

    String fence;
    String order;
    String leg;
    String place;
    String status;
    double x = Double.NaN;
    double y = Double.NaN;
    double distanceM = Double.NaN;
    double etaS = Double.NaN;
    double dwellS = Double.NaN;
    boolean initial;

    Event(Kind kind, Driver.Begun source, String cause, long timeMs) {
        this.kind = kind;
        this.source = source;
        this.cause = cause;
        this.timeMs = timeMs;
    }

    /** The order in which the events of one driver and one cause are told. */
    static int compare(Event a, Event b) {
        if (a.isShownByFix != b.isShownByFix) {
            return a.isShownByFix ? -1 : 1;
        }
        if (a.isShownByFix && a.timeMs != b.timeMs) {
            return Long.compare(a.timeMs, b.timeMs);
        }
        if (a.kind != b.kind) {
            return a.kind.compareTo(b.kind);
        }
        if (a.fence != null) {
            return a.fence.compareTo(b.fence);
        }
        if (a.order == null) {
            return 0;
        }
        int orders = a.order.compareTo(b.order);
        return orders != 0 || a.leg == null ? orders : b.leg.compareTo(a.leg);
    }

    Headers headers(long driver, byte[] application) {
        String object = fence != null ? fence : order == null ? "-" : leg == null ? order : order + "." + leg;
        String id = topic() + "/" + source.partition() + "/" + source.offset() + "/" + kind.text + "/" + object + "/"
                + driver;
        RecordHeaders headers = new RecordHeaders();
        headers.add("ce_specversion", VERSION);
        headers.add("ce_id", bytes(id));
        headers.add("ce_source", application);
        headers.add("ce_type", kind.type);
        headers.add("ce_subject", bytes("driver/" + driver));
        headers.add("ce_time", bytes(TIME.format(Instant.ofEpochMilli(timeMs))));
        headers.add("content-type", JSON);
        return headers;
    }

    byte[] data(long driver, long nowMs) {
        StringBuilder out = new StringBuilder(320);
        out.append("{\"driverId\":").append(driver);
        text(out, "fenceId", fence);
        text(out, "orderId", order);
        text(out, "leg", leg);
        text(out, "place", place);
        text(out, "status", status);
        number(out, "longitude", x);
        number(out, "latitude", y);
        number(out, "distance_m", Math.round(distanceM * 10) / 10.0, distanceM);
        if (!Double.isNaN(etaS)) {
            number(out, "eta_s", Math.round(etaS * 10) / 10.0);
            text(out, "eta_method", "straight_line");
        }
        number(out, "dwell_s", dwellS);
        if (initial) {
            out.append(",\"initial\":true");
        }
        out.append(",\"eventTime\":").append(timeMs);
        out.append(",\"detectedAt\":").append(nowMs);
        text(out, "cause", cause);
        out.append(",\"source\":{\"topic\":\"").append(topic());
        out.append("\",\"partition\":").append(source.partition());
        out.append(",\"offset\":").append(source.offset()).append("}}");
        return bytes(out.toString());
    }

    private String topic() {
        return source.isOrder() ? "orders" : "rider-updates";
    }

    /** The city's ids need no escapes. */
    private static void text(StringBuilder out, String name, String value) {
        if (value != null) {
            out.append(",\"").append(name).append("\":\"").append(value).append('"');
        }
    }

    private static void number(StringBuilder out, String name, double value) {
        number(out, name, value, value);
    }

    private static void number(StringBuilder out, String name, double value, double known) {
        if (!Double.isNaN(known)) {
            out.append(",\"").append(name).append("\":").append(value);
        }
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}
