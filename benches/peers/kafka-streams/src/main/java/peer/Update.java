package peer;

/**
 * A rider update, scanned out of its bytes without an object in between.
 *
 * <p>Reads the plain shape that phones send: a flat object without escapes, numbers without
 * exponents. Anything else is refused; there is no dead-letter topic here.
 */
final class Update {
    private static final double[] TENS = {1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12};

    long driver;
    double longitude;
    double latitude;
    /** Event time, ms since 1970. */
    long timeMs;
    /** NaN if unknown. */
    float accuracyM;

    float speedMps;

    private byte[] bytes;
    private int at;

    /** Takes the place of what was read before. */
    void read(byte[] value, long kafkaMs) {
        bytes = value;
        at = 0;
        driver = -1;
        longitude = Double.NaN;
        latitude = Double.NaN;
        timeMs = kafkaMs;
        accuracyM = Float.NaN;
        speedMps = Float.NaN;
        expect('{');
        do {
            expect('"');
            int name = at;
            while (bytes[at] != '"') {
                at++;
            }
            int length = at - name;
            at++;
            expect(':');
            field(name, length);
        } while (bytes[at++] == ',');
        at--;
        expect('}');
        if (driver < 0 || !(Math.abs(longitude) <= 180) || !(Math.abs(latitude) <= 90)) {
            throw new IllegalArgumentException("no update: " + new String(value));
        }
    }

    private void field(int name, int length) {
        switch (bytes[name]) {
            case 'd' -> driver = (long) number();
            case 'l' -> {
                if (length == 9) {
                    longitude = number();
                } else {
                    latitude = number();
                }
            }
            case 't' -> timeMs = (long) number();
            case 'a' -> accuracyM = known(number());
            case 's' -> {
                if (bytes[name + 1] == 'p') {
                    speedMps = known(number());
                } else {
                    skip();
                }
            }
            default -> skip();
        }
    }

    private static float known(double measure) {
        return measure < 0 ? Float.NaN : (float) measure;
    }

    /** At most 15 digits, so that the quotient is the nearest double. */
    private double number() {
        boolean negative = bytes[at] == '-';
        if (negative) {
            at++;
        }
        long digits = 0;
        int point = -1;
        int start = at;
        for (; ; at++) {
            byte next = bytes[at];
            if (next >= '0' && next <= '9') {
                digits = digits * 10 + (next - '0');
            } else if (next == '.' && point < 0) {
                point = at;
            } else {
                break;
            }
        }
        if (at == start || at - start > 16 || bytes[at] == 'e' || bytes[at] == 'E') {
            throw new IllegalArgumentException("no plain number: " + new String(bytes));
        }
        double value = point < 0 ? digits : digits / TENS[at - point - 1];
        return negative ? -value : value;
    }

    /** Over text without escapes or a number. */
    private void skip() {
        if (bytes[at] == '"') {
            at++;
            while (bytes[at] != '"') {
                at++;
            }
            at++;
        } else {
            number();
        }
    }

    private void expect(char wanted) {
        if (bytes[at++] != wanted) {
            throw new IllegalArgumentException("no update: " + new String(bytes));
        }
    }
}
