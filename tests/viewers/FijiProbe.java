// ImageJ with Mutoscope's live receiver, asked by ImageJ's own means: each line on standard input is a command, its answer is one
// line on standard output. Images are named by their titles; fields are separated by tabs.
import ij.IJ;
import ij.ImagePlus;
import ij.WindowManager;
import ij.gui.Roi;
import ij.io.FileSaver;
import ij.plugin.frame.RoiManager;
import java.awt.AWTEvent;
import java.awt.EventQueue;
import java.awt.Toolkit;
import java.awt.event.WindowEvent;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;

public class FijiProbe {
    static volatile int closed;
    static final java.util.concurrent.BlockingQueue<String> ran = new java.util.concurrent.LinkedBlockingQueue<>();

    public static void main(String[] arguments) throws Exception {
        Toolkit.getDefaultToolkit().addAWTEventListener(event -> {
            if (event.getID() == WindowEvent.WINDOW_CLOSED) {
                closed++;
            }
        }, AWTEvent.WINDOW_EVENT_MASK);
        mutoscope.fiji.Start.main(arguments);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = in.readLine()) != null;) {
            String[] words = line.split("\t");
            if (words[0].equals("ran")) { // not on the event thread, which a command may need
                System.out.println("answer\t" + ran.take());
                System.out.flush();
                continue;
            }
            String[] answer = {""};
            EventQueue.invokeAndWait(() -> {
                try {
                    answer[0] = answer(words);
                } catch (Exception error) {
                    answer[0] = "failed\t" + error;
                }
            });
            System.out.println("answer\t" + answer[0]);
            System.out.flush();
        }
    }

    static ImagePlus image(String title) {
        for (int id : WindowManager.getIDList()) {
            if (WindowManager.getImage(id).getTitle().equals(title)) {
                return WindowManager.getImage(id);
            }
        }
        throw new IllegalArgumentException("no image " + title);
    }

    static String answer(String[] words) throws Exception {
        ImagePlus image = words.length > 1 && !words[1].isEmpty() && !words[0].equals("roi") ? image(words[1]) : null;
        RoiManager manager = RoiManager.getInstance();
        switch (words[0]) {
            case "save": {
                boolean saved = image.getStackSize() > 1 ? new FileSaver(image).saveAsTiffStack(words[2])
                    : new FileSaver(image).saveAsTiff(words[2]);
                image.setTitle(words[1]);
                image.changes = false;
                return String.valueOf(saved);
            }
            case "window":
                return System.identityHashCode(image.getWindow()) + "\t" + closed + "\t" + image.getWindow().getTitle() + "\t"
                    + image.getWindow().isVisible() + "\t" + image.isHyperStack() + "\t" + image.getWindow().createSubtitle();
            case "go":
                image.setPosition(Integer.parseInt(words[2]), Integer.parseInt(words[3]), Integer.parseInt(words[4]));
                return image.getC() + "\t" + image.getZ() + "\t" + image.getT() + "\t" + image.getCurrentSlice();
            case "range":
                image.setDisplayRange(Double.parseDouble(words[2]), Double.parseDouble(words[3]));
                image.updateAndDraw();
                return "done";
            case "pixels": {
                image.setSlice(Integer.parseInt(words[2]));
                java.util.zip.CRC32 sum = new java.util.zip.CRC32();
                java.nio.ByteBuffer bytes = java.nio.ByteBuffer.allocate(2 * image.getWidth() * image.getHeight());
                bytes.asShortBuffer().put((short[]) image.getProcessor().getPixels());
                sum.update(bytes.array());
                return sum.getValue() + "\t" + image.getStack().getSliceLabel(image.getCurrentSlice());
            }
            case "command":
                new Thread(() -> {
                    String told;
                    try {
                        IJ.redirectErrorMessages();
                        WindowManager.setTempCurrentImage(image);
                        IJ.run(image, words[2], words.length > 3 ? words[3] : "");
                        WindowManager.setTempCurrentImage(null);
                        ImagePlus made = WindowManager.getCurrentImage();
                        told = made.getTitle();
                        if (made != image) {
                            made.changes = false;
                        }
                    } catch (Throwable error) {
                        told = String.valueOf(error);
                    } finally {
                        WindowManager.setTempCurrentImage(null);
                    }
                    for (java.awt.Frame each : java.awt.Frame.getFrames()) {
                        if (each.getTitle().equals("Exception") && each.isVisible()) { // what a person sees of a failed command
                            told = ((ij.text.TextWindow) each).getTextPanel().getText();
                            each.dispose();
                        }
                    }
                    ran.add(told.replace('\n', ' ').replace('\t', ' '));
                }).start();
                return "done";
            case "titles": {
                StringBuilder found = new StringBuilder();
                for (int id : WindowManager.getIDList() == null ? new int[0] : WindowManager.getIDList()) {
                    found.append(found.length() == 0 ? "" : "\t").append(WindowManager.getImage(id).getTitle());
                }
                return found.toString();
            }
            case "person draws": { // a rectangle, and T
                WindowManager.setCurrentWindow(image.getWindow());
                image.setRoi(new Roi(Integer.parseInt(words[2]), Integer.parseInt(words[3]), Integer.parseInt(words[4]),
                    Integer.parseInt(words[5])));
                IJ.run(image, "Add to Manager", "");
                return String.valueOf(RoiManager.getInstance().getCount());
            }
            case "person drags": { // chosen in the list, and moved
                WindowManager.setCurrentWindow(image.getWindow());
                manager.select(image, Integer.parseInt(words[2]));
                Roi roi = image.getRoi();
                roi.setLocation(roi.getXBase() + Integer.parseInt(words[3]), roi.getYBase() + Integer.parseInt(words[4]));
                roi.notifyListeners(ij.gui.RoiListener.MOVED);
                return "done";
            }
            case "person deletes":
                WindowManager.setCurrentWindow(image.getWindow());
                manager.select(image, Integer.parseInt(words[2]));
                manager.runCommand("Delete");
                return "done";
            case "reset rois":
                manager.reset();
                return "done";
            case "roi": {
                java.awt.geom.Rectangle2D bounds = manager.getRoi(Integer.parseInt(words[1])).getFloatBounds();
                return "roi\t" + Math.round(bounds.getX()) + "\t" + Math.round(bounds.getY()) + "\t" + Math.round(bounds.getWidth())
                    + "\t" + Math.round(bounds.getHeight());
            }
            case "close":
                image.changes = false;
                image.close();
                return "done";
            case "convert":
                IJ.run(image, words[2], words.length > 3 ? words[3] : "");
                return "done";
            case "rois": {
                StringBuilder found = new StringBuilder().append(manager == null ? 0 : manager.getCount());
                for (int i = 0; manager != null && i < manager.getCount(); i++) {
                    Roi roi = manager.getRoi(i);
                    found.append("\t").append(manager.getName(i)).append("|").append(roi.getCPosition()).append("|")
                        .append(roi.getZPosition()).append("|").append(roi.getTPosition()).append("|").append(roi.getPosition())
                        .append("|").append(roi.getTypeAsString());
                }
                return found.toString();
            }
            case "save rois":
                manager.deselect();
                return String.valueOf(manager.save(words[2]));
            case "overlay":
                return String.valueOf(image.getOverlay() == null ? 0 : image.getOverlay().size());
            case "draw": {
                Roi roi = new Roi(1, 2, 3, 4);
                roi.setName(words[2]);
                (manager == null ? new RoiManager() : manager).addRoi(roi);
                return "done";
            }
            case "new":
                ImagePlus made = IJ.createImage(words[2], 8, 8, 1, 8);
                made.show();
                made.changes = true;
                return "done";
            case "quit":
                IJ.getInstance().quit();
                return "done";
            case "hang until":
            case "close when":
                System.out.println("hanging");
                System.out.flush();
                while (!new java.io.File(words[2]).exists()) {
                    Thread.sleep(10);
                }
                if (image != null) {
                    image.changes = false;
                    image.close();
                }
                return "done";
            default:
                throw new IllegalArgumentException(words[0]);
        }
    }
}
