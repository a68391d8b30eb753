"""The supervisor and its workers: who starts, watches, restarts and ends the processes of a scope.

Owns the supervisor's process (started by :class:`~mutoscope.runtime.client.ScopeClient`, ended by its ``close``), and in it the
rings, tables and the status table of the scope, which it creates and closes; the worker processes, which it starts and reaps;
and the folder ``<name>.mutoscope`` with log, audit and ledger, which it locks while it runs.
"""

from mutoscope.runtime.control import SetSetting
from mutoscope.runtime.ledger import Ledger
from mutoscope.runtime.rois import ImageRoi, RoiChanged, RoiList, RoiRemoved
from mutoscope.runtime.spec import DatasetState, Restart, ScopeInfo, ScopeState, StreamInfo
from mutoscope.runtime.worker import Worker, WorkerSettings

__all__ = [
    "DatasetState",
    "ImageRoi",
    "Ledger",
    "Restart",
    "RoiChanged",
    "RoiList",
    "RoiRemoved",
    "ScopeInfo",
    "ScopeState",
    "SetSetting",
    "StreamInfo",
    "Worker",
    "WorkerSettings",
]
