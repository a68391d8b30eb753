"""Viewers on another computer: the bytes between a sink and a viewer go through an encrypted connection that is taken up again.

What a sink and its viewer say is a stream of bytes each way. Here it is cut into numbered chunks, which are kept until the
other computer has handed them on, and sent again after a connection was lost (:mod:`~mutoscope.viewers.remote.pipe`). The
sender's end (:mod:`~mutoscope.viewers.remote.dial`) is made and ended with a sink's connection; the viewer's end, the gate
(:mod:`~mutoscope.viewers.remote.gate`), is opened by a person, belongs to the viewer and ends with it. Both know each other by
keys (:mod:`~mutoscope.viewers.remote.keys`), which belong to the user.

Needs pyzmq; nothing else of Mutoscope imports it.
"""
