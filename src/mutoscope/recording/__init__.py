"""Recording: the worker that stores a camera's stream, and the sink that stores what pymmcore-plus acquires.

The supervisor makes a scope's data set, its recorders write and close the images; a :class:`Sink` does both for itself.
"""

from mutoscope.recording.sink import FrameTarget, Sink

__all__ = ["FrameTarget", "Sink"]
