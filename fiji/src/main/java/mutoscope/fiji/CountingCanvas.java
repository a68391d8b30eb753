package mutoscope.fiji;

import ij.ImagePlus;
import ij.gui.ImageCanvas;
import java.awt.Graphics;
import java.awt.Graphics2D;
import java.awt.image.BufferedImage;
import java.util.concurrent.atomic.AtomicLong;

/** A canvas that counts how often it was painted on the screen. */
final class CountingCanvas extends ImageCanvas {
    /** How often all canvases were. */
    static final AtomicLong ALL = new AtomicLong();
    final AtomicLong paints = new AtomicLong();
    private boolean picturing;

    CountingCanvas(ImagePlus image) {
        super(image);
    }

    @Override
    public void paint(Graphics graphics) {
        super.paint(graphics);
        if (!picturing) {
            paints.incrementAndGet();
            ALL.incrementAndGet();
        }
    }

    /** What a person sees on this canvas, as a picture. On the event thread. */
    BufferedImage picture() {
        Client.checkEventThread();
        BufferedImage picture = new BufferedImage(Math.max(1, getWidth()), Math.max(1, getHeight()), BufferedImage.TYPE_INT_RGB);
        if (getWidth() < 1 || getHeight() < 1) {
            return picture;
        }
        Graphics2D graphics = picture.createGraphics();
        picturing = true;
        try {
            paint(graphics);
        } finally {
            picturing = false;
            graphics.dispose();
        }
        return picture;
    }
}
