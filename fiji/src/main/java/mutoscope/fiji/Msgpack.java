package mutoscope.fiji;

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * The part of MessagePack (https://github.com/msgpack/msgpack/blob/master/spec.md) that the protocol uses: nil, booleans,
 * integers of 64 bits, floats, text, bytes, lists and maps with text as keys. Nothing else is read, and no deeper than
 * {@link #MAX_DEPTH}.
 */
final class Msgpack {
    static final int MAX_DEPTH = 8;

    private Msgpack() {}

    /** What arrived is no message. */
    static final class MalformedException extends Exception {
        MalformedException(String message) {
            super(message);
        }
    }

    // Reading

    /** Reads one value that fills all of {@code data}: null, Boolean, Long, Double, String, byte[], List or Map. */
    static Object decode(byte[] data) throws MalformedException {
        Reader reader = new Reader(ByteBuffer.wrap(data));
        Object value = reader.read(0);
        if (reader.in.hasRemaining()) {
            throw new MalformedException(reader.in.remaining() + " bytes after the message");
        }
        return value;
    }

    private static final class Reader {
        final ByteBuffer in;

        Reader(ByteBuffer in) {
            this.in = in;
        }

        Object read(int depth) throws MalformedException {
            if (depth > MAX_DEPTH) {
                throw new MalformedException("a message deeper than " + MAX_DEPTH);
            }
            int tag = need(1).get() & 0xff;
            if (tag < 0x80) {
                return (long) tag;
            } else if (tag < 0x90) {
                return map(tag & 0x0f, depth);
            } else if (tag < 0xa0) {
                return list(tag & 0x0f, depth);
            } else if (tag < 0xc0) {
                return text(tag & 0x1f);
            } else if (tag >= 0xe0) {
                return (long) (byte) tag;
            }
            switch (tag) {
                case 0xc0: return null;
                case 0xc2: return Boolean.FALSE;
                case 0xc3: return Boolean.TRUE;
                case 0xc4: return bytes(need(1).get() & 0xff);
                case 0xc5: return bytes(need(2).getShort() & 0xffff);
                case 0xc6: return bytes(size());
                case 0xca: return (double) need(4).getFloat();
                case 0xcb: return need(8).getDouble();
                case 0xcc: return (long) (need(1).get() & 0xff);
                case 0xcd: return (long) (need(2).getShort() & 0xffff);
                case 0xce: return need(4).getInt() & 0xffffffffL;
                case 0xcf: return unsigned();
                case 0xd0: return (long) need(1).get();
                case 0xd1: return (long) need(2).getShort();
                case 0xd2: return (long) need(4).getInt();
                case 0xd3: return need(8).getLong();
                case 0xd9: return text(need(1).get() & 0xff);
                case 0xda: return text(need(2).getShort() & 0xffff);
                case 0xdb: return text(size());
                case 0xdc: return list(need(2).getShort() & 0xffff, depth);
                case 0xdd: return list(size(), depth);
                case 0xde: return map(need(2).getShort() & 0xffff, depth);
                case 0xdf: return map(size(), depth);
                default: throw new MalformedException("a value of kind 0x" + Integer.toHexString(tag));
            }
        }

        private ByteBuffer need(int count) throws MalformedException {
            if (count > in.remaining()) {
                throw new MalformedException("a message that is cut off");
            }
            return in;
        }

        /** A count that the rest of the message could hold: nothing is allocated for more. */
        private int size() throws MalformedException {
            int count = need(4).getInt();
            if (count < 0 || count > in.remaining()) {
                throw new MalformedException("a message that is cut off");
            }
            return count;
        }

        private Long unsigned() throws MalformedException {
            long value = need(8).getLong();
            if (value < 0) {
                throw new MalformedException("a number beyond 63 bits");
            }
            return value;
        }

        private byte[] bytes(int count) throws MalformedException {
            need(count);
            byte[] value = new byte[count];
            in.get(value);
            return value;
        }

        private String text(int count) throws MalformedException {
            try {
                return StandardCharsets.UTF_8.newDecoder().onMalformedInput(CodingErrorAction.REPORT)
                    .decode(ByteBuffer.wrap(bytes(count))).toString();
            } catch (CharacterCodingException error) {
                throw new MalformedException("text that is not UTF-8");
            }
        }

        private List<Object> list(int count, int depth) throws MalformedException {
            need(count);
            List<Object> value = new ArrayList<>(count);
            for (int i = 0; i < count; i++) {
                value.add(read(depth + 1));
            }
            return value;
        }

        private Map<String, Object> map(int count, int depth) throws MalformedException {
            need(count);
            Map<String, Object> value = new HashMap<>();
            for (int i = 0; i < count; i++) {
                Object key = read(depth + 1);
                if (!(key instanceof String)) {
                    throw new MalformedException("a map with a key that is no text");
                }
                if (value.put((String) key, read(depth + 1)) != null) {
                    throw new MalformedException("a map that has a key twice");
                }
            }
            return value;
        }
    }

    // Writing

    /** Writes null, Boolean, Integer, Long, Float, Double, String, byte[], List and Map with text as keys. */
    static byte[] encode(Object value) {
        ByteArrayOutputStream out = new ByteArrayOutputStream(256);
        write(out, value);
        return out.toByteArray();
    }

    private static void write(ByteArrayOutputStream out, Object value) {
        if (value == null) {
            out.write(0xc0);
        } else if (value instanceof Boolean) {
            out.write((Boolean) value ? 0xc3 : 0xc2);
        } else if (value instanceof Integer || value instanceof Long) {
            number(out, 0xd3, ((Number) value).longValue());
        } else if (value instanceof Float || value instanceof Double) {
            number(out, 0xcb, Double.doubleToRawLongBits(((Number) value).doubleValue()));
        } else if (value instanceof String) {
            byte[] data = ((String) value).getBytes(StandardCharsets.UTF_8);
            head(out, 0xdb, data.length);
            out.write(data, 0, data.length);
        } else if (value instanceof byte[]) {
            byte[] data = (byte[]) value;
            head(out, 0xc6, data.length);
            out.write(data, 0, data.length);
        } else if (value instanceof List) {
            List<?> items = (List<?>) value;
            head(out, 0xdd, items.size());
            for (Object item : items) {
                write(out, item);
            }
        } else if (value instanceof Map) {
            Map<?, ?> items = (Map<?, ?>) value;
            head(out, 0xdf, items.size());
            for (Map.Entry<?, ?> item : items.entrySet()) {
                write(out, item.getKey());
                write(out, item.getValue());
            }
        } else {
            throw new IllegalArgumentException("no message holds a " + value.getClass().getName());
        }
    }

    private static void head(ByteArrayOutputStream out, int tag, int count) {
        byte[] data = ByteBuffer.allocate(5).put((byte) tag).putInt(count).array();
        out.write(data, 0, data.length);
    }

    private static void number(ByteArrayOutputStream out, int tag, long bits) {
        byte[] data = ByteBuffer.allocate(9).put((byte) tag).putLong(bits).array();
        out.write(data, 0, data.length);
    }
}
