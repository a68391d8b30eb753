"""The command that shows things: ``mutoscope view``."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from mutoscope.cli._keys import listen_as
from mutoscope.cli._plate import _progress as progress_bar
from mutoscope.cli._values import whole
from mutoscope.model.errors import ConfigError

__all__ = ["add_view"]

BROWSER, NAPARI, FIJI = "browser", "napari", "fiji"


def add_view(app: App) -> None:
    """Add the command."""
    app.command(view)


def view(
    viewer: Annotated[str, Parameter(help="What shows it: napari, browser, fiji, …")],
    what: Annotated[
        str | None,
        Parameter(
            help="A recording or a plate (OME-Zarr, or an OME-TIFF); or a running scope: its name, or the beginning of it, the "
            "port of its page, or the page's link. By default your running scope."
        ),
    ] = None,
    /,
    *,
    listen: Annotated[
        str | None,
        Parameter(help="Instead: let senders on other computers in here, as tcp://0.0.0.0:5680. A port alone: from this one."),
    ] = None,
    name: Annotated[str | None, Parameter(help="The viewer's name, if there are several of its kind.")] = None,
    port: Annotated[
        int | None, Parameter(converter=whole, help="Of the page of a data set; by default any that is free.")
    ] = None,
    public_url: Annotated[
        str | None, Parameter(help="The address of such a page behind a proxy, such as https://lab.example/scope1/.")
    ] = None,
) -> int:
    """Show a running scope in a viewer, which goes on; or a stored data set until Ctrl-C; or let a viewer listen."""
    if what == "":
        raise ConfigError("what is to be shown has no name: give the path of a data set, or the name of a scope, or nothing")
    if listen is not None:
        if what is not None or port is not None or public_url is not None:
            raise ConfigError("--listen is for a viewer that others send to: it takes no data set, and no option of the page")
        return listen_as(viewer, listen, name)
    if (port is not None or public_url is not None) and viewer != BROWSER:
        raise ConfigError(f"--port and --public-url are of the browser's page: {viewer} has none")
    if (port is not None or public_url is not None) and not _is_stored(what):
        raise ConfigError("--port and --public-url are of the page on which a browser shows a stored data set")
    if what is not None and _is_stored(what):
        if os.sep not in what and not os.path.lexists(what):
            raise ConfigError(f"there is nothing at {what}, and {_no_scope_called(what)}")
        return _show_stored(viewer, Path(what), name, port or 0, public_url)
    return _open_page(what) if viewer == BROWSER else _watch(viewer, what, name)


def _is_stored(what: str | None) -> bool:
    """Whether a path is meant, and not a scope."""
    if what is None or "://" in what:
        return False
    from mutoscope.viewers.announce import announced

    scopes = [page.name for page in announced("page")]
    return os.path.exists(what) or os.sep in what or not (what.isdigit() or any(name.startswith(what) for name in scopes))


def _no_scope_called(name: str) -> str:
    """Say that no running scope is meant, and which there are."""
    from mutoscope.viewers.announce import announced

    scopes = ", ".join(sorted(page.name for page in announced("page")))
    return f"no scope that runs here is called {name}" + (f": there is {scopes}" if scopes else "")


def _show_stored(viewer: str, dataset: Path, name: str | None, port: int, public_url: str | None) -> int:
    from mutoscope.app.report import check_dataset

    if viewer not in (BROWSER, NAPARI, FIJI):
        raise ConfigError(f"a stored data set is shown by `view browser {dataset}`, `view napari …` or `view fiji …`")
    if name is not None:
        raise ConfigError("--name is of a viewer that shows a running scope, or that listens")
    check_dataset(dataset)
    if viewer == FIJI:
        from mutoscope.viewers.fiji.stored import show_stored as show_in_imagej
        from mutoscope.viewers.stored import stored_images

        with progress_bar(f"mutoscope view fiji {dataset.name}") as show:
            images = stored_images(dataset, show)
        show_in_imagej(dataset, images, lambda _: _announce(f"ImageJ shows {dataset}\nCtrl-C ends it"))
        return 0
    if viewer == NAPARI:
        from mutoscope.viewers.napari.stored import show_stored

        show_stored(dataset, lambda _: _announce(f"napari shows {dataset}\nCtrl-C ends it"))
        return 0
    from mutoscope.viewers.page.settings import PageSettings, check_available

    settings = PageSettings(port=port, public_url=public_url)
    check_available()
    from mutoscope.viewers.page.dataset_page import DatasetPage

    page = DatasetPage(dataset, settings)
    page.serve(lambda: _announce(f"the page: {page.url}\nCtrl-C ends it"))
    return 0


def _open_page(scope: str | None) -> int:
    from mutoscope.viewers.watching.scopes import address_of

    address = address_of(scope)
    link = f"{address.url}?token={address.token}"
    print(link)
    if sys.stdout.isatty() and any(os.environ.get(screen) for screen in ("DISPLAY", "WAYLAND_DISPLAY")):
        webbrowser.open(link)
    return 0


def _watch(viewer: str, scope: str | None, name: str | None) -> int:
    from mutoscope.viewers.registry import check_viewer
    from mutoscope.viewers.sink import open_viewer
    from mutoscope.viewers.watching.scopes import address_of

    check_viewer(viewer)
    address_of(scope)  # before a window is opened for nothing
    with open_viewer(viewer, name, required=True) as sink:
        seen = sink.watch(scope)
    cameras = ", ".join(stream.name for stream in seen.streams) or "no camera"
    looks = "" if seen.role == "control" else ", by a link that only looks"
    print(f"{sink.name} shows {seen.scope}: {cameras}{looks}")
    return 0


def _announce(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
