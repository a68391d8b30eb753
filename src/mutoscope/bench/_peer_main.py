"""The main program of a bench's process: ``python -m mutoscope.bench._peer_main MODULE:FUNCTION DESCRIPTOR ARGUMENTS``."""

from __future__ import annotations

import importlib
import json
import signal
import socket
import sys

from mutoscope.bench.peers import Control


def main() -> None:
    """Run the role and hang up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the bench ends its processes itself
    module, _, name = sys.argv[1].partition(":")
    control = Control(socket.socket(fileno=int(sys.argv[2])))
    try:
        getattr(importlib.import_module(module), name)(control, **json.loads(sys.argv[3]))
    finally:
        control.close()


if __name__ == "__main__":
    main()
