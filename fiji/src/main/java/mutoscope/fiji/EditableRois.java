package mutoscope.fiji;

import ij.IJ;
import ij.ImagePlus;
import ij.WindowManager;
import ij.gui.Overlay;
import ij.gui.Roi;
import ij.gui.RoiListener;
import ij.io.RoiEncoder;
import ij.plugin.frame.RoiManager;
import ij.process.FloatPolygon;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashSet;
import java.util.IdentityHashMap;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import javax.swing.Timer;

/**
 * A layer of ROIs in which a person may draw: its ROIs are those in the ROI Manager, by their ids, and lie over the window. What the
 * person adds to the ROI Manager while that window is in front, moves, or deletes there, waits here, the newest of each ROI, until
 * the client asks for it. ImageJ tells nobody of its ROI Manager, so it is looked at, ten times a second and whenever a ROI moves.
 *
 * <p>Everything happens on the event thread, except {@link #takeEdits}.
 */
final class EditableRois {
    static final String ID = "mutoscope-id";
    private static final int LOOK_MS = 100;
    private static final int MOST_DRAWN = 1000;
    private static final List<EditableRois> ALL = new ArrayList<>();
    /** Those of the person's ROIs that are none of a layer's. */
    private static final Set<Roi> OTHERS = Collections.newSetFromMap(new IdentityHashMap<>());
    private static final Timer TIMER = new Timer(LOOK_MS, event -> lookAtAll());
    private static final RoiListener LISTENER = (image, what) -> lookAtAll();
    private static boolean looking;

    private final String layer;
    private final PlaneWindow window;
    private final Client client;
    /** What each ROI was like when it was last put or told. */
    private final Map<String, String> known = new LinkedHashMap<>();
    private final Map<String, byte[]> edits = new LinkedHashMap<>();
    private int drawn;

    EditableRois(String layer, PlaneWindow window, Client client) {
        Client.checkEventThread();
        this.layer = layer;
        this.window = window;
        this.client = client;
        if (ALL.isEmpty()) {
            for (Roi roi : managed()) {
                if (roi.getProperty(RoiSet.LAYER) == null) {
                    OTHERS.add(roi);
                }
            }
            Roi.addRoiListener(LISTENER);
            TIMER.start();
        }
        ALL.add(this);
    }

    /** Nobody hears of it any longer; its ROIs stay. */
    void end() {
        Client.checkEventThread();
        ALL.remove(this);
        if (ALL.isEmpty()) {
            Roi.removeRoiListener(LISTENER);
            TIMER.stop();
            OTHERS.clear();
        }
    }

    PlaneWindow window() {
        return window;
    }

    private static Roi[] managed() {
        RoiManager manager = RoiManager.getInstance();
        return manager == null ? new Roi[0] : manager.getRoisAsArray();
    }

    /** What tells whether a ROI has moved, or changed its shape or name. */
    private static String form(Roi roi) {
        FloatPolygon outline = roi.getFloatPolygon();
        float[] x = Arrays.copyOf(outline.xpoints, outline.npoints);
        float[] y = Arrays.copyOf(outline.ypoints, outline.npoints);
        return roi.getTypeAsString() + roi.getFloatBounds() + Arrays.hashCode(x) + "," + Arrays.hashCode(y) + roi.getName();
    }

    /** A copy that shares nothing with it: ROIs that ImageJ clones have one set of properties. */
    private static Roi copy(Roi roi) {
        try {
            return RoiSet.decode(RoiEncoder.saveAsByteArray(roi));
        } catch (Request.RefusedException error) {
            throw new IllegalStateException(error);
        }
    }

    // What the client puts

    /** Has these ROIs and no others; those that a person has changed meanwhile stay until the client has heard of that. */
    void put(List<Roi> rois) {
        Client.checkEventThread();
        look();
        looking = true;
        try {
            RoiManager manager = RoiManager.getInstance();
            if (manager == null && !rois.isEmpty()) {
                manager = new RoiManager();
            }
            Map<String, Roi> wanted = new LinkedHashMap<>();
            for (Roi roi : rois) {
                if (roi.getProperty(ID) != null) {
                    roi.setProperty(RoiSet.LAYER, layer);
                    roi.setProperty(RoiSet.PLANE, "0,0,0");
                    wanted.put(roi.getProperty(ID), roi);
                }
            }
            synchronized (edits) {
                wanted.keySet().removeAll(edits.keySet());
                known.keySet().removeIf(id -> !wanted.containsKey(id) && !edits.containsKey(id));
            }
            Set<String> leaving = new HashSet<>();
            Map<String, Integer> places = places(manager);
            for (String id : places.keySet()) {
                if (!known.containsKey(id) && !wanted.containsKey(id)) {
                    leaving.add(id);
                }
            }
            for (Map.Entry<String, Roi> each : wanted.entrySet()) {
                Integer at = places.get(each.getKey());
                String form = form(each.getValue());
                if (at == null) {
                    manager.add((ImagePlus) null, each.getValue(), -1);
                } else if (!form.equals(known.get(each.getKey()))) {
                    manager.setRoi(each.getValue(), at);
                    takeSelectionAlong(each.getKey(), each.getValue());
                }
                known.put(each.getKey(), form);
            }
            remove(manager, leaving);
            follow();
        } finally {
            looking = false;
        }
    }

    /** A selection that stayed where it was would pull its ROI back; one that the person's hand is just moving does so rightly. */
    private void takeSelectionAlong(String id, Roi roi) {
        Roi selected = window.image().getRoi();
        if (selected != null && selected.getState() == Roi.NORMAL && layer.equals(selected.getProperty(RoiSet.LAYER))
            && id.equals(selected.getProperty(ID))) {
            window.image().setRoi(copy(roi));
        }
    }

    private Map<String, Integer> places(RoiManager manager) {
        Map<String, Integer> found = new LinkedHashMap<>();
        for (int i = 0; manager != null && i < manager.getCount(); i++) {
            Roi roi = manager.getRoi(i);
            if (layer.equals(roi.getProperty(RoiSet.LAYER))) {
                found.put(roi.getProperty(ID), i);
            }
        }
        return found;
    }

    private void remove(RoiManager manager, Set<String> ids) {
        if (ids.isEmpty() || manager == null) {
            return;
        }
        Roi[] all = manager.getRoisAsArray();
        manager.reset();
        for (Roi roi : all) {
            if (!layer.equals(roi.getProperty(RoiSet.LAYER)) || !ids.contains(roi.getProperty(ID))) {
                boolean other = OTHERS.remove(roi);
                manager.add((ImagePlus) null, roi, -1);
                if (other) {
                    OTHERS.add(manager.getRoi(manager.getCount() - 1));
                }
            }
        }
        Roi selected = window.image().getRoi();
        if (selected != null && layer.equals(selected.getProperty(RoiSet.LAYER)) && ids.contains(selected.getProperty(ID))) {
            window.image().deleteRoi();
        }
    }

    /** Has the overlay of the window show what the ROI Manager has. */
    private void follow() {
        ImagePlus image = window.image();
        Overlay before = image.getOverlay();
        Overlay after = new Overlay();
        for (Roi roi : before == null ? new Roi[0] : before.toArray()) {
            if (!layer.equals(roi.getProperty(RoiSet.LAYER))) {
                after.add(roi);
            }
        }
        for (Roi roi : managed()) {
            if (layer.equals(roi.getProperty(RoiSet.LAYER))) {
                after.add((Roi) roi.clone());
            }
        }
        image.setOverlay(after.size() == 0 ? null : after);
        image.changes = false;
    }

    // What a person does

    private static void lookAtAll() {
        if (looking || !java.awt.EventQueue.isDispatchThread()) {
            return; // ROIs that a macro moves are seen by the timer
        }
        for (EditableRois each : new ArrayList<>(ALL)) {
            each.look();
        }
    }

    private void look() {
        RoiManager manager = RoiManager.getInstance();
        if (looking || manager == null || window.isClosed()) {
            return; // a ROI Manager that was closed takes no ROIs away
        }
        looking = true;
        try {
            boolean changed = adopt(manager);
            changed |= followSelection(manager);
            Set<String> there = new HashSet<>();
            for (Roi roi : manager.getRoisAsArray()) {
                if (layer.equals(roi.getProperty(RoiSet.LAYER))) {
                    String id = roi.getProperty(ID);
                    there.add(id);
                    String form = form(roi);
                    if (!form.equals(known.put(id, form))) {
                        tell(id, RoiEncoder.saveAsByteArray(roi));
                        changed = true;
                    }
                }
            }
            changed |= forget(there);
            if (changed) {
                follow();
                client.notice();
            }
        } finally {
            looking = false;
        }
    }

    /** Takes up what a person has added to the ROI Manager, with the window in front. */
    private boolean adopt(RoiManager manager) {
        boolean found = false;
        Set<String> ids = new HashSet<>();
        for (int i = 0; i < manager.getCount(); i++) {
            Roi roi = manager.getRoi(i);
            String of = roi.getProperty(RoiSet.LAYER);
            boolean twice = layer.equals(of) && !ids.add(roi.getProperty(ID));
            if (!twice && (of != null || OTHERS.contains(roi))) {
                continue;
            }
            if (!twice && WindowManager.getCurrentImage() != window.image()) {
                if (!isInFrontOfAny()) {
                    OTHERS.add(roi);
                }
                continue;
            }
            if (drawn >= MOST_DRAWN) {
                OTHERS.add(roi);
                IJ.log("Mutoscope: a person draws at most " + MOST_DRAWN + " ROIs on " + window.image().getTitle());
                continue;
            }
            drawn++;
            Roi made = copy(roi);
            String id = "imagej-" + UUID.randomUUID().toString().replace("-", "").substring(0, 12);
            made.setProperty(ID, id);
            made.setProperty(RoiSet.LAYER, layer);
            made.setProperty(RoiSet.PLANE, "0,0,0");
            Roi selected = window.image().getRoi();
            if (selected != null && selected.getProperty(RoiSet.LAYER) == null && selected.equals(roi)) {
                selected.setName(made.getName());
                selected.setProperty(ID, id); // what a person goes on dragging is this one
                selected.setProperty(RoiSet.LAYER, layer);
                selected.setProperty(RoiSet.PLANE, "0,0,0");
            }
            manager.setRoi(made, i);
            ids.add(id);
            found = true;
        }
        return found;
    }

    private static boolean isInFrontOfAny() {
        for (EditableRois each : ALL) {
            if (each.window.image() == WindowManager.getCurrentImage()) {
                return true;
            }
        }
        return false;
    }

    /** A ROI of the layer that is selected on the window is where it is dragged to. */
    private boolean followSelection(RoiManager manager) {
        Roi selected = window.image().getRoi();
        if (selected == null || !layer.equals(selected.getProperty(RoiSet.LAYER))) {
            return false;
        }
        String id = selected.getProperty(ID);
        Integer at = places(manager).get(id);
        if (at == null || manager.getRoi(at) == selected || form(selected).equals(form(manager.getRoi(at)))) {
            return false;
        }
        Roi moved = (Roi) selected.clone();
        moved.setName(manager.getRoi(at).getName());
        manager.setRoi(moved, at);
        return true;
    }

    /** Forgets what a person has deleted. A list that was emptied at once, as macros do, takes nothing away. */
    private boolean forget(Set<String> there) {
        Set<String> gone = new HashSet<>(known.keySet());
        gone.removeAll(there);
        if (gone.isEmpty() || there.isEmpty() && gone.size() > 1) {
            return false;
        }
        for (String id : gone) {
            known.remove(id);
            tell(id, null);
        }
        return true;
    }

    private void tell(String id, byte[] roi) {
        synchronized (edits) {
            edits.remove(id);
            edits.put(id, roi);
        }
    }

    /** Takes up to so many edits: ROIs by id, null for one that was deleted. */
    Map<String, byte[]> takeEdits(int count) {
        Map<String, byte[]> found = new LinkedHashMap<>();
        synchronized (edits) {
            Iterator<Map.Entry<String, byte[]>> each = edits.entrySet().iterator();
            while (each.hasNext() && found.size() < count) {
                Map.Entry<String, byte[]> edit = each.next();
                found.put(edit.getKey(), edit.getValue());
                each.remove();
            }
        }
        return found;
    }

    // For tests: what a person's hand does

    /** Draws a ROI on the window and adds it to the ROI Manager, or selects the one of this id and drags it there. */
    void draw(Roi roi) {
        Client.checkEventThread();
        RoiManager manager = RoiManager.getInstance() == null ? new RoiManager() : RoiManager.getInstance();
        Integer at = places(manager).get(roi.getProperty(ID));
        WindowManager.setCurrentWindow(window.window());
        if (at == null) {
            Roi made = copy(roi);
            made.setProperty(ID, null);
            window.image().setRoi(made);
            manager.addRoi(made);
        } else {
            Roi dragged = copy(roi);
            dragged.setProperty(ID, roi.getProperty(ID));
            dragged.setProperty(RoiSet.LAYER, layer);
            dragged.setProperty(RoiSet.PLANE, "0,0,0");
            window.image().setRoi(dragged);
        }
        look();
    }

    /** Deletes the ROI of this id in the ROI Manager; false if there is none. */
    boolean erase(String id) {
        Client.checkEventThread();
        RoiManager manager = RoiManager.getInstance();
        Integer at = places(manager).get(id);
        if (at == null) {
            return false;
        }
        manager.select(at);
        manager.runCommand("Delete");
        look();
        return true;
    }
}
