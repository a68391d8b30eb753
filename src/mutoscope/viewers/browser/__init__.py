"""The viewer in the browser: a page of its own for what pipelines send, with a slider for each axis.

The viewer's process serves it as the page of a scope is served (:mod:`mutoscope.viewers.page`), from a thread beside the one
that places items: no browser ever holds a sender. The adapter owns the page's socket and its token, which end with it.
"""
