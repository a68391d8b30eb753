// Opens files with plain ImageJ, without a window, and prints what it found:
// name, width, height, channels, slices, frames, bits, and the sum over all pixels of value * (position + 1) as a double.
import ij.IJ;
import ij.ImagePlus;
import ij.process.ImageProcessor;

public class ImageJCheck {
    public static void main(String[] paths) {
        for (String path : paths) {
            ImagePlus image = IJ.openImage(path);
            if (image == null) {
                System.out.println(path + " unreadable");
                continue;
            }
            double sum = 0;
            long position = 0;
            for (int plane = 1; plane <= image.getStackSize(); plane++) {
                ImageProcessor pixels = image.getStack().getProcessor(plane);
                for (int i = 0; i < pixels.getPixelCount(); i++) {
                    double value = image.getBitDepth() == 24
                        ? (pixels.get(i) & 0xffffff) : image.getCalibration().getCValue(pixels.getf(i));
                    sum += value * (position++ % 1000 + 1);
                }
            }
            System.out.println(path + " " + image.getWidth() + " " + image.getHeight() + " " + image.getNChannels() + " "
                + image.getNSlices() + " " + image.getNFrames() + " " + image.getBitDepth() + " " + sum);
        }
    }
}
