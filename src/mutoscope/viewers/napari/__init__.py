"""napari as a viewer: in a process of its own, or inside the napari that a person has open.

`adapter` shows layers of the display model as layers of napari; `host` has the receiver inside an open napari; `plugin` is what
napari finds as its plug-in. Windows belong to napari, layers to the adapter; a person may change and remove any of them.
Importing this package imports neither napari nor Qt.
"""

from __future__ import annotations
