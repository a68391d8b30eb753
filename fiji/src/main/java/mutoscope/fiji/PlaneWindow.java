package mutoscope.fiji;

import ij.CompositeImage;
import ij.IJ;
import ij.ImagePlus;
import ij.ImageStack;
import ij.measure.Calibration;
import ij.process.ImageProcessor;
import ij.process.LUT;
import java.awt.event.WindowAdapter;
import java.awt.event.WindowEvent;
import java.util.Arrays;

/**
 * An image window of a client: its life, and how it looks. Where its planes are is said by those that extend it.
 *
 * <p>{@link #take}, {@link #put} and {@link #forget} are for the client's thread, everything else for the event thread.
 */
abstract class PlaneWindow {
    static final String MISSING = "missing";

    final Pixels form;
    final Client client;
    private CountingCanvas canvas;
    private GrowingWindow window;
    private ImagePlus image;
    private double[][] applied;

    /** The dimensions of a window: axes in ImageJ's order. */
    static final class Shape {
        final int width;
        final int height;
        final int channels;
        final int slices;
        final int frames;

        Shape(int width, int height, int channels, int slices, int frames) {
            this.width = width;
            this.height = height;
            this.channels = channels;
            this.slices = slices;
            this.frames = frames;
        }

        long planes() {
            return (long) channels * slices * frames;
        }

        /** ImageJ's number of a place, from 0; the place is one-based. */
        int index(int c, int z, int t) {
            return ((t - 1) * slices + z - 1) * channels + c - 1;
        }
    }

    PlaneWindow(Pixels form, Client client) {
        this.form = form;
        this.client = client;
    }

    /** Opens the window; called once, by the constructors of those that extend this. */
    final void open(String title, ImageStack stack, boolean composite) {
        Client.checkEventThread();
        Shape shape = shape();
        ImagePlus plain = new ImagePlus(title, stack);
        plain.setDimensions(shape.channels, shape.slices, shape.frames);
        image = composite && form != Pixels.RGB ? new CompositeImage(plain, CompositeImage.COLOR) : plain;
        image.setOpenAsHyperStack(true);
        applied = new double[shape.channels][];
        calibrate(image.getCalibration());
        canvas = new CountingCanvas(image);
        window = new GrowingWindow(image, canvas);
        window.addWindowListener(new WindowAdapter() {
            @Override
            public void windowClosed(WindowEvent event) {
                if (isClosed()) {
                    release();
                    client.notice();
                }
            }
        });
        image.changes = false;
    }

    // What those that extend it say

    /** Its dimensions. */
    abstract Shape shape();

    /** Lets go of the pixels of a window that is closed; its client may never ask for it again. */
    abstract void release();

    /** An array that nobody looks at, for a plane that is to come. */
    abstract Object take();

    /** Has a plane, to be seen from {@link #show} on. */
    abstract void put(int index, Object plane, String label);

    /** Has a plane be missing from {@link #show} on. */
    abstract void forget(int index);

    /** Shows what has come. */
    abstract void show() throws Request.RefusedException;

    /** Planes that have not come, of those that are shown. */
    abstract int missing();

    abstract boolean isMissing(int index);

    // Its life

    /** Whether a person has closed the window. */
    final boolean isClosed() {
        return image.getWindow() == null;
    }

    /** Whether the image is still the one that was made here: a person may have cropped or converted it. */
    final boolean isIntact() {
        return image.getWindow() == window && window.matches() && image.getWidth() == shape().width
            && image.getHeight() == shape().height && image.getBitDepth() == form.bits;
    }

    final ImagePlus image() {
        return image;
    }

    final CountingCanvas canvas() {
        return canvas;
    }

    final GrowingWindow window() {
        return window;
    }

    /** On the event thread, where nobody closes it meanwhile. */
    final void checkOpen() throws Request.RefusedException {
        Client.checkEventThread();
        if (isClosed()) {
            throw new Request.RefusedException("closed", "a person has closed this window");
        }
        if (!isIntact()) {
            throw new Request.RefusedException("altered", "a person has changed the size, the axes or the type of this window");
        }
    }

    // How it looks

    /** The look-up table and range of a channel, and whether both are as they were set here. */
    static final class Style {
        private final LUT lut;
        private final boolean kept;

        private Style(LUT lut, boolean kept) {
            this.lut = lut;
            this.kept = kept;
        }
    }

    /** The styles of all channels, for {@link #restyle}. */
    final Style[] styles() {
        Style[] found = new Style[form == Pixels.RGB ? 0 : applied.length];
        for (int c = 1; c <= found.length; c++) {
            found[c - 1] = new Style(lut(c), applied[c - 1] != null && Arrays.equals(applied[c - 1], range(c)));
        }
        return found;
    }

    /** Gives channels the styles that they had before the axes changed; {@code from} is their number then, or -1. */
    final void restyle(Style[] before, int[] from) {
        double[][] old = applied;
        applied = new double[from.length][];
        for (int c = 1; c <= from.length; c++) {
            int was = from[c - 1];
            if (was >= 0 && was < before.length) {
                apply(c, before[was].lut);
                applied[c - 1] = old[was] == null ? null : before[was].kept ? range(c) : old[was];
            }
        }
    }

    /** A copy of a channel's look-up table, with its range. */
    final LUT lut(int channel) {
        if (image instanceof CompositeImage) {
            LUT found = (LUT) ((CompositeImage) image).getChannelLut(channel).clone();
            double[] range = range(channel);
            found.min = range[0];
            found.max = range[1];
            return found;
        }
        ImageProcessor processor = image.getProcessor();
        return new LUT(processor.getLut().getColorModel(), processor.getMin(), processor.getMax());
    }

    /** The range of a channel as it is painted: of the channel that is shown, a person's choice is in its processor. */
    final double[] range(int channel) {
        if (image instanceof CompositeImage && channel != image.getChannel()) {
            LUT found = ((CompositeImage) image).getChannelLut(channel);
            return new double[] {found.min, found.max};
        }
        ImageProcessor processor = image.getProcessor();
        return new double[] {processor.getMin(), processor.getMax()};
    }

    /**
     * Sets look-up table and range of a channel. A range that a person has changed since stays.
     *
     * @return whether the range was set
     */
    final boolean style(int channel, byte[] colours, double low, double high) throws Request.RefusedException {
        checkOpen();
        double[] before = applied[channel - 1];
        boolean free = before == null || Arrays.equals(before, range(channel));
        LUT lut = lut(channel);
        if (colours != null) {
            double[] range = {lut.min, lut.max};
            lut = new LUT(Arrays.copyOf(colours, 256), Arrays.copyOfRange(colours, 256, 512), Arrays.copyOfRange(colours, 512, 768));
            lut.min = range[0];
            lut.max = range[1];
        }
        if (free) {
            lut.min = low;
            lut.max = high;
        }
        apply(channel, lut);
        if (free) {
            applied[channel - 1] = range(channel);
        }
        return free;
    }

    private void apply(int channel, LUT lut) {
        if (image instanceof CompositeImage) {
            ((CompositeImage) image).setChannelLut(lut, channel);
            if (channel == image.getChannel()) {
                image.getProcessor().setMinAndMax(lut.min, lut.max);
            }
        } else {
            image.getProcessor().setLut(lut);
            image.getProcessor().setMinAndMax(lut.min, lut.max);
            image.getStack().setColorModel(lut);
        }
    }

    /** Lays channels over each other, or shows one at a time. */
    final void overlay(boolean all) throws Request.RefusedException {
        checkOpen();
        if (image instanceof CompositeImage) {
            ((CompositeImage) image).setMode(all && applied.length > 1 ? CompositeImage.COMPOSITE : CompositeImage.COLOR);
        }
    }

    final void setScale(double pixelSize, double depth, String unit, double interval, String timeUnit) throws Request.RefusedException {
        checkOpen();
        Calibration calibration = new Calibration(image);
        calibration.pixelWidth = pixelSize;
        calibration.pixelHeight = pixelSize;
        calibration.pixelDepth = depth;
        calibration.setUnit(unit);
        calibration.frameInterval = interval;
        calibration.setTimeUnit(timeUnit);
        calibrate(calibration);
        image.setCalibration(calibration);
        image.repaintWindow();
    }

    private void calibrate(Calibration calibration) {
        if (form == Pixels.I16) {
            calibration.setSigned16BitCalibration();
        }
    }

    final void setTitle(String title) throws Request.RefusedException {
        checkOpen();
        if (!title.equals(image.getTitle())) {
            image.setTitle(title);
        }
    }

    private static void point(ImageProcessor processor, Object plane) {
        if (processor != null) {
            processor.setPixels(plane);
            processor.setSnapshotPixels(null);
        }
    }

    /** Has the processors that ImageJ paints with look at a plane's array, where it is shown now. */
    final void refresh(int index, Object plane) {
        int channels = shape().channels;
        if (index == image.getCurrentSlice() - 1) {
            point(image.getProcessor(), plane);
        }
        if (image instanceof CompositeImage && index / channels == (image.getCurrentSlice() - 1) / channels) {
            point(((CompositeImage) image).getProcessor(index % channels + 1), plane);
        }
    }

    /** Closes the window without asking anybody. */
    final void close() {
        Client.checkEventThread();
        image.changes = false;
        image.close();
        IJ.showStatus("");
    }
}
