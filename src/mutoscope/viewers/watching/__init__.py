"""A running scope in any viewer: its newest frames, its tables as points and tracks, and its ROIs, which can be changed there.

A viewer watches as a client of the scope's page, here or on another computer, and so never holds a camera. The viewer's core
owns the connections (:mod:`~mutoscope.viewers.watching.watches`); each is a thread of its own
(:mod:`~mutoscope.viewers.watching.watch`) and ends with the viewer, never with the program that asked for it.
"""
