"""What importing costs: fresh interpreters take turns, 15 of each kind; medians of the whole process in ms."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

STATEMENTS = {
    "numpy and msgspec": "import numpy, msgspec",
    "mutoscope": "import mutoscope",
    "mutoscope, with what a first program uses": (
        "import mutoscope as ms; ms.Scope, ms.Worker, ms.Command, ms.cameras.SimulatedCamera"
    ),
}
ROUNDS = 15


def milliseconds(statement: str) -> float:
    """Return how long a fresh interpreter takes for a statement, its own start included."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return (time.perf_counter() - begin) * 1e3


if __name__ == "__main__":
    taken: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for _ in range(ROUNDS):
        for name, statement in STATEMENTS.items():
            taken[name].append(milliseconds(statement))
    for name, values in taken.items():
        sys.stdout.write(f"{name}: {statistics.median(values):.0f} ms\n")
