package mutoscope.fiji;

import ij.IJ;
import ij.plugin.PlugIn;
import java.io.IOException;
import javax.swing.UIManager;

/** Plugins &gt; Mutoscope &gt; Live receiver: shows what Mutoscope's programs of the same user send. */
public class LiveReceiver implements PlugIn {
    /** In the environment of an ImageJ that a program has started, and may therefore end: its name. */
    private static final String STARTED = "MUTOSCOPE_STARTED";
    /** Among the defaults of Swing, which all class loaders share, while a receiver runs: ImageJ may load a plug-in again. */
    private static final String RUNNING = "mutoscope.receiver";

    @Override
    public void run(String argument) {
        synchronized (UIManager.class) {
            Object running = UIManager.get(RUNNING);
            if (argument != null && argument.equals("stop")) {
                stop(running);
            } else if (running != null) {
                IJ.showStatus("Mutoscope's live receiver runs already");
            } else {
                start();
            }
        }
    }

    private static void start() {
        try {
            Receiver receiver = Receiver.start(System.getenv(STARTED));
            Runnable stop = receiver::stop;
            UIManager.put(RUNNING, stop);
            IJ.showStatus("Mutoscope's live receiver listens on " + receiver.address());
        } catch (IOException error) {
            Receiver.log("the live receiver cannot start: " + error.getMessage());
        }
    }

    private static void stop(Object running) {
        if (running instanceof Runnable) {
            ((Runnable) running).run();
            UIManager.put(RUNNING, null);
            IJ.showStatus("Mutoscope's live receiver has stopped");
        }
    }
}
