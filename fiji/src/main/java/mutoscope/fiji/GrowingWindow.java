package mutoscope.fiji;

import ij.IJ;
import ij.ImageJ;
import ij.ImagePlus;
import ij.gui.ImageCanvas;
import ij.gui.ImageWindow;
import ij.gui.ScrollbarWithLabel;
import ij.gui.StackWindow;
import ij.plugin.frame.SyncWindows;
import java.awt.event.AdjustmentEvent;
import java.awt.event.InputEvent;
import java.awt.event.MouseWheelEvent;

/**
 * A window of ImageJ whose hyperstack may grow. ImageJ replaces a window by another one when the dimensions of its image change;
 * this one has sliders of its own instead, which follow. All of it happens on the event thread.
 */
final class GrowingWindow extends StackWindow {
    // ImageWindow's constructor calls methods of this class before these have values: 0 stands for that.
    private int channels;
    private int slices;
    private int frames;
    private boolean growing;

    GrowingWindow(ImagePlus image, ImageCanvas canvas) {
        super(image, canvas);
        follow(image.getNChannels(), image.getNSlices(), image.getNFrames());
    }

    /** Runs a change of the image's dimensions without ImageJ replacing this window. */
    void whileGrowing(Runnable change) {
        growing = true;
        try {
            change.run();
        } finally {
            growing = false;
        }
    }

    /** Has a slider for each axis that is longer than 1. */
    void follow(int newChannels, int newSlices, int newFrames) {
        Client.checkEventThread();
        boolean same = newChannels > 1 == channels > 1 && newSlices > 1 == slices > 1 && newFrames > 1 == frames > 1
            && channels > 0;
        channels = newChannels;
        slices = newSlices;
        frames = newFrames;
        if (same) {
            lengthen(cSelector, channels);
            lengthen(zSelector, slices);
            lengthen(tSelector, frames);
            return;
        }
        boolean animated = getAnimate();
        drop(cSelector);
        drop(zSelector);
        drop(tSelector);
        cSelector = slider(channels, 'c');
        zSelector = slider(slices, 'z');
        tSelector = slider(frames, 't');
        animationSelector = tSelector != null ? tSelector : zSelector != null ? zSelector : cSelector;
        int height = 0;
        for (ScrollbarWithLabel each : new ScrollbarWithLabel[] {cSelector, zSelector, tSelector}) {
            if (each != null) {
                height += each.getPreferredSize().height + ImageWindow.VGAP;
            }
        }
        setSliderHeight(height);
        running2 = animated;
        pack();
    }

    private static void lengthen(ScrollbarWithLabel slider, int length) {
        if (slider != null && slider.getMaximum() != length + 1) {
            slider.setMaximum(length + 1);
            slider.setBlockIncrement(Math.max(1, length / 10));
        }
    }

    private void drop(ScrollbarWithLabel slider) {
        if (slider != null) {
            remove(slider);
            slider.removeAdjustmentListener(this);
        }
    }

    private ScrollbarWithLabel slider(int length, char label) {
        if (length < 2) {
            return null;
        }
        ScrollbarWithLabel slider = new ScrollbarWithLabel(this, 1, 1, 1, length + 1, label);
        slider.addAdjustmentListener(this);
        slider.setFocusable(false);
        slider.setUnitIncrement(1);
        slider.setBlockIncrement(Math.max(1, length / 10));
        ImageJ main = IJ.getInstance();
        if (main != null) {
            slider.addKeyListener(main);
        }
        add(slider);
        return slider;
    }

    /** Goes to a place, one-based; 0 leaves an axis where it is. */
    @Override
    public void setPosition(int channel, int slice, int frame) {
        if (channels == 0 || imp == null) {
            return;
        }
        int c = Math.min(channel > 0 ? channel : imp.getChannel(), channels);
        int z = Math.min(slice > 0 ? slice : imp.getSlice(), slices);
        int t = Math.min(frame > 0 ? frame : imp.getFrame(), frames);
        if (imp.isLocked()) {
            IJ.showStatus("Image is locked");
            return;
        }
        boolean[] moved = {move(cSelector, c), move(zSelector, z), move(tSelector, t)};
        imp.updatePosition(c, z, t);
        imp.setSlice(((t - 1) * slices + z - 1) * channels + c);
        if (SyncWindows.getInstance() != null) {
            if (moved[0]) {
                SyncWindows.setC(this, c);
            }
            if (moved[1]) {
                SyncWindows.setZ(this, z);
            }
            if (moved[2]) {
                SyncWindows.setT(this, t);
            }
        }
    }

    private static boolean move(ScrollbarWithLabel slider, int value) {
        if (slider == null || slider.getValue() == value) {
            return false;
        }
        slider.setValue(value);
        return true;
    }

    @Override
    public synchronized void adjustmentValueChanged(AdjustmentEvent event) {
        setPosition(value(cSelector), value(zSelector), value(tSelector));
    }

    private static int value(ScrollbarWithLabel slider) {
        return slider == null ? 1 : slider.getValue();
    }

    @Override
    public void updateSliceSelector() {
        if (channels == 0 || imp == null) {
            return;
        }
        int index = imp.getCurrentSlice() - 1;
        int c = index % channels + 1;
        int z = index / channels % slices + 1;
        int t = Math.min(index / channels / slices + 1, frames);
        imp.updatePosition(c, z, t);
        move(cSelector, c);
        move(zSelector, z);
        move(tSelector, t);
    }

    @Override
    public void mouseWheelMoved(MouseWheelEvent event) {
        boolean zooming = (event.getModifiersEx() & InputEvent.CTRL_DOWN_MASK) != 0 || IJ.shiftKeyDown();
        if (zooming || !isHyperStack()) {
            super.mouseWheelMoved(event);
        } else if (event.getWheelRotation() != 0) {
            IJ.run(imp, event.getWheelRotation() > 0 ? "Next Slice [>]" : "Previous Slice [<]", "");
        }
    }

    @Override
    public boolean isHyperStack() {
        return channels > 1 || slices > 1 && frames > 1;
    }

    /** Whether the image still has the dimensions that it was given: a person may change them by ImageJ's own commands. */
    @Override
    public boolean validDimensions() {
        return growing || channels == 0 || matches();
    }

    boolean matches() {
        return imp != null && imp.getNChannels() == channels && imp.getNSlices() == slices && imp.getNFrames() == frames
            && imp.getStackSize() == channels * slices * frames;
    }

    @Override
    public String createSubtitle() {
        String whole = super.createSubtitle();
        if (channels == 0 || imp == null || !isHyperStack()) {
            return whole;
        }
        StringBuilder text = new StringBuilder();
        if (channels > 1) {
            text.append("c:").append(imp.getChannel()).append('/').append(channels).append(' ');
        }
        if (slices > 1) {
            text.append("z:").append(imp.getSlice()).append('/').append(slices).append(' ');
        }
        if (frames > 1) {
            text.append("t:").append(imp.getFrame()).append('/').append(frames).append(' ');
        }
        String label = imp.getStack().getShortSliceLabel(imp.getCurrentSlice());
        if (label != null && !label.isEmpty()) {
            text.append('(').append(label).append(')');
        }
        int facts = whole.indexOf("; ");
        return text.append(facts < 0 ? "" : whole.substring(facts)).toString();
    }
}
