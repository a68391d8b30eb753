// Opens hyperstacks with plain ImageJ, without a window, and prints for each: width, height, channels, slices, frames, bits,
// pixel width, depth, unit, frame interval; then for each slice its label, and the sum of value * (position % 1000 + 1).
import ij.IJ;
import ij.ImagePlus;
import ij.measure.Calibration;
import ij.process.ImageProcessor;

public class FijiCheck {
    public static void main(String[] paths) {
        for (String path : paths) {
            ImagePlus image = IJ.openImage(path);
            if (image == null) {
                System.out.println("unreadable");
                continue;
            }
            Calibration known = image.getCalibration();
            System.out.println(image.getWidth() + " " + image.getHeight() + " " + image.getNChannels() + " " + image.getNSlices()
                + " " + image.getNFrames() + " " + image.getBitDepth() + " " + known.pixelWidth + " " + known.pixelDepth + " "
                + ("µm".equals(known.getUnit()) || "um".equals(known.getUnit()) ? "um" : known.getUnit()) + " "
                + known.frameInterval);
            for (int plane = 1; plane <= image.getStackSize(); plane++) {
                ImageProcessor pixels = image.getStack().getProcessor(plane);
                double sum = 0;
                for (int i = 0; i < pixels.getPixelCount(); i++) {
                    sum += pixels.getf(i) * (i % 1000 + 1.0);
                }
                String label = image.getStack().getSliceLabel(plane);
                System.out.println(sum + "|" + (label == null ? "" : label.split("\n")[0]));
            }
        }
    }
}
