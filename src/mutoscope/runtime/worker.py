"""The worker as its author writes it: ``setup``, ``step``, ``teardown`` and handlers, all in one thread of one process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from mutoscope.bus import Command, Event
from mutoscope.frames import FrameReader, FrameWriter, TableReader, TableWriter
from mutoscope.model import arguments
from mutoscope.model.errors import ConfigError, ScopeStateError
from mutoscope.runtime.spec import Restart, ScopeInfo, ScopeState

if TYPE_CHECKING:
    import numpy.typing as npt

    from mutoscope.runtime._child import WorkerHost

__all__ = ["Worker", "WorkerSettings"]

EventT = TypeVar("EventT", bound=Event)


class Worker:
    """A process of the scope. Subclass it; every method runs in the main thread of the worker's own process.

    ``setup`` runs once, then ``step`` again and again. Handlers (``@handles``) run between steps, and while a step waits in
    ``next``, ``read``, ``send`` or ``request``. A :class:`~mutoscope.model.errors.FrameTimeoutError` that leaves ``step``
    means that there was nothing to do. Any other exception ends the process; the supervisor reports it and restarts the
    worker as ``restart`` says. Processes that a worker starts end with it, unless they have a session of their own.

    Attributes
    ----------
    restart : Restart
        What happens when the process dies.
    moves : bool
        True for anything that can move: it is then restarted only with consent, and must define :meth:`safe_state`.
    kind : str
        ``"worker"``; cameras and recorders name themselves.
    """

    restart: ClassVar[Restart] = Restart()
    moves: ClassVar[bool] = False
    kind: ClassVar[str] = "worker"
    _host: WorkerHost | None = None

    # -- what an author defines

    def setup(self) -> None:
        """Open readers, tables and devices. Called once; what it raises is reported before any frame flows."""

    def step(self) -> None:
        """Do one piece of work. Without one of its own, a worker only answers commands.

        This one waits for commands, and returns when those that had come are done, or raises FrameTimeoutError when none comes.
        """
        self._host_or_raise().wait_for_commands(until=lambda: True)

    def teardown(self) -> None:
        """Release what ``setup`` opened. Called once on an orderly stop."""

    def safe_state(self) -> None:
        """Bring what can move to rest.

        Called before an orderly ``teardown``, after an unhandled exception, and, with ``moves``, in the successor of a process
        that died before its ``setup``: it must work whether or not ``setup`` has run.
        """

    # -- what it may use

    @property
    def name(self) -> str:
        """The worker's name in its scope."""
        return self._host_or_raise().name

    @property
    def stopping(self) -> bool:
        """True once the scope asked this worker to end; a long step should look at it."""
        return self._host_or_raise().stopping

    @property
    def scope(self) -> ScopeInfo:
        """Cameras (shape, dtype, pixel size), workers and tables of the scope."""
        return self._host_or_raise().info

    @property
    def state(self) -> ScopeState:
        """The shared state: acquisition on, saving on, folder, mode, settings. Current also after a restart."""
        return self._host_or_raise().state

    @property
    def log(self) -> logging.Logger:
        """A logger whose lines reach ``scope.log`` and the user's program."""
        return logging.getLogger(f"mutoscope.worker.{self.name}")

    def reader(
        self,
        camera: str = "camera",
        *,
        policy: str = "latest",
        leases: int = 2,
        on_full: str = "drop",
        lag_limit: int | None = None,
        at_most_hz: float | None = None,
        group: str | None = None,
        start: str = "new",
        key: str | None = None,
    ) -> FrameReader:
        """Read a camera's frames.

        Parameters
        ----------
        camera : str
            A name of ``self.scope.cameras``.
        policy : {"latest", "every", "share"}
            The newest frame, every frame, or each frame to one member of `group`. The last two are lossless: call
            ``reader.commit(frame)`` when a frame is done with, or its slot and those of all later ones stay taken.
        leases : int
            How many frames may be held at once.
        on_full : {"drop", "block", "detach"}
            For ``"every"``: what happens when this reader falls behind. ``"drop"`` counts the ids that it misses; ``"block"``
            holds the camera (exposures that it misses meanwhile are counted as ``missed``); ``"detach"`` ends the reader past
            `lag_limit` frames. ``"share"`` has the first two.
        at_most_hz : float, optional
            For ``"latest"``: no more frames than this a second.
        start : {"new", "oldest"}
            Begin with the next frame, or with the oldest one in the ring.
        key : str, optional
            Names this reader within the worker, where a worker has several on one camera; a successor of a dead worker goes on
            where its predecessor's reader of the same key had committed.

        Returns
        -------
        FrameReader
            Its waits are interrupted by commands, which are handled, and then go on.
        """
        return self._host_or_raise().open_reader(
            camera, key or camera, policy, leases, on_full, lag_limit, at_most_hz, group, start
        )

    def writer(self, stream: str) -> FrameWriter:
        """Become the producer of a camera's ring (camera workers do)."""
        return self._host_or_raise().open_writer(stream)

    def table(self, name: str, dtype: npt.DTypeLike, capacity: int = 65536) -> TableWriter:
        """Create a table of typed rows that everyone may read, or continue the one that a predecessor wrote.

        Parameters
        ----------
        name : str
            Unique in the scope.
        dtype : numpy structured dtype
            The columns.
        capacity : int
            Rows kept in memory; a reader that is further behind counts what it lost.
        """
        return self._host_or_raise().open_table(name, dtype, capacity)

    def table_reader(self, name: str, *, start: str = "new", timeout_s: float = 10.0) -> TableReader:
        """Read another worker's table; waits up to `timeout_s` seconds until its owner has created it."""
        return self._host_or_raise().open_table_reader(name, start, timeout_s)

    def send(self, command: Command, to: str | None = None, timeout_s: float = 10.0) -> None:
        """Send a command; returns once its receiver has it."""
        self._host_or_raise().endpoint.send(command, to=to, timeout_s=timeout_s)

    def request(self, command: Command, to: str | None = None, timeout_s: float = 10.0) -> Any:
        """Send a command and return what its handler returned; the handler's exception is raised here."""
        return self._host_or_raise().endpoint.request(command, to=to, timeout_s=timeout_s)

    def broadcast(self, command: Command, timeout_s: float = 10.0) -> dict[str, Any]:
        """Send a command to every worker that handles it; returns each one's answer or exception by name."""
        return self._host_or_raise().endpoint.broadcast(command, timeout_s=timeout_s)

    def publish(self, event: Event) -> None:
        """Publish an event to whoever subscribed."""
        self._host_or_raise().endpoint.publish(event)

    def subscribe(self, event: type[EventT], callback: Callable[[EventT], None]) -> None:
        """Call `callback` with each event of this type, and first with the last one published."""
        self._host_or_raise().endpoint.subscribe(event, callback)

    def quit(self, reason: str = "asked to quit") -> None:
        """End the scope in order. Asking twice is asking once."""
        self._host_or_raise().quit(reason)

    def _host_or_raise(self) -> WorkerHost:
        if self._host is None:
            raise ScopeStateError(
                f"{type(self).__name__} is not running in a scope: give the class to Scope(workers=[…]) instead of calling it"
            )
        return self._host


class WorkerSettings:
    """A worker class with a name and settings of its own, for several instances of one class.

    Parameters
    ----------
    worker : type[Worker]
        The class.
    name : str, optional
        Its name in the scope; by default the class's.
    settings : dict, optional
        Values for class attributes, for example ``{"threshold": 500.0}``.
    restart : Restart, optional
        Instead of the class's own policy.

    Raises
    ------
    ConfigError
        If `worker` is not a Worker class or has no attribute of a name in `settings`.
    """

    def __init__(
        self,
        worker: type[Worker],
        *,
        name: str | None = None,
        settings: dict[str, Any] | None = None,
        restart: Restart | None = None,
    ) -> None:
        if not (isinstance(worker, type) and issubclass(worker, Worker)):
            raise ConfigError(
                f"workers take Worker classes, not {worker!r}: define class …(mutoscope.Worker) and give the class"
            )
        if restart is not None and not isinstance(restart, Restart):
            raise ConfigError(f"restart is a mutoscope.Restart, such as Restart(mode='never'), not {arguments.shown(restart)}")
        self.worker = worker
        self.name = worker.__name__ if name is None else arguments.text("the name of a worker", name) or worker.__name__
        self.settings = arguments.mapping("settings", settings, "{'threshold': 500.0}")
        self.restart = restart or worker.restart
        for key in self.settings:
            if not hasattr(worker, arguments.text("the name of a setting", key)) or key.startswith("_"):
                known = ", ".join(sorted(k for k in vars(worker) if not k.startswith("_") and not callable(getattr(worker, k))))
                raise ConfigError(f"{worker.__name__} has no setting {key!r}; it has: {known or 'none'}")
        if worker.moves and worker.safe_state is Worker.safe_state:
            raise ConfigError(f"{worker.__name__} can move (moves = True): define its safe_state()")
        if worker.moves and self.restart.mode == "always":
            self.restart = Restart(mode="consent", limit=self.restart.limit, within_s=self.restart.within_s)
