package mutoscope.fiji;

import ij.ImageJ;
import java.awt.GraphicsEnvironment;

/** Starts ImageJ with the receiver: {@code java -cp ij.jar:Mutoscope_.jar mutoscope.fiji.Start FOLDER}. */
public final class Start {
    private Start() {}

    /**
     * Runs until ImageJ is ended.
     *
     * @param arguments the folder that ImageJ's plug-ins, macros and look-up tables are in
     */
    public static void main(String[] arguments) {
        if (GraphicsEnvironment.isHeadless()) {
            System.err.println("Mutoscope: ImageJ needs a screen: DISPLAY names none");
            System.exit(2);
        }
        // port0: a second ImageJ of the same person does not take this one's place
        ImageJ.main(arguments.length > 0 ? new String[] {"-ijpath", arguments[0], "-port0"} : new String[] {"-port0"});
        new LiveReceiver().run("");
    }
}
