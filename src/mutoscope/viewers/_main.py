"""The process of a viewer: ``python -m mutoscope.viewers._main KIND NAME DESCRIPTOR``.

It leaves the process that started it, says through the descriptor when it can be reached, and writes its log to a file.
"""

from __future__ import annotations

import logging
import os
import signal
import sys

_LOG_BYTES = 1 << 20


def main() -> int:
    """Run the viewer until it ends."""
    kind, name, ready = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if os.fork():
        os._exit(0)  # the starter need not wait for the viewer, which may outlive it
    sys.path = [os.path.abspath(part) for part in sys.path]
    os.chdir("/")
    from mutoscope.frames import _os
    from mutoscope.model.errors import MutoscopeError
    from mutoscope.viewers.core import ViewerCore, log_file

    file = os.open(log_file(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    if not _os.lock_file(file):  # until it can be reached: so others know that it starts
        _tell(ready, "another one of this name is being started")
        return 1
    if os.fstat(file).st_size > _LOG_BYTES:
        os.ftruncate(file, 0)
    for number in (1, 2):
        os.dup2(file, number)
    os.close(file)
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {os.getpid()} %(levelname)s %(name)s: %(message)s")
    log = logging.getLogger(__name__)
    os.set_inheritable(ready, False)
    try:
        from mutoscope.viewers.registry import find_viewer

        _os.name_process(f"mutoscope:{name}")
        adapter = find_viewer(kind)()
        core = ViewerCore(adapter, kind, name)
        signal.signal(signal.SIGTERM, lambda *_: core.end("it was terminated"))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        adapter.open(name)
        core.start()
        _os.unlock_file(1)
    except Exception as error:
        log.exception("%s cannot start", name)
        _tell(ready, str(error) if isinstance(error, MutoscopeError) else f"{type(error).__name__}: {error}")
        return 1
    log.info("%s (%s) shows what comes", name, kind)
    _tell(ready, "ready")
    try:
        core.run()
    except Exception:
        log.exception("%s failed", name)
        return 1
    log.info("%s ends", name)
    return 0


def _tell(fd: int, text: str) -> None:
    try:
        os.write(fd, text.encode()[:4000])
    except BrokenPipeError:
        pass  # whoever started it has gone
    os.close(fd)


if __name__ == "__main__":
    sys.exit(main())
