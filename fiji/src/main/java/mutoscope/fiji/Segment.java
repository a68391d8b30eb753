package mutoscope.fiji;

import java.io.IOException;
import java.lang.reflect.Field;
import java.lang.reflect.Method;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.nio.file.StandardOpenOption;
import java.util.HashMap;
import java.util.Map;
import java.util.regex.Pattern;

/**
 * Shared memory of a client, mapped read-only. It is mapped in overlapping pieces, as Java maps at most 2 GiB at a time; not safe
 * for several threads at a time.
 */
final class Segment {
    private static final long STEP = 512L << 20;
    private static final Pattern ALLOWED = Pattern.compile("/proc/[0-9]+/fd/[0-9]+|/dev/shm/[^/]+");

    private final FileChannel file;
    private final long size;
    private final Map<Long, ByteBuffer> pieces = new HashMap<>();

    /** Opens a file that has at least {@code size} bytes; it must not shrink afterwards. */
    Segment(String path, long size) throws Request.RefusedException {
        if (!ALLOWED.matcher(path).matches()) {
            throw new Request.RefusedException("unmappable", path + " is no shared memory");
        }
        this.size = size;
        FileChannel opened = null;
        try {
            Path file = Paths.get(path);
            opened = FileChannel.open(file, StandardOpenOption.READ);
            long there = opened.size();
            if (there < size) {
                opened.close();
                throw new Request.RefusedException("unmappable", path + " has " + there + " bytes, not " + size);
            }
        } catch (IOException | InvalidPathException error) {
            throw new Request.RefusedException("unmappable", path + " cannot be opened: " + error);
        }
        file = opened;
    }

    /** The {@code count} bytes from {@code at} on, in the machine's own order. */
    ByteBuffer slice(long at, long count) throws Request.RefusedException {
        if (at < 0 || count < 0 || count > STEP || at > size - count) {
            throw new Request.RefusedException("unmappable", "bytes " + at + " to " + (at + count) + " do not lie in shared memory of "
                + size + ", or are more than " + STEP);
        }
        long number = at / STEP;
        ByteBuffer piece = pieces.get(number);
        if (piece == null) {
            long start = number * STEP;
            try {
                piece = file.map(FileChannel.MapMode.READ_ONLY, start, Math.min(2 * STEP, size - start));
            } catch (IOException error) {
                throw new Request.RefusedException("unmappable", "shared memory cannot be mapped: " + error);
            }
            pieces.put(number, piece);
        }
        ByteBuffer found = piece.duplicate().order(ByteOrder.nativeOrder());
        found.position((int) (at - number * STEP));
        found.limit(found.position() + (int) count);
        return found;
    }

    /** Lets go of the memory. Nothing that {@link #slice} returned may be used afterwards. */
    void close() {
        for (ByteBuffer piece : pieces.values()) {
            unmap(piece);
        }
        pieces.clear();
        try {
            file.close();
        } catch (IOException error) {
            System.err.println("Mutoscope: a segment could not be closed: " + error);
        }
    }

    /** Unmaps at once where this Java lets us (JDK-4724038); elsewhere the garbage collector does it later. */
    private static void unmap(ByteBuffer piece) {
        try {
            Class<?> unsafe = Class.forName("sun.misc.Unsafe");
            Field only = unsafe.getDeclaredField("theUnsafe");
            only.setAccessible(true);
            Method clean = unsafe.getMethod("invokeCleaner", ByteBuffer.class);
            clean.invoke(only.get(null), piece);
        } catch (ReflectiveOperationException | RuntimeException error) {
            // Java 8 has no invokeCleaner
        }
    }
}
