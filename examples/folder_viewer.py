"""A viewer of your own: it keeps a folder with a NumPy file for each layer, for people who look with another program.

``python examples/folder_viewer.py`` sends some planes to it. `mutoscope.viewers.suite.ViewerSuite` passes it.
"""

import heapq
import itertools
import json
import os
import tempfile
import threading
import time
from pathlib import Path

import msgspec
import numpy as np

from mutoscope import viewers
from mutoscope.model.errors import ConfigError
from mutoscope.model.roi import Roi
from mutoscope.viewers import HeldLayer, ImageLayer, RoiLayer, ViewerAdapter


class FolderViewer(ViewerAdapter):
    kind = "folder_viewer:FolderViewer"
    alone_s = 10.0  # it has no window that a person could close

    def __init__(self):
        self.turn, self.calls, self.numbers, self.stopped = threading.Condition(), [], itertools.count(), False
        self.layers = {}  # what is said of each layer; its pixels and ROIs are in the folder

    # The loop of a window system, in a few lines.

    def open(self, title):
        self.temporary = tempfile.TemporaryDirectory(prefix="folder-viewer-", dir=os.environ.get("XDG_RUNTIME_DIR"))
        self.folder = Path(self.temporary.name)

    def run(self):
        while not self.stopped:
            with self.turn:
                due = self.calls[0][0] - time.monotonic() if self.calls else None
                if due is None or due > 0:
                    self.turn.wait(due)
                    continue
                callback = heapq.heappop(self.calls)[2]
            callback()

    def call_soon(self, callback, delay_s=0.0):
        with self.turn:
            heapq.heappush(self.calls, (time.monotonic() + delay_s, next(self.numbers), callback))
            self.turn.notify()

    def stop(self):
        with self.turn:
            self.stopped = True
            self.turn.notify()

    def close(self):
        self.temporary.cleanup()

    # What is shown.

    def show_images(self, layer: ImageLayer):
        np.save(self.folder / f"{layer.id}.npy", layer.array)
        self.layers[layer.id] = layer

    def show_rois(self, layer: RoiLayer):
        planes = [[list(index), msgspec.to_builtins(list(rois))] for index, rois in layer.rois.items()]
        (self.folder / f"{layer.id}.json").write_text(json.dumps(planes))
        self.layers[layer.id] = layer

    def remove(self, layer_id):
        if self.layers.pop(layer_id, None):
            for file in self.folder.glob(f"{layer_id}.*"):
                file.unlink()

    def screenshot(self):
        return np.zeros((48, 64, 3), np.uint8)  # there is no screen

    # What it holds, as the suite asks for it: read from the files.

    def held_layers(self):
        return [self.held(layer) for layer in sorted(self.layers.values(), key=lambda layer: (layer.window, layer.order))]

    def held(self, layer):
        said = {"id": layer.id, "name": layer.name, "window": layer.window}
        said |= {"axis_names": list(layer.axis_names), "scale": list(layer.scale)}
        if isinstance(layer, RoiLayer):
            return HeldLayer(kind="rois", shape=[len(values) for values in layer.values], **said)
        array = np.load(self.folder / f"{layer.id}.npy", mmap_mode="r")
        return HeldLayer(
            kind="images",
            shape=list(array.shape),
            dtype=array.dtype.name,
            contrast=[(channel, *limits) for channel, limits in layer.contrast.items()],
            luts=list(layer.luts.items()),
            missing=int(layer.missing.sum()),
            **said,
        )

    def held_plane(self, layer_id, index):
        if layer_id not in self.layers:
            raise ConfigError(f"there is no layer {layer_id!r}")
        return np.load(self.folder / f"{layer_id}.npy", mmap_mode="r")[index]

    def held_rois(self, layer_id, index):
        planes = json.loads((self.folder / f"{layer_id}.json").read_text())
        on_plane = [
            rois for where, rois in planes if all(at in (None, wanted) for at, wanted in zip(where, index, strict=True))
        ]
        return [msgspec.convert(roi, Roi) for rois in on_plane for roi in rois]


if __name__ == "__main__":
    with viewers.open("folder_viewer:FolderViewer", "folder", filenames="imagexpress", required=True) as viewer:
        for z in (1, 2, 3):
            viewer.save(np.full((64, 80), 100 * z, "uint16"), f"A01_s1_w1_z{z}_t1.tif", source="raw")
        print(viewer.wait(timeout_s=60).summary())
        (layer,) = viewer.layers()
        print(layer.name, layer.axis_names, layer.shape)
        viewer.close(leave_open=False)
