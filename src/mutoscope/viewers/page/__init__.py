"""The live page: a worker of the scope that serves it to any browser, by HTTP and one WebSocket a client.

What the page and a browser say to each other is written in ``docs/page-protocol.md``. The supervisor owns the listening socket
and the tokens; the worker owns its feeds, readers, clients and history. Everything that needs aiohttp is imported when the page
begins to serve.
"""

from mutoscope.viewers.page.settings import PageSettings

__all__ = ["PageSettings"]
