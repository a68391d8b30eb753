package mutoscope.fiji;

import ij.ImagePlus;
import ij.gui.Overlay;
import ij.gui.Roi;
import ij.io.RoiDecoder;
import ij.io.RoiEncoder;
import ij.plugin.frame.RoiManager;
import java.io.IOException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * ROIs of clients in the ROI Manager, and as overlays of the windows they belong to. Those that a person has there stay.
 * Everything happens on the event thread, except {@link #decode}.
 */
final class RoiSet {
    /** Properties of a ROI that say which layer of which client it is of, and on which plane. */
    static final String LAYER = "mutoscope-layer";
    static final String PLANE = "mutoscope-plane";

    private RoiSet() {}

    /** ROIs of one plane, one-based; 0 for an axis on all of whose planes they lie. */
    static final class PlaneRois {
        final int c;
        final int z;
        final int t;
        final List<Roi> rois;

        PlaneRois(int c, int z, int t, List<Roi> rois) {
            this.c = c;
            this.z = z;
            this.t = t;
            this.rois = rois;
        }

        String key() {
            return c + "," + z + "," + t;
        }
    }

    static Roi decode(byte[] data) throws Request.RefusedException {
        Roi roi;
        try {
            roi = new RoiDecoder(data, null).getRoi();
        } catch (IOException | RuntimeException error) {
            throw new Request.RefusedException("malformed", "a ROI cannot be read: " + error);
        }
        if (roi == null) {
            throw new Request.RefusedException("malformed", "a ROI cannot be read");
        }
        return roi;
    }

    /**
     * Puts ROIs on planes instead of those that the layer has there.
     *
     * @param whole whether the layer loses what it has on other planes, too
     * @param stack the window that they lie on; null if there is none
     */
    static void put(String layer, boolean whole, List<PlaneRois> planes, PlaneWindow stack) {
        Client.checkEventThread();
        Set<String> replaced = new HashSet<>();
        List<Roi> added = new ArrayList<>();
        for (PlaneRois plane : planes) {
            replaced.add(plane.key());
            for (Roi roi : plane.rois) {
                roi.setProperty(LAYER, layer);
                roi.setProperty(PLANE, plane.key());
                place(roi, plane, stack);
                added.add(roi);
            }
        }
        RoiManager manager = RoiManager.getInstance();
        if (manager == null) {
            if (added.isEmpty()) {
                return;
            }
            manager = new RoiManager();
        }
        List<Roi> kept = new ArrayList<>();
        boolean leaving = false;
        for (Roi roi : manager.getRoisAsArray()) {
            boolean leaves = layer.equals(roi.getProperty(LAYER)) && (whole || replaced.contains(roi.getProperty(PLANE)));
            leaving |= leaves;
            if (!leaves) {
                kept.add(roi);
            }
        }
        if (leaving) {
            manager.reset();
            add(manager, kept);
        }
        add(manager, added);
        if (stack != null) {
            overlay(layer, whole, replaced, added, stack.image());
        }
    }

    /** Takes all ROIs of layers whose names begin so out of the ROI Manager. */
    static void removeAll(String prefix) {
        Client.checkEventThread();
        RoiManager manager = RoiManager.getInstance();
        if (manager == null) {
            return;
        }
        List<Roi> kept = new ArrayList<>();
        for (Roi roi : manager.getRoisAsArray()) {
            String layer = roi.getProperty(LAYER);
            if (layer == null || !layer.startsWith(prefix)) {
                kept.add(roi);
            }
        }
        if (kept.size() < manager.getCount()) {
            manager.reset();
            add(manager, kept);
        }
    }

    private static void add(RoiManager manager, List<Roi> rois) {
        for (Roi roi : rois) {
            manager.add((ImagePlus) null, roi, -1);
        }
    }

    /** ImageJ counts planes of a plain stack in one number, and those of a hyperstack in three. */
    private static void place(Roi roi, PlaneRois plane, PlaneWindow stack) {
        PlaneWindow.Shape shape = stack == null ? null : stack.shape();
        if (shape == null || stack.image().isHyperStack() || shape.channels > 1) {
            roi.setPosition(plane.c, plane.z, plane.t);
        } else {
            roi.setPosition(Math.max(plane.z, plane.t) == 0 || shape.planes() == 1 ? 0 : Math.max(plane.z, plane.t));
        }
    }

    private static void overlay(String layer, boolean whole, Set<String> replaced, List<Roi> added, ImagePlus image) {
        Overlay before = image.getOverlay();
        Overlay after = new Overlay();
        if (before != null) {
            for (Roi roi : before.toArray()) {
                if (!(layer.equals(roi.getProperty(LAYER)) && (whole || replaced.contains(roi.getProperty(PLANE))))) {
                    after.add(roi);
                }
            }
        }
        for (Roi roi : added) {
            after.add((Roi) roi.clone());
        }
        image.setOverlay(after.size() == 0 ? null : after);
        image.changes = false;
    }

    /** Lays marks of a layer over a window, and not into the ROI Manager, instead of those that it has there. */
    static void mark(String layer, List<Roi> marks, PlaneWindow window) {
        Client.checkEventThread();
        for (Roi roi : marks) {
            roi.setProperty(LAYER, layer);
        }
        overlay(layer, true, new HashSet<>(), marks, window.image());
    }

    /** The ROIs of a layer as the ROI Manager has them now, by plane. */
    static Map<String, List<byte[]>> held(String layer) {
        Map<String, List<byte[]>> found = new LinkedHashMap<>();
        RoiManager manager = RoiManager.getInstance();
        if (manager == null) {
            return found;
        }
        for (Roi roi : manager.getRoisAsArray()) {
            if (layer.equals(roi.getProperty(LAYER))) {
                found.computeIfAbsent(roi.getProperty(PLANE), key -> new ArrayList<>()).add(RoiEncoder.saveAsByteArray(roi));
            }
        }
        return found;
    }

    /** How many ROIs each layer has in the ROI Manager. */
    static Map<String, Object> counts() {
        Map<String, Object> found = new HashMap<>();
        RoiManager manager = RoiManager.getInstance();
        if (manager != null) {
            for (Roi roi : manager.getRoisAsArray()) {
                String layer = roi.getProperty(LAYER);
                Object before = found.get(layer == null ? "" : layer);
                found.put(layer == null ? "" : layer, before == null ? 1L : (Long) before + 1);
            }
        }
        return found;
    }
}
