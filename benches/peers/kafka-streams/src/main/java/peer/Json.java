package peer;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** JSON into maps, lists, text, doubles, booleans and null; for fences and orders, which are few. */
final class Json {
    private final String text;
    private int at;

    private Json(String text) {
        this.text = text;
    }

    @SuppressWarnings("unchecked")
    static Map<String, Object> object(byte[] bytes) {
        return (Map<String, Object>) new Json(new String(bytes, StandardCharsets.UTF_8)).value();
    }

    private Object value() {
        skip();
        switch (text.charAt(at)) {
            case '{' -> {
                Map<String, Object> map = new HashMap<>();
                at++;
                while (!ends('}')) {
                    skip();
                    String name = string();
                    skip();
                    expect(':');
                    map.put(name, value());
                }
                return map;
            }
            case '[' -> {
                List<Object> list = new ArrayList<>();
                at++;
                while (!ends(']')) {
                    list.add(value());
                }
                return list;
            }
            case '"' -> {
                return string();
            }
            default -> {
                int start = at;
                while (at < text.length() && ",]} \t\r\n".indexOf(text.charAt(at)) < 0) {
                    at++;
                }
                String word = text.substring(start, at);
                return switch (word) {
                    case "null" -> null;
                    case "true" -> true;
                    case "false" -> false;
                    default -> Double.valueOf(word);
                };
            }
        }
    }

    private boolean ends(char bracket) {
        skip();
        if (text.charAt(at) == ',') {
            at++;
            return false;
        }
        boolean ends = text.charAt(at) == bracket;
        if (ends) {
            at++;
        }
        return ends;
    }

    private String string() {
        expect('"');
        StringBuilder out = new StringBuilder();
        for (char next = text.charAt(at++); next != '"'; next = text.charAt(at++)) {
            if (next != '\\') {
                out.append(next);
                continue;
            }
            char escaped = text.charAt(at++);
            switch (escaped) {
                case 'b' -> out.append('\b');
                case 'f' -> out.append('\f');
                case 'n' -> out.append('\n');
                case 'r' -> out.append('\r');
                case 't' -> out.append('\t');
                case 'u' -> {
                    out.append((char) Integer.parseInt(text.substring(at, at + 4), 16));
                    at += 4;
                }
                default -> out.append(escaped);
            }
        }
        return out.toString();
    }

    private void expect(char wanted) {
        if (text.charAt(at++) != wanted) {
            throw new IllegalArgumentException("not JSON at " + at + ": " + text);
        }
    }

    private void skip() {
        while (Character.isWhitespace(text.charAt(at))) {
            at++;
        }
    }
}
