"""A conversion that a test ends with SIGKILL: python convert_child.py SOURCE TARGET [overwrite]."""

from __future__ import annotations

import os
import sys

from mutoscope import storage


def tell(done: int, total: int, name: str) -> None:
    os.write(1, f"{done} {total} {name}\n".encode())


if __name__ == "__main__":
    storage.convert(sys.argv[1], sys.argv[2], overwrite="overwrite" in sys.argv[3:], progress=tell)
    os.write(1, b"done\n")
