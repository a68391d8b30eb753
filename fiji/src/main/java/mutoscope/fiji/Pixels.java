package mutoscope.fiji;

import java.nio.ByteBuffer;

/** The forms of pixels that ImageJ has, and how they lie in the messages: C order, bytes in the machine's own order. */
enum Pixels {
    U8("u8", 1, 8),
    U16("u16", 2, 16),
    /** As u16, with a calibration that takes 32768 away, which is how ImageJ shows signed pixels. */
    I16("i16", 2, 16),
    F32("f32", 4, 32),
    /** Three bytes a pixel: red, green, blue. */
    RGB("rgb", 3, 24);

    final String word;
    final int bytesEach;
    final int bits;

    Pixels(String word, int bytesEach, int bits) {
        this.word = word;
        this.bytesEach = bytesEach;
        this.bits = bits;
    }

    static Pixels of(String word) throws Request.RefusedException {
        for (Pixels each : values()) {
            if (each.word.equals(word)) {
                return each;
            }
        }
        throw Request.malformed("there are no pixels of form " + word);
    }

    /** The array that ImageJ holds a plane in. */
    Object allocate(int count) {
        switch (this) {
            case U8: return new byte[count];
            case F32: return new float[count];
            case RGB: return new int[count];
            default: return new short[count];
        }
    }

    static int length(Object plane) {
        return java.lang.reflect.Array.getLength(plane);
    }

    /** Copies {@code count} pixels from {@code in} to a plane, from pixel {@code at} on. */
    void copyIn(ByteBuffer in, Object plane, int at, int count) {
        switch (this) {
            case U8:
                in.get((byte[]) plane, at, count);
                return;
            case F32:
                in.asFloatBuffer().get((float[]) plane, at, count);
                break;
            case RGB:
                int[] pixels = (int[]) plane;
                for (int i = at; i < at + count; i++) {
                    pixels[i] = (in.get() & 0xff) << 16 | (in.get() & 0xff) << 8 | in.get() & 0xff;
                }
                return;
            default:
                in.asShortBuffer().get((short[]) plane, at, count);
        }
        Buffers.skip(in, count * bytesEach);
    }

    /** Copies {@code count} pixels of a plane to {@code out}, from pixel {@code at} on. */
    void copyOut(Object plane, int at, int count, ByteBuffer out) {
        switch (this) {
            case U8:
                out.put((byte[]) plane, at, count);
                return;
            case F32:
                out.asFloatBuffer().put((float[]) plane, at, count);
                break;
            case RGB:
                int[] pixels = (int[]) plane;
                for (int i = at; i < at + count; i++) {
                    out.put((byte) (pixels[i] >> 16)).put((byte) (pixels[i] >> 8)).put((byte) pixels[i]);
                }
                return;
            default:
                out.asShortBuffer().put((short[]) plane, at, count);
        }
        Buffers.skip(out, count * bytesEach);
    }

    /** A larger plane with this one at its upper left, and zeros around it. */
    Object padded(Object plane, int width, int height, int newWidth, int newHeight) {
        Object larger = allocate(newWidth * newHeight);
        for (int y = 0; y < height; y++) {
            System.arraycopy(plane, y * width, larger, y * newWidth, width);
        }
        return larger;
    }
}
