package mutoscope.fiji;

import java.io.DataOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.EOFException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/** Planes to and from a socket, piece by piece. */
final class Buffers {
    private static final int PIECE_PIXELS = 64 * 1024;

    private Buffers() {}

    static void skip(ByteBuffer buffer, int count) {
        buffer.position(buffer.position() + count);
    }

    static void readPlane(InputStream in, Pixels form, Object plane) throws IOException {
        byte[] piece = new byte[PIECE_PIXELS * form.bytesEach];
        int length = Pixels.length(plane);
        for (int at = 0; at < length; at += PIECE_PIXELS) {
            int count = Math.min(PIECE_PIXELS, length - at);
            readFully(in, piece, count * form.bytesEach);
            form.copyIn(ByteBuffer.wrap(piece).order(ByteOrder.nativeOrder()), plane, at, count);
        }
    }

    static void writePlane(DataOutputStream out, Pixels form, Object plane) throws IOException {
        byte[] piece = new byte[PIECE_PIXELS * form.bytesEach];
        int length = Pixels.length(plane);
        for (int at = 0; at < length; at += PIECE_PIXELS) {
            int count = Math.min(PIECE_PIXELS, length - at);
            form.copyOut(plane, at, count, ByteBuffer.wrap(piece).order(ByteOrder.nativeOrder()));
            out.write(piece, 0, count * form.bytesEach);
        }
    }

    static void readFully(InputStream in, byte[] data, int count) throws IOException {
        for (int at = 0; at < count;) {
            int got = in.read(data, at, count - at);
            if (got < 0) {
                throw new EOFException("the connection ended in the middle of a message");
            }
            at += got;
        }
    }

    /** Reads {@code count} bytes and forgets them. */
    static void drain(InputStream in, long count) throws IOException {
        byte[] piece = new byte[PIECE_PIXELS];
        for (long left = count; left > 0;) {
            int now = (int) Math.min(left, piece.length);
            readFully(in, piece, now);
            left -= now;
        }
    }
}
