package mutoscope.fiji;

import ij.ImagePlus;
import ij.ImageStack;
import java.util.ArrayDeque;
import java.util.Arrays;
import java.util.BitSet;
import java.util.HashMap;
import java.util.Map;

/**
 * An image window that a client fills plane by plane. Planes that have come wait beside those that are shown until
 * {@link #show}, which swaps them on the event thread; arrays that are no longer shown are filled again by later planes, so a live
 * stream goes on with two arrays.
 *
 * <p>{@link #take}, {@link #put} and {@link #forget} are for the client's thread, everything else for the event thread.
 */
final class Hyperstack extends PlaneWindow {
    private static final int MAX_SPARE = 2;

    private int width;
    private int height;
    private int channels;
    private int slices;
    private int frames;
    private Object blank;
    private Object[] planes;
    private String[] labels;
    private final BitSet present = new BitSet();
    private final Map<Integer, Object> waiting = new HashMap<>();
    private final Map<Integer, String> waitingLabels = new HashMap<>();
    private final BitSet leaving = new BitSet();
    private final ArrayDeque<Object> spare = new ArrayDeque<>();

    Hyperstack(String title, Pixels form, Shape shape, boolean composite, Client client) {
        super(form, client);
        lay(shape);
        blank = form.allocate(width * height);
        planes = new Object[(int) shape.planes()];
        labels = new String[planes.length];
        Arrays.fill(planes, blank);
        Arrays.fill(labels, MISSING);
        open(title, stack(), composite);
    }

    @Override
    synchronized void release() {
        planes = new Object[0];
        waiting.clear();
        spare.clear();
        blank = null;
    }

    private void lay(Shape shape) {
        width = shape.width;
        height = shape.height;
        channels = shape.channels;
        slices = shape.slices;
        frames = shape.frames;
    }

    @Override
    synchronized Shape shape() {
        return new Shape(width, height, channels, slices, frames);
    }

    private ImageStack stack() {
        ImageStack stack = new ImageStack(width, height);
        for (int i = 0; i < planes.length; i++) {
            stack.addSlice(labels[i], planes[i]);
        }
        return stack;
    }

    // Planes, on the client's thread

    @Override
    synchronized Object take() {
        Object free = spare.poll();
        return free != null ? free : form.allocate(width * height);
    }

    @Override
    synchronized void put(int index, Object plane, String label) {
        Object before = waiting.put(index, plane);
        waitingLabels.put(index, label);
        leaving.clear(index);
        if (before != null) {
            keep(before);
        }
    }

    @Override
    synchronized void forget(int index) {
        Object before = waiting.remove(index);
        waitingLabels.remove(index);
        leaving.set(index);
        if (before != null) {
            keep(before);
        }
    }

    private void keep(Object plane) {
        if (plane != blank && Pixels.length(plane) == width * height && spare.size() < MAX_SPARE) {
            spare.add(plane);
        }
    }

    // On the event thread

    @Override
    void show() throws Request.RefusedException {
        checkOpen();
        ImagePlus image = image();
        ImageStack stack = image.getStack();
        int shown = image.getCurrentSlice() - 1;
        String before = labels[shown];
        synchronized (this) {
            for (Map.Entry<Integer, Object> each : waiting.entrySet()) {
                swap(stack, each.getKey(), each.getValue(), waitingLabels.get(each.getKey()));
                present.set(each.getKey());
            }
            for (int i = leaving.nextSetBit(0); i >= 0; i = leaving.nextSetBit(i + 1)) {
                swap(stack, i, blank, MISSING);
                present.clear(i);
            }
            waiting.clear();
            waitingLabels.clear();
            leaving.clear();
        }
        image.updateAndDraw();
        if (!labels[shown].equals(before)) {
            image.repaintWindow(); // the label above the canvas, which is drawn over what is there
        }
        image.changes = false;
    }

    private void swap(ImageStack stack, int index, Object plane, String label) {
        Object before = planes[index];
        planes[index] = plane;
        stack.setPixels(plane, index + 1);
        if (!label.equals(labels[index])) {
            labels[index] = label;
            stack.setSliceLabel(label, index + 1);
        }
        refresh(index, plane);
        if (before != plane) {
            keep(before);
        }
    }

    /**
     * Lays the planes out anew, in the same window. Each {@code from} says for every index of an axis which index, from 0, it was
     * before; -1 for one that is new. Planes become no smaller.
     */
    void arrange(Shape shape, int[] fromC, int[] fromZ, int[] fromT) throws Request.RefusedException {
        checkOpen();
        ImagePlus image = image();
        Style[] styles = styles();
        Shape old = shape();
        Object newBlank = blank;
        boolean larger = shape.width != width || shape.height != height;
        if (larger) {
            newBlank = form.allocate(shape.width * shape.height);
        }
        Object[] newPlanes = new Object[(int) shape.planes()];
        String[] newLabels = new String[newPlanes.length];
        BitSet newPresent = new BitSet();
        Map<Integer, Object> newWaiting = new HashMap<>();
        Map<Integer, String> newWaitingLabels = new HashMap<>();
        BitSet newLeaving = new BitSet();
        int shown = Math.max(0, image.getCurrentSlice() - 1);
        int now = 0;
        synchronized (this) {
            for (int i = 0; i < newPlanes.length; i++) {
                int c = fromC[i % shape.channels];
                int z = fromZ[i / shape.channels % shape.slices];
                int t = fromT[i / shape.channels / shape.slices];
                newPlanes[i] = newBlank;
                newLabels[i] = MISSING;
                if (c < 0 || z < 0 || t < 0) {
                    continue;
                }
                int was = old.index(c + 1, z + 1, t + 1);
                if (was == shown) {
                    now = i;
                }
                if (present.get(was)) {
                    newPlanes[i] = larger ? form.padded(planes[was], width, height, shape.width, shape.height) : planes[was];
                    newLabels[i] = labels[was];
                    newPresent.set(i);
                }
                Object wait = waiting.get(was);
                if (wait != null) {
                    newWaiting.put(i, larger ? form.padded(wait, width, height, shape.width, shape.height) : wait);
                    newWaitingLabels.put(i, waitingLabels.get(was));
                }
                newLeaving.set(i, leaving.get(was));
            }
            planes = newPlanes;
            labels = newLabels;
            blank = newBlank;
            lay(shape);
            if (larger) {
                spare.clear();
            }
            present.clear();
            present.or(newPresent);
            leaving.clear();
            leaving.or(newLeaving);
            waiting.clear();
            waiting.putAll(newWaiting);
            waitingLabels.clear();
            waitingLabels.putAll(newWaitingLabels);
        }
        window().whileGrowing(() -> image.setStack(stack(), channels, slices, frames));
        window().follow(channels, slices, frames);
        restyle(styles, fromC);
        window().setPosition(now % channels + 1, now / channels % slices + 1, now / channels / slices + 1);
        image.updateAndDraw();
        image.repaintWindow();
        image.changes = false;
    }

    @Override
    synchronized int missing() {
        return planes.length - present.cardinality();
    }

    @Override
    synchronized boolean isMissing(int index) {
        return !present.get(index);
    }
}
