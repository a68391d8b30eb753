"""A small scope with a page, and what the tests of its page ask of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mutoscope as ms
from mutoscope.cameras import SimulatedCamera


@contextmanager
def scope_with_page(folder: Path) -> Iterator[ms.Scope]:
    """A scope that runs, records into the folder, and has acquired nothing yet."""
    camera = SimulatedCamera(shape=(16, 24), rate_hz=100)
    with ms.Scope(camera=camera, record=folder / "run.ome.zarr", page=True) as scope:
        yield scope


def url_of(scope: ms.Scope) -> str:
    """The address of its page, with the token."""
    assert scope.page_url is not None
    return scope.page_url


def page_of(scope: ms.Scope) -> Any:
    """What the supervisor says of the page's process."""
    return next(each for each in scope.status() if each.name == "page")
