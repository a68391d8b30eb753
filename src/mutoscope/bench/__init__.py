"""Measurements and fault runs: each bench against a physical floor in the same run, each fault against the whole account.

``mutoscope bench NAME`` runs one of the modules here. :mod:`~mutoscope.bench.harness` says how they measure,
:mod:`~mutoscope.bench.peers` how they start and end their processes. A bench owns what it starts: processes, sockets and memory
are gone when it returns, whatever happened.
"""

from mutoscope.bench.harness import Bench, Figure, Machine, Ratio, Report, Rounds, Spread, describe_machine, touched
from mutoscope.bench.peers import Peers

__all__ = ["Bench", "Figure", "Machine", "Peers", "Ratio", "Report", "Rounds", "Spread", "describe_machine", "touched"]
