"""The main program of the supervisor's process."""

from __future__ import annotations

import logging
import os
import socket
import sys

import msgspec

from mutoscope.runtime.spec import SupervisorSpec
from mutoscope.runtime.supervisor import Supervisor


def main(payload_fd: int) -> int:
    """Run the scope that the inherited payload describes; returns the exit code."""
    with open(payload_fd, "rb") as file:
        spec = msgspec.msgpack.decode(file.read(), type=SupervisorSpec)
    return Supervisor(spec.scope, socket.socket(fileno=spec.program_fd)).run()


if __name__ == "__main__":
    code = main(int(sys.argv[1]))
    logging.shutdown()
    os._exit(code)
