"""Viewers: what shows frames, tables and ROIs to people, live or stored.

A viewer is a process of its own. It takes the newest frame of a stream whenever it can show one
(:class:`~mutoscope.viewers.live.LiveFeed`), and so never holds a camera; it owns its readers and closes them. The page of a
scope is one of its workers; its socket belongs to the supervisor.
"""

from mutoscope.viewers.display import Display
from mutoscope.viewers.live import Consumer, LiveFeed

__all__ = ["Consumer", "Display", "LiveFeed"]
