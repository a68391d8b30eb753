package mutoscope.fiji;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** A message of a client, with its fields checked as they are asked for. */
final class Request {
    private final Map<String, Object> fields;
    final String type;
    final long id;

    /** What was asked for cannot be: {@code code} is for programs, the message for people. Nothing was changed. */
    static final class RefusedException extends Exception {
        final String code;

        RefusedException(String code, String message) {
            super(message);
            this.code = code;
        }
    }

    Request(Object decoded) throws Msgpack.MalformedException {
        if (!(decoded instanceof Map)) {
            throw new Msgpack.MalformedException("a message that is no map");
        }
        @SuppressWarnings("unchecked")
        Map<String, Object> map = (Map<String, Object>) decoded;
        Object kind = map.get("type");
        Object number = map.get("id");
        if (!(kind instanceof String) || !(number instanceof Long)) {
            throw new Msgpack.MalformedException("a message without type and id");
        }
        fields = map;
        type = (String) kind;
        id = (Long) number;
    }

    private Request(Map<String, Object> part, Request whole) {
        fields = part;
        type = whole.type;
        id = whole.id;
    }

    static RefusedException malformed(String message) {
        return new RefusedException("malformed", message);
    }

    boolean has(String name) {
        return fields.get(name) != null;
    }

    String text(String name, int longest) throws RefusedException {
        Object value = fields.get(name);
        if (!(value instanceof String) || ((String) value).length() > longest) {
            throw malformed(type + " needs " + name + ", a text of at most " + longest + " characters");
        }
        return (String) value;
    }

    long whole(String name, long least, long most) throws RefusedException {
        return whole(name, fields.get(name), least, most);
    }

    private long whole(String name, Object value, long least, long most) throws RefusedException {
        if (!(value instanceof Long) || (Long) value < least || (Long) value > most) {
            throw malformed(type + " needs " + name + ", a whole number from " + least + " to " + most);
        }
        return (Long) value;
    }

    int count(String name, int least, int most) throws RefusedException {
        return (int) whole(name, least, most);
    }

    double real(String name) throws RefusedException {
        Object value = fields.get(name);
        if (!(value instanceof Double || value instanceof Long) || !isFinite(((Number) value).doubleValue())) {
            throw malformed(type + " needs " + name + ", a finite number");
        }
        return ((Number) value).doubleValue();
    }

    private static boolean isFinite(double value) {
        return !Double.isNaN(value) && !Double.isInfinite(value);
    }

    boolean flag(String name) throws RefusedException {
        Object value = fields.get(name);
        if (!(value instanceof Boolean)) {
            throw malformed(type + " needs " + name + ", true or false");
        }
        return (Boolean) value;
    }

    byte[] bytes(String name, int length) throws RefusedException {
        Object value = fields.get(name);
        if (!(value instanceof byte[]) || ((byte[]) value).length != length) {
            throw malformed(type + " needs " + name + ", " + length + " bytes");
        }
        return (byte[]) value;
    }

    /** Whole numbers in a list of at most {@code longest}. */
    int[] counts(String name, int longest, int least, int most) throws RefusedException {
        List<Object> items = list(name, longest);
        int[] found = new int[items.size()];
        for (int i = 0; i < found.length; i++) {
            found[i] = (int) whole(name, items.get(i), least, most);
        }
        return found;
    }

    /** Texts in a list of at most {@code longest}. */
    List<String> texts(String name, int longest) throws RefusedException {
        List<String> found = new ArrayList<>();
        for (Object item : list(name, longest)) {
            if (!(item instanceof String)) {
                throw malformed(type + " needs " + name + ", a list of texts");
            }
            found.add((String) item);
        }
        return found;
    }

    /** Maps in a list of at most {@code longest}, to be asked as a request is. */
    List<Request> parts(String name, int longest) throws RefusedException {
        List<Request> found = new ArrayList<>();
        for (Object item : list(name, longest)) {
            if (!(item instanceof Map)) {
                throw malformed(type + " needs " + name + ", a list of maps");
            }
            @SuppressWarnings("unchecked")
            Map<String, Object> part = (Map<String, Object>) item;
            found.add(new Request(part, this));
        }
        return found;
    }

    private List<Object> list(String name, int longest) throws RefusedException {
        Object value = fields.get(name);
        if (!(value instanceof List) || ((List<?>) value).size() > longest) {
            throw malformed(type + " needs " + name + ", a list of at most " + longest);
        }
        @SuppressWarnings("unchecked")
        List<Object> items = (List<Object>) value;
        return items;
    }
}
