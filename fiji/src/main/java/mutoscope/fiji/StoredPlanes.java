package mutoscope.fiji;

import ij.VirtualStack;
import ij.process.ByteProcessor;
import ij.process.ColorProcessor;
import ij.process.FloatProcessor;
import ij.process.ImageProcessor;
import ij.process.ShortProcessor;
import java.awt.EventQueue;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/**
 * A virtual stack whose planes a client reads when they are looked at. Those that were looked at last are kept, up to a quarter of
 * the heap. Whoever asks for a plane waits for it; one that cannot be had is an error for a command, and black for the screen.
 */
final class StoredPlanes extends VirtualStack {
    /** Whoever reads planes. */
    interface Source {
        /** There are planes that are wanted. Does not wait. */
        void wanted();

        /** Whether it waits for the event thread just now, so that the event thread must not wait for it. */
        boolean waitsForEventThread();

        /** A plane has come that was black on the screen. */
        void came(int index);
    }

    private static final long PAINT_MS = 10_000;
    private static final long COMMAND_MS = 120_000;
    private static final long LOOK_MS = 20;
    private static final int MOST_WANTED = 1024;
    private static final int LEAST_KEPT = 16;

    /** A plane as it came; without pixels where it is not stored, or cannot be read. */
    private static final class Plane {
        final Object pixels;
        final String label;
        final boolean failed;

        Plane(Object pixels, String label, boolean failed) {
            this.pixels = pixels;
            this.label = label;
            this.failed = failed;
        }
    }

    private final Pixels form;
    private final Source source;
    private final int most;
    private final Map<Integer, Plane> held = new LinkedHashMap<>(16, 0.75f, true);
    /** The one that is wanted most at the end. */
    private final LinkedHashSet<Integer> wanted = new LinkedHashSet<>();
    private final BitSet black = new BitSet();
    private String ended;

    StoredPlanes(Pixels form, PlaneWindow.Shape shape, Source source) {
        super(shape.width, shape.height, (int) shape.planes());
        this.form = form;
        this.source = source;
        setBitDepth(form.bits);
        long each = (long) shape.width * shape.height * Math.max(form.bytesEach, form.bits / 8);
        most = (int) Math.max(LEAST_KEPT, Math.min(Integer.MAX_VALUE, Runtime.getRuntime().maxMemory() / 4 / each));
    }

    // On the client's thread

    /** A plane has come: with pixels, or with none where it is not stored. */
    synchronized void put(int index, Object pixels, String label) {
        take(index, new Plane(pixels, label, false));
    }

    /** A plane cannot be read. */
    synchronized void fail(int index, String why) {
        take(index, new Plane(null, why, true));
    }

    private void take(int index, Plane plane) {
        held.put(index, plane);
        wanted.remove(index);
        for (Iterator<Integer> oldest = held.keySet().iterator(); held.size() > most; ) {
            oldest.next();
            oldest.remove();
        }
        notifyAll();
        if (black.get(index)) {
            black.clear(index);
            EventQueue.invokeLater(() -> source.came(index));
        }
    }

    /** Nobody reads planes any longer. */
    synchronized void end(String why) {
        ended = why;
        wanted.clear();
        notifyAll();
    }

    /** Lets go of all pixels. */
    synchronized void release() {
        held.clear();
        end("its window is closed");
    }

    /** Planes that are wanted, the most wanted one first. */
    synchronized List<Integer> wanted(int count) {
        List<Integer> all = new ArrayList<>(wanted);
        List<Integer> found = new ArrayList<>();
        for (int i = all.size() - 1; i >= 0 && found.size() < count; i--) {
            found.add(all.get(i));
        }
        return found;
    }

    synchronized int missing() {
        int count = 0;
        for (Plane each : held.values()) {
            count += each.pixels == null ? 1 : 0;
        }
        return count;
    }

    synchronized boolean isMissing(int index) {
        Plane found = held.get(index);
        return found != null && found.pixels == null;
    }

    // On any thread

    private synchronized Plane plane(int index) {
        boolean painting = EventQueue.isDispatchThread();
        long end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(painting ? PAINT_MS : COMMAND_MS);
        Plane found = held.get(index);
        boolean interrupted = false;
        while (found == null && ended == null && !interrupted) {
            want(index);
            long left = TimeUnit.NANOSECONDS.toMillis(end - System.nanoTime());
            if (left <= 0 || painting && source.waitsForEventThread()) {
                break;
            }
            try {
                wait(Math.min(left, LOOK_MS));
            } catch (InterruptedException error) {
                Thread.currentThread().interrupt();
                interrupted = true;
            }
            found = held.get(index);
        }
        if (found != null && (painting || !found.failed)) {
            return found;
        }
        String why = found != null ? found.label : ended != null ? ended : interrupted ? "interrupted" : "it has not come in time";
        if (!painting) {
            throw new IllegalStateException("plane " + (index + 1) + " cannot be had: " + why);
        }
        black.set(index);
        return new Plane(null, why, true);
    }

    private void want(int index) {
        if (wanted.contains(index)) {
            return;
        }
        if (wanted.size() >= MOST_WANTED) {
            wanted.remove(wanted.iterator().next());
        }
        wanted.add(index);
        source.wanted();
    }

    /** A copy, as ImageJ may change it: a virtual stack is read again. */
    Object copy(int index) {
        Object pixels = plane(index).pixels;
        int count = getWidth() * getHeight();
        Object copy = form.allocate(count);
        if (pixels != null) {
            System.arraycopy(pixels, 0, copy, 0, count);
        }
        return copy;
    }

    @Override
    public ImageProcessor getProcessor(int n) {
        Object pixels = copy(n - 1);
        int width = getWidth();
        int height = getHeight();
        ImageProcessor made;
        switch (form) {
            case U8: made = new ByteProcessor(width, height, (byte[]) pixels); break;
            case F32: made = new FloatProcessor(width, height, (float[]) pixels); break;
            case RGB: made = new ColorProcessor(width, height, (int[]) pixels); break;
            default: made = new ShortProcessor(width, height, (short[]) pixels, null);
        }
        made.setSliceNumber(n);
        return made;
    }

    @Override
    public Object getPixels(int n) {
        return copy(n - 1);
    }

    @Override
    public synchronized String getSliceLabel(int n) {
        Plane found = held.get(n - 1);
        return found == null ? null : found.label;
    }

    @Override
    public void deleteSlice(int n) {
        throw new UnsupportedOperationException("planes of a stored data set are not deleted here");
    }

    @Override
    public void deleteLastSlice() {
        deleteSlice(getSize());
    }
}
