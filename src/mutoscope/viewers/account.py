"""What became of the items of a sink, or of all senders of a viewer."""

from __future__ import annotations

import msgspec

__all__ = ["Counts", "Progress", "Runs", "SenderProgress", "Watched", "WatchedStream"]


class Counts(msgspec.Struct, kw_only=True):
    """An account: ``sent = displayed + failed + pending``, and what was not sent is `dropped`.

    Parameters
    ----------
    sent : int
        Handed over to the viewer, or on their way.
    received : int
        Of these, copied by the viewer.
    displayed : int
        Of these, shown, or replaced by a later item of the same place before the screen was painted.
    failed : int
        Refused by the viewer, or lost with it; `Progress.failures` has the reasons.
    dropped : int
        Not sent: no viewer, or no room in the window in time.
    pending : int
        Sent, and neither displayed nor failed.
    """

    sent: int = 0
    received: int = 0
    displayed: int = 0
    failed: int = 0
    dropped: int = 0

    @property
    def pending(self) -> int:
        """Sent, and neither displayed nor failed."""
        return self.sent - self.displayed - self.failed

    def add(self, other: Counts) -> None:
        """Add another account to this one."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class SenderProgress(msgspec.Struct, kw_only=True):
    """What a viewer knows of one sender.

    Parameters
    ----------
    program : str
        Its program.
    host : str
        Its computer.
    pid : int
        Its process.
    connected : bool
        Whether it is still there.
    images, rois : Counts
        Its account; what it has dropped as far as it has told.
    peer : str
        Of one on another computer: as whom its key is trusted, and its address.
    """

    program: str
    host: str
    pid: int
    connected: bool
    images: Counts
    rois: Counts
    peer: str = ""


class Progress(msgspec.Struct, kw_only=True):
    """The account of one sink, or of all senders of a viewer.

    Parameters
    ----------
    viewer : str
        The viewer's name.
    state : str
        ``"connected"``, ``"connecting"`` (to another computer also anew), ``"not connected"``, ``"hung"`` (not answering in
        time), ``"closed"`` (by a person).
    images, rois : Counts
        The account of images, and of lists of ROIs.
    oldest_pending_s : float
        How long the oldest pending item has been waiting; 0 without one.
    latency_ms : float or None
        Median from `save` to the screen, of the last thousands of items.
    latency_p99_ms : float or None
        99 of 100 were faster.
    failures : list of (name, reason)
        The newest hundred items that failed or were lost; of a viewer empty.
    senders : list of SenderProgress
        Of a viewer: each of its senders, the newest hundred of those that are gone.
    refused : int
        Of a viewer: connections that it did not let in, or ended for what came.
    remark : str
        Of a viewer: what else there is to say, such as that no browser is connected; else empty.
    """

    viewer: str
    state: str
    images: Counts
    rois: Counts
    oldest_pending_s: float = 0.0
    latency_ms: float | None = None
    latency_p99_ms: float | None = None
    failures: list[tuple[str, str]] = []
    senders: list[SenderProgress] = []
    refused: int = 0
    remark: str = ""

    def summary(self) -> str:
        """Return it in one line.

        Examples
        --------
        >>> images = Counts(sent=3, received=3, displayed=2)
        >>> Progress(viewer="napari", state="connected", images=images, rois=Counts()).summary()
        'napari, connected: 2 of 3 images displayed, 1 pending'
        """
        parts = []
        for what, counts in (("images", self.images), ("lists of ROIs", self.rois)):
            if counts.sent or counts.dropped:
                parts.append(f"{counts.displayed:,} of {counts.sent + counts.dropped:,} {what} displayed")
                for word in ("pending", "failed", "dropped"):
                    if getattr(counts, word):
                        parts.append(f"{getattr(counts, word):,} {word}")
        remark = f" ({self.remark})" if self.remark else ""
        return f"{self.viewer}, {self.state}: {', '.join(parts) or 'nothing sent'}{remark}"


class WatchedStream(msgspec.Struct, kw_only=True):
    """What a viewer has shown of a camera.

    Parameters
    ----------
    name : str
        Of the camera.
    frame_id : int
        The frame that it shows; 0 before the first.
    shown : int
        Frames that it has shown.
    skipped : int
        Frames that were published meanwhile and not shown, as newer ones took their place.
    age_ms, age_p99_ms : float or None
        From the moment a frame reached the camera's process to when the viewer's layer had it: median and 99th percentile of
        the last thousand; None where the scope runs on another computer.
    """

    name: str
    frame_id: int = 0
    shown: int = 0
    skipped: int = 0
    age_ms: float | None = None
    age_p99_ms: float | None = None


class Watched(msgspec.Struct, kw_only=True):
    """A scope that a viewer watches.

    Parameters
    ----------
    scope : str
        Its name.
    address : str
        Of its page, without the token.
    state : {"connecting", "live", "no connection", "ended"}
        What goes on: a connection that is lost comes again by itself; a scope that has ended does not.
    problem : str
        Why it is not live; empty if it is.
    role : str
        ``"control"``, or ``"view"`` for a link that only looks.
    streams : list of WatchedStream
        Its cameras.
    """

    scope: str
    address: str
    state: str
    problem: str = ""
    role: str = ""
    streams: list[WatchedStream] = []


class Runs:
    """Ids that mostly follow each other, as (first, count)."""

    def __init__(self) -> None:
        self.runs: list[tuple[int, int]] = []

    def add(self, number: int) -> None:
        """Add an id."""
        if self.runs:
            first, count = self.runs[-1]
            if first + count == number:
                self.runs[-1] = (first, count + 1)
                return
        self.runs.append((number, 1))

    def take(self) -> list[tuple[int, int]]:
        """Return them, and begin anew."""
        taken, self.runs = self.runs, []
        return taken
