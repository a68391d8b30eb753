package mutoscope.fiji;

import ij.ImagePlus;
import java.util.List;

/** A window of a stored data set: a hyperstack of its whole size, whose planes its client reads as they are looked at. */
final class StoredStack extends PlaneWindow {
    private final Shape shape;
    private final StoredPlanes planes;

    StoredStack(String title, Pixels form, Shape shape, boolean composite, Client client) {
        super(form, client);
        this.shape = shape;
        planes = new StoredPlanes(form, shape, new StoredPlanes.Source() {
            @Override
            public void wanted() {
                client.notice();
            }

            @Override
            public boolean waitsForEventThread() {
                return client.waitsForEventThread();
            }

            @Override
            public void came(int index) {
                repaint(index);
            }
        });
        open(title, planes, composite);
    }

    @Override
    Shape shape() {
        return shape;
    }

    @Override
    void release() {
        planes.release();
    }

    /** Its client is gone. */
    void end() {
        planes.end("the program that reads this data set has ended");
    }

    @Override
    Object take() {
        return form.allocate(shape.width * shape.height);
    }

    @Override
    void put(int index, Object plane, String label) {
        planes.put(index, plane, label);
    }

    @Override
    void forget(int index) {
        planes.put(index, null, MISSING);
    }

    void fail(int index, String why) {
        planes.fail(index, why);
    }

    List<Integer> wanted(int count) {
        return planes.wanted(count);
    }

    @Override
    void show() throws Request.RefusedException {
        checkOpen();
    }

    private void repaint(int index) {
        if (isClosed() || !isIntact()) {
            return;
        }
        ImagePlus image = image();
        refresh(index, planes.copy(index));
        image.updateAndDraw();
        image.repaintWindow();
        image.changes = false;
    }

    @Override
    int missing() {
        return planes.missing();
    }

    @Override
    boolean isMissing(int index) {
        return planes.isMissing(index);
    }
}
