package mutoscope.fiji;

import ij.IJ;
import ij.ImageJ;
import ij.ImagePlus;
import ij.WindowManager;
import ij.plugin.LutLoader;
import ij.process.LUT;
import java.awt.EventQueue;
import java.awt.image.BufferedImage;
import java.awt.image.IndexColorModel;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;

/**
 * One client that has shown the token: its windows, its shared memory, and what it asks for. Requests are carried out one after
 * the other, in the thread that reads them; what touches windows happens on the event thread.
 */
final class Client {
    static final int MAX_WINDOWS = 256;
    static final int MAX_SEGMENTS = 64;
    static final int MAX_AXIS = 1 << 20;
    static final int MAX_CHANNELS = 1024;
    static final int MAX_PLANES = 1 << 22;
    static final int MAX_TITLE = 4096;
    static final int MAX_ROIS = 1 << 20;
    static final int MAX_WANTED = 8;
    static final int MAX_EDITS = 256;
    static final int MAX_MARKS = 1 << 20;
    static final int MAX_ROI_BYTES = 256 << 20;

    private final boolean owned;
    private final String name;
    private final Left left;
    private final Map<String, PlaneWindow> windows = new HashMap<>();
    private final Map<Long, Segment> segments = new HashMap<>();
    private final Map<String, EditableRois> editable = new LinkedHashMap<>();
    private volatile boolean onEventThread;
    private final Object bell = new Object();
    private boolean noticed;
    private boolean told;
    private boolean gone;

    /** What is said of a request, and the bytes behind it: a plane, a picture, ROIs. */
    static final class Answer {
        final Map<String, Object> fields = new LinkedHashMap<>();
        Pixels form;
        Object plane;
        List<byte[]> pieces;
        boolean quit;

        Answer(String type) {
            fields.put("type", type);
        }

        Answer with(String key, Object value) {
            fields.put(key, value);
            return this;
        }

        long bytesBehind() {
            if (plane != null) {
                return (long) Pixels.length(plane) * form.bytesEach;
            }
            long total = 0;
            for (byte[] piece : pieces == null ? new ArrayList<byte[]>() : pieces) {
                total += piece.length;
            }
            return total;
        }

        void writeBehind(DataOutputStream out) throws IOException {
            if (plane != null) {
                Buffers.writePlane(out, form, plane);
            } else if (pieces != null) {
                for (byte[] piece : pieces) {
                    out.write(piece);
                }
            }
        }
    }

    /** What clients have left behind that are gone: their windows, and the names of their layers of ROIs. */
    static final class Left {
        private final List<PlaneWindow> windows = new ArrayList<>();
        private final List<String> names = new ArrayList<>();

        private synchronized void add(String name, Collection<PlaneWindow> more) {
            names.add(name);
            windows.removeIf(PlaneWindow::isClosed);
            for (PlaneWindow each : more) {
                if (!each.isClosed()) {
                    windows.add(each);
                }
            }
        }

        /** On the event thread. */
        private synchronized void close() {
            for (PlaneWindow each : windows) {
                if (!each.isClosed() && each.isIntact()) {
                    each.close();
                }
            }
            for (String each : names) {
                RoiSet.removeAll(each);
            }
            windows.clear();
            names.clear();
        }
    }

    /**
     * @param name what tells this client's layers of ROIs from those of others
     * @param left where to leave what it has
     */
    Client(boolean owned, String name, Left left) {
        this.owned = owned;
        this.name = name;
        this.left = left;
    }

    /** Lets go of the client's shared memory; its windows stay for the person who looks at them. */
    void leave() {
        for (PlaneWindow each : windows.values()) {
            if (each instanceof StoredStack) {
                ((StoredStack) each).end();
            }
        }
        synchronized (bell) {
            gone = true;
            bell.notifyAll();
        }
        List<EditableRois> edited = new ArrayList<>(editable.values());
        EventQueue.invokeLater(() -> edited.forEach(EditableRois::end));
        if (owned) {
            left.add(name, windows.values());
        }
        for (Segment segment : segments.values()) {
            segment.close();
        }
        segments.clear();
    }

    // News, which the client asks for when it is told that there are some

    /** There are news: planes that are wanted, or what a person has done. From any thread; does not wait. */
    void notice() {
        synchronized (bell) {
            noticed = true;
            bell.notifyAll();
        }
    }

    /** Waits until there are news of which the client has not been told; false once it has left. */
    boolean awaitNotice() throws InterruptedException {
        synchronized (bell) {
            while (!gone && (!noticed || told)) {
                bell.wait();
            }
            told = true;
            noticed = false;
            return !gone;
        }
    }

    /** Whether a request of this client waits for the event thread, or is carried out there. */
    boolean waitsForEventThread() {
        return onEventThread;
    }

    private Answer news() {
        synchronized (bell) {
            told = false;
            noticed = false;
        }
        List<Object> wanted = new ArrayList<>();
        List<Object> closed = new ArrayList<>();
        for (Map.Entry<String, PlaneWindow> each : windows.entrySet()) {
            if (each.getValue().isClosed()) {
                closed.add(each.getKey());
            } else if (each.getValue() instanceof StoredStack) {
                PlaneWindow.Shape shape = each.getValue().shape();
                for (int index : ((StoredStack) each.getValue()).wanted(MAX_WANTED)) {
                    Map<String, Object> place = new LinkedHashMap<>();
                    place.put("window", each.getKey());
                    place.put("c", index % shape.channels + 1);
                    place.put("z", index / shape.channels % shape.slices + 1);
                    place.put("t", index / shape.channels / shape.slices + 1);
                    wanted.add(place);
                }
            }
        }
        Answer answer = new Answer("news").with("wanted", wanted).with("closed", closed);
        answer.pieces = new ArrayList<>();
        List<Object> edits = new ArrayList<>();
        for (Map.Entry<String, EditableRois> each : editable.entrySet()) {
            Map<String, byte[]> found = each.getValue().takeEdits(MAX_EDITS);
            for (Map.Entry<String, byte[]> edit : found.entrySet()) {
                Map<String, Object> told = new LinkedHashMap<>();
                told.put("layer", each.getKey());
                told.put("roi", edit.getKey());
                told.put("size", edit.getValue() == null ? 0 : edit.getValue().length);
                edits.add(told);
                if (edit.getValue() != null) {
                    answer.pieces.add(edit.getValue());
                }
            }
            if (found.size() == MAX_EDITS) {
                notice();
            }
        }
        return answer.with("edits", edits);
    }

    /** Carries a request out. {@code behind} bytes come after it in {@code in}; all of them have been read on return. */
    Answer handle(Request request, InputStream in, long behind) throws Exception {
        if (request.type.equals("plane")) {
            return plane(request, in, behind);
        }
        if (request.type.equals("rois")) {
            return rois(request, in, behind);
        }
        if (request.type.equals("marks")) {
            return marks(request, in, behind);
        }
        if (request.type.equals("draw")) {
            return draw(request, in, behind);
        }
        Buffers.drain(in, behind);
        switch (request.type) {
            case "map": return map(request);
            case "unmap": return unmap(request);
            case "open": return open(request);
            case "arrange": return arrange(request);
            case "forget": return forget(request);
            case "unread": return unread(request);
            case "news": return news();
            case "style": return style(request);
            case "show": return show(request);
            case "close": return close(request);
            case "close_left": return closeLeft();
            case "describe": return describe(request);
            case "read": return read(request);
            case "held_rois": return heldRois(request);
            case "erase": return erase(request);
            case "say": return say(request);
            case "lut": return lut(request);
            case "picture": return picture(request);
            case "state": return state();
            case "quit": return quit();
            default: throw new Request.RefusedException("unknown", "there is no request " + quoted(request.type));
        }
    }

    static String quoted(String text) {
        return "'" + (text.length() > 80 ? text.substring(0, 80) + "…" : text) + "'";
    }

    private static Answer done() {
        return new Answer("done");
    }

    /** Windows of ImageJ are touched on the event thread only. */
    static void checkEventThread() {
        if (!EventQueue.isDispatchThread()) {
            throw new IllegalStateException("this belongs on the event thread, not on " + Thread.currentThread().getName());
        }
    }

    /** Runs on the event thread, and waits for it. */
    private <T> T onEventThread(Callable<T> task) throws Exception {
        if (EventQueue.isDispatchThread()) {
            throw new IllegalStateException("a client's thread is not the event thread");
        }
        List<T> found = new ArrayList<>();
        List<Throwable> failed = new ArrayList<>();
        onEventThread = true;
        try {
            EventQueue.invokeAndWait(() -> {
                try {
                    found.add(task.call());
                } catch (Exception | OutOfMemoryError error) {
                    failed.add(error);
                }
            });
        } catch (InvocationTargetException error) {
            failed.add(error.getCause());
        } finally {
            onEventThread = false;
        }
        if (failed.isEmpty()) {
            return found.get(0);
        }
        if (failed.get(0) instanceof Error) {
            throw (Error) failed.get(0);
        }
        throw (Exception) failed.get(0);
    }

    // Shared memory

    private Answer map(Request request) throws Request.RefusedException {
        long number = request.whole("segment", 0, Long.MAX_VALUE);
        if (segments.containsKey(number) || segments.size() >= MAX_SEGMENTS) {
            throw new Request.RefusedException("refused", "segment " + number + " is there already, or " + MAX_SEGMENTS + " others");
        }
        segments.put(number, new Segment(request.text("path", 4096), request.whole("size", 1, 1L << 46)));
        return done();
    }

    private Answer unmap(Request request) throws Request.RefusedException {
        Segment segment = segments.remove(request.whole("segment", 0, Long.MAX_VALUE));
        if (segment != null) {
            segment.close();
        }
        return done();
    }

    // Windows

    private static PlaneWindow.Shape shape(Request request) throws Request.RefusedException {
        PlaneWindow.Shape shape = new PlaneWindow.Shape(request.count("width", 1, MAX_AXIS), request.count("height", 1, MAX_AXIS),
            request.count("channels", 1, MAX_CHANNELS), request.count("slices", 1, MAX_AXIS), request.count("frames", 1, MAX_AXIS));
        if ((long) shape.channels * shape.slices > MAX_PLANES || shape.planes() > MAX_PLANES) {
            throw Request.malformed("a window has at most " + MAX_PLANES + " planes");
        }
        if ((long) shape.width * shape.height > Integer.MAX_VALUE - 8) {
            throw Request.malformed("a plane of ImageJ has at most " + (Integer.MAX_VALUE - 8) + " pixels");
        }
        return shape;
    }

    private Answer open(Request request) throws Exception {
        String id = request.text("window", MAX_TITLE);
        String title = request.text("title", MAX_TITLE);
        Pixels form = Pixels.of(request.text("pixels", 16));
        PlaneWindow.Shape shape = shape(request);
        boolean composite = request.flag("composite");
        boolean stored = request.has("stored") && request.flag("stored");
        PlaneWindow before = windows.get(id);
        if (before != null && !before.isClosed() && before.isIntact()) {
            throw new Request.RefusedException("refused", "window " + quoted(id) + " is open already");
        }
        if (before == null && windows.size() >= MAX_WINDOWS) {
            throw new Request.RefusedException("refused", "a client has at most " + MAX_WINDOWS + " windows");
        }
        windows.put(id, onEventThread(() -> stored ? new StoredStack(title, form, shape, composite, this)
            : new Hyperstack(title, form, shape, composite, this)));
        return done();
    }

    /** A window that can be used. */
    private PlaneWindow window(Request request) throws Request.RefusedException {
        String id = request.text("window", MAX_TITLE);
        PlaneWindow found = windows.get(id);
        if (found == null) {
            throw new Request.RefusedException("unknown", "there is no window " + quoted(id));
        }
        if (found.isClosed()) {
            throw new Request.RefusedException("closed", "a person has closed window " + quoted(id));
        }
        if (!found.isIntact()) {
            throw new Request.RefusedException("altered", "a person has changed the size, the axes or the type of window "
                + quoted(id));
        }
        return found;
    }

    private static int index(Request request, PlaneWindow window) throws Request.RefusedException {
        PlaneWindow.Shape shape = window.shape();
        return shape.index(request.count("c", 1, shape.channels), request.count("z", 1, shape.slices),
            request.count("t", 1, shape.frames));
    }

    private Answer plane(Request request, InputStream in, long behind) throws Exception {
        long left = behind;
        try {
            PlaneWindow window = window(request);
            int index = index(request, window);
            String label = request.text("label", MAX_TITLE);
            PlaneWindow.Shape shape = window.shape();
            long bytes = (long) shape.width * shape.height * window.form.bytesEach;
            Segment segment = null;
            if (request.has("segment")) {
                segment = segments.get(request.whole("segment", 0, Long.MAX_VALUE));
            }
            long given = segment == null ? behind : request.whole("size", 0, Long.MAX_VALUE);
            if (given != bytes || segment != null && behind != 0) {
                throw Request.malformed("a plane of window " + quoted(request.text("window", MAX_TITLE)) + " is " + bytes
                    + " bytes, in a segment that is mapped or behind the message, not " + given);
            }
            ByteBuffer shared = segment == null ? null : segment.slice(request.whole("at", 0, Long.MAX_VALUE), bytes);
            Object plane = window.take();
            if (shared != null) {
                window.form.copyIn(shared, plane, 0, Pixels.length(plane));
            } else {
                left = -1;
                Buffers.readPlane(in, window.form, plane);
                left = 0;
            }
            window.put(index, plane, label);
            return done();
        } finally {
            if (left > 0) {
                Buffers.drain(in, left);
            }
        }
    }

    private Answer forget(Request request) throws Exception {
        PlaneWindow window = window(request);
        window.forget(index(request, window));
        return done();
    }

    private Answer unread(Request request) throws Exception {
        PlaneWindow window = window(request);
        if (!(window instanceof StoredStack)) {
            throw new Request.RefusedException("refused", "this is no window of a stored data set");
        }
        ((StoredStack) window).fail(index(request, window), request.text("why", MAX_TITLE));
        return done();
    }

    private Answer show(Request request) throws Exception {
        PlaneWindow window = window(request);
        onEventThread(() -> {
            window.show();
            return true;
        });
        return done();
    }

    private Answer arrange(Request request) throws Exception {
        PlaneWindow found = window(request);
        if (!(found instanceof Hyperstack)) {
            throw new Request.RefusedException("refused", "a stored data set has the size that it has");
        }
        Hyperstack window = (Hyperstack) found;
        PlaneWindow.Shape old = window.shape();
        PlaneWindow.Shape shape = shape(request);
        int[] fromC = from(request, "from_c", shape.channels, old.channels);
        int[] fromZ = from(request, "from_z", shape.slices, old.slices);
        int[] fromT = from(request, "from_t", shape.frames, old.frames);
        if (shape.width < old.width || shape.height < old.height) {
            throw Request.malformed("planes become no smaller than " + old.width + " x " + old.height);
        }
        onEventThread(() -> {
            window.arrange(shape, fromC, fromZ, fromT);
            return true;
        });
        return done();
    }

    private static int[] from(Request request, String name, int length, int before) throws Request.RefusedException {
        int[] found = request.counts(name, MAX_AXIS, -1, before - 1);
        boolean[] taken = new boolean[before];
        for (int each : found) {
            if (each >= 0 && taken[each]) {
                throw Request.malformed(name + " has index " + each + " twice");
            }
            if (each >= 0) {
                taken[each] = true;
            }
        }
        if (found.length != length) {
            throw Request.malformed(name + " has " + found.length + " indices, the axis " + length);
        }
        return found;
    }

    private Answer style(Request request) throws Exception {
        PlaneWindow window = window(request);
        String title = request.has("title") ? request.text("title", MAX_TITLE) : null;
        Boolean overlay = request.has("overlay") ? request.flag("overlay") : null;
        List<Request> scale = request.has("scale") ? request.parts("scale", 1) : new ArrayList<>();
        double[] steps = new double[3];
        String unit = "";
        String timeUnit = "";
        for (Request each : scale) {
            steps = new double[] {each.real("pixel_size"), each.real("depth"), each.real("interval")};
            unit = each.text("unit", 64);
            timeUnit = each.text("time_unit", 64);
        }
        List<Request> channels = request.has("channels") ? request.parts("channels", window.shape().channels) : new ArrayList<>();
        if (!channels.isEmpty() && window.form == Pixels.RGB) {
            throw Request.malformed("a window of RGB has no channels");
        }
        int[] numbers = new int[channels.size()];
        byte[][] colours = new byte[channels.size()][];
        double[][] ranges = new double[channels.size()][];
        for (int i = 0; i < numbers.length; i++) {
            Request each = channels.get(i);
            numbers[i] = each.count("c", 1, window.shape().channels);
            colours[i] = each.has("lut") ? each.bytes("lut", 768) : null;
            ranges[i] = new double[] {each.real("low"), each.real("high")};
        }
        double[] chosen = steps;
        String unitName = unit;
        String timeUnitName = timeUnit;
        List<Object> set = onEventThread(() -> {
            if (title != null) {
                window.setTitle(title);
            }
            if (overlay != null) {
                window.overlay(overlay);
            }
            if (!scale.isEmpty()) {
                window.setScale(chosen[0], chosen[1], unitName, chosen[2], timeUnitName);
            }
            List<Object> free = new ArrayList<>();
            for (int i = 0; i < numbers.length; i++) {
                free.add(window.style(numbers[i], colours[i], ranges[i][0], ranges[i][1]));
            }
            window.image().updateAndDraw();
            return free;
        });
        return done().with("set", set);
    }

    /** A look-up table that ImageJ has, built in or in its folder {@code luts}. */
    private static Answer lut(Request request) throws Request.RefusedException {
        String name = request.text("name", 256);
        IndexColorModel found = name.contains("/") || name.contains("\\") ? null : LutLoader.getLut(name);
        if (found == null || found.getMapSize() != 256) {
            throw new Request.RefusedException("unknown", "ImageJ has no look-up table " + quoted(name));
        }
        return new Answer("lut").with("colours", new LUT(found, 0, 0).getBytes());
    }

    private Answer close(Request request) throws Exception {
        PlaneWindow window = windows.remove(request.text("window", MAX_TITLE));
        if (window != null && !window.isClosed()) {
            onEventThread(() -> {
                window.close();
                return true;
            });
        }
        return done();
    }

    private Answer closeLeft() throws Exception {
        if (!owned) {
            throw new Request.RefusedException("refused", "a person has started this ImageJ: what is left there is theirs");
        }
        onEventThread(() -> {
            left.close();
            return true;
        });
        return done();
    }

    // What is there

    private Answer describe(Request request) throws Exception {
        PlaneWindow window = window(request);
        return onEventThread(() -> {
            window.checkOpen();
            ImagePlus image = window.image();
            PlaneWindow.Shape shape = window.shape();
            List<Object> channels = new ArrayList<>();
            for (int c = 1; c <= (window.form == Pixels.RGB ? 0 : shape.channels); c++) {
                Map<String, Object> each = new LinkedHashMap<>();
                double[] range = window.range(c);
                each.put("lut", window.lut(c).getBytes());
                each.put("low", range[0]);
                each.put("high", range[1]);
                channels.add(each);
            }
            Map<String, Object> scale = new LinkedHashMap<>();
            scale.put("pixel_size", image.getCalibration().pixelWidth);
            scale.put("depth", image.getCalibration().pixelDepth);
            scale.put("interval", image.getCalibration().frameInterval);
            scale.put("unit", image.getCalibration().getUnit());
            scale.put("time_unit", image.getCalibration().getTimeUnit());
            return new Answer("window").with("title", image.getTitle()).with("pixels", window.form.word)
                .with("width", image.getWidth()).with("height", image.getHeight()).with("channels", image.getNChannels())
                .with("slices", image.getNSlices()).with("frames", image.getNFrames())
                .with("shown", java.util.Arrays.asList(image.getChannel(), image.getSlice(), image.getFrame()))
                .with("missing", window.missing()).with("paints", window.canvas().paints.get()).with("scale", scale)
                .with("styles", channels);
        });
    }

    private Answer read(Request request) throws Exception {
        PlaneWindow window = window(request);
        int index = index(request, window);
        return onEventThread(() -> {
            window.checkOpen();
            Answer answer = new Answer("plane").with("label", String.valueOf(window.image().getStack().getSliceLabel(index + 1)))
                .with("missing", window.isMissing(index));
            answer.form = window.form;
            answer.plane = window.image().getStack().getProcessor(index + 1).getPixelsCopy();
            return answer;
        });
    }

    private Answer picture(Request request) throws Exception {
        PlaneWindow window = window(request);
        return onEventThread(() -> {
            window.checkOpen();
            BufferedImage picture = window.canvas().picture();
            Answer answer = new Answer("picture").with("width", picture.getWidth()).with("height", picture.getHeight());
            answer.form = Pixels.RGB;
            answer.plane = picture.getRGB(0, 0, picture.getWidth(), picture.getHeight(), null, 0, picture.getWidth());
            return answer;
        });
    }

    private Answer state() throws Exception {
        return onEventThread(() -> {
            List<Object> open = new ArrayList<>();
            long paints = 0;
            for (Map.Entry<String, PlaneWindow> each : windows.entrySet()) {
                paints += each.getValue().canvas().paints.get();
                if (!each.getValue().isClosed()) {
                    open.add(each.getKey());
                }
            }
            Map<String, Object> rois = new LinkedHashMap<>();
            for (Map.Entry<String, Object> each : RoiSet.counts().entrySet()) {
                boolean ours = each.getKey().startsWith(name);
                rois.merge(ours ? each.getKey().substring(name.length()) : "", each.getValue(), (a, b) -> (Long) a + (Long) b);
            }
            return new Answer("state").with("windows", open).with("images", WindowManager.getImageCount()).with("paints", paints)
                .with("painted", CountingCanvas.ALL.get()).with("rois", rois).with("heap_bytes", Runtime.getRuntime().totalMemory() - Runtime.getRuntime().freeMemory());
        });
    }

    // ROIs

    private Answer rois(Request request, InputStream in, long behind) throws Exception {
        if (behind > MAX_ROI_BYTES) {
            Buffers.drain(in, behind);
            throw Request.malformed("ROIs in one request have at most " + MAX_ROI_BYTES + " bytes");
        }
        byte[] data = new byte[(int) behind];
        Buffers.readFully(in, data, data.length);
        String layer = name + request.text("layer", MAX_TITLE);
        boolean whole = request.flag("whole");
        boolean edited = request.has("editable") && request.flag("editable");
        PlaneWindow window = request.has("window") ? window(request) : null;
        if (edited && window == null) {
            throw Request.malformed("a person draws on a window only");
        }
        List<RoiSet.PlaneRois> planes = new ArrayList<>();
        int at = 0;
        for (Request each : request.parts("planes", MAX_PLANES)) {
            List<ij.gui.Roi> decoded = new ArrayList<>();
            for (int size : each.counts("sizes", MAX_ROIS, 1, data.length)) {
                if (size > data.length - at) {
                    throw Request.malformed("the ROIs have more bytes than there are behind the message");
                }
                decoded.add(RoiSet.decode(java.util.Arrays.copyOfRange(data, at, at + size)));
                at += size;
            }
            planes.add(new RoiSet.PlaneRois(each.count("c", 0, MAX_AXIS), each.count("z", 0, MAX_AXIS), each.count("t", 0, MAX_AXIS),
                decoded));
        }
        if (at != data.length) {
            throw Request.malformed("there are more bytes behind the message than the ROIs have");
        }
        onEventThread(() -> {
            if (window != null) {
                window.checkOpen();
            }
            String name = request.text("layer", MAX_TITLE);
            EditableRois before = editable.get(name);
            if (before != null && (!edited || before.window() != window)) {
                before.end();
                editable.remove(name);
            }
            if (edited) {
                if (!editable.containsKey(name)) {
                    RoiSet.put(layer, true, new ArrayList<>(), window);
                    editable.put(name, new EditableRois(layer, window, this));
                }
                List<ij.gui.Roi> all = new ArrayList<>();
                planes.forEach(plane -> all.addAll(plane.rois));
                editable.get(name).put(all);
            } else {
                RoiSet.put(layer, whole, planes, window);
            }
            return true;
        });
        return done();
    }

    /** Points, or lines, that lie over a window: pairs of x and y in single precision behind the message. */
    private Answer marks(Request request, InputStream in, long behind) throws Exception {
        if (behind > MAX_ROI_BYTES) {
            Buffers.drain(in, behind);
            throw Request.malformed("marks in one request have at most " + MAX_ROI_BYTES + " bytes");
        }
        byte[] data = new byte[(int) behind];
        Buffers.readFully(in, data, data.length);
        PlaneWindow window = window(request);
        String layer = name + request.text("layer", MAX_TITLE);
        boolean points = request.flag("points");
        int[] sizes = request.counts("sizes", MAX_MARKS, 1, MAX_MARKS);
        java.nio.FloatBuffer values = ByteBuffer.wrap(data).order(java.nio.ByteOrder.nativeOrder()).asFloatBuffer();
        long total = 0;
        for (int size : sizes) {
            total += size;
        }
        if (total * 8 != data.length) {
            throw Request.malformed("marks of " + total + " vertices are not " + data.length + " bytes");
        }
        List<ij.gui.Roi> made = new ArrayList<>();
        for (int size : sizes) {
            float[] x = new float[size];
            float[] y = new float[size];
            for (int i = 0; i < size; i++) {
                x[i] = values.get();
                y[i] = values.get();
            }
            ij.gui.Roi roi = points || size == 1 ? new ij.gui.PointRoi(x, y, size)
                : new ij.gui.PolygonRoi(x, y, size, ij.gui.Roi.POLYLINE);
            roi.setStrokeColor(points ? java.awt.Color.CYAN : java.awt.Color.YELLOW);
            made.add(roi);
        }
        onEventThread(() -> {
            window.checkOpen();
            RoiSet.mark(layer, made, window);
            return true;
        });
        return done();
    }

    private Answer say(Request request) throws Exception {
        String text = request.text("text", MAX_TITLE);
        onEventThread(() -> {
            IJ.showStatus(text);
            return true;
        });
        return done();
    }

    private EditableRois editable(Request request) throws Request.RefusedException {
        EditableRois found = editable.get(request.text("layer", MAX_TITLE));
        if (found == null) {
            throw new Request.RefusedException("unknown", "there is no layer of this name that a person may draw in");
        }
        return found;
    }

    private Answer draw(Request request, InputStream in, long behind) throws Exception {
        if (behind > MAX_ROI_BYTES) {
            Buffers.drain(in, behind);
            throw Request.malformed("a ROI has at most " + MAX_ROI_BYTES + " bytes");
        }
        byte[] data = new byte[(int) behind];
        Buffers.readFully(in, data, data.length);
        EditableRois layer = editable(request);
        ij.gui.Roi roi = RoiSet.decode(data);
        onEventThread(() -> {
            layer.window().checkOpen();
            layer.draw(roi);
            return true;
        });
        return done();
    }

    private Answer erase(Request request) throws Exception {
        EditableRois layer = editable(request);
        String id = request.text("roi", MAX_TITLE);
        if (!onEventThread(() -> layer.erase(id))) {
            throw new Request.RefusedException("unknown", "there is no ROI " + quoted(id));
        }
        return done();
    }

    private Answer heldRois(Request request) throws Exception {
        String layer = name + request.text("layer", MAX_TITLE);
        Map<String, List<byte[]>> held = onEventThread(() -> RoiSet.held(layer));
        Answer answer = new Answer("rois");
        answer.pieces = new ArrayList<>();
        List<Object> planes = new ArrayList<>();
        for (Map.Entry<String, List<byte[]>> each : held.entrySet()) {
            String[] place = each.getKey().split(",");
            List<Object> sizes = new ArrayList<>();
            for (byte[] roi : each.getValue()) {
                sizes.add(roi.length);
                answer.pieces.add(roi);
            }
            Map<String, Object> plane = new LinkedHashMap<>();
            plane.put("c", Integer.parseInt(place[0]));
            plane.put("z", Integer.parseInt(place[1]));
            plane.put("t", Integer.parseInt(place[2]));
            plane.put("sizes", sizes);
            planes.add(plane);
        }
        return answer.with("planes", planes);
    }

    // The end

    private Answer quit() throws Exception {
        if (!owned) {
            throw new Request.RefusedException("refused", "a person has started this ImageJ: only a person ends it");
        }
        boolean unsaved = onEventThread(() -> {
            for (int id : WindowManager.getIDList() == null ? new int[0] : WindowManager.getIDList()) {
                if (WindowManager.getImage(id) != null && WindowManager.getImage(id).changes) {
                    return true;
                }
            }
            return false;
        });
        if (unsaved) {
            throw new Request.RefusedException("unsaved", "an image that a person has changed is not saved");
        }
        Answer answer = done();
        answer.quit = true;
        return answer;
    }

    /** Ends ImageJ in its own way, which saves its preferences. */
    static void end() {
        ImageJ main = IJ.getInstance();
        if (main == null) {
            System.exit(0);
        }
        main.exitWhenQuitting(true);
        main.quit();
    }
}
