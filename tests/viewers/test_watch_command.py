"""``mutoscope view`` of a running scope."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest
from test_page_pixels import image
from watch_lab import shows, viewer

import mutoscope as ms
from command_line import mutoscope
from mutoscope.model.errors import MutoscopeError
from mutoscope.viewers.announce import announced
from mutoscope.viewers.launch import find
from polling import until

SHAPE = (40, 56)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for the announcements of the test's own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def test_a_viewer_that_is_open_shows_the_scope_that_runs(tmp_path: Path):
    sources = {"eye": ms.SourceSettings(SHAPE, "uint16", rate_hz=20)}
    with ms.Scope(sources=sources, record=tmp_path / "run.ome.zarr", page=True) as scope, viewer(name="mine") as sink:
        until(lambda: announced("page"))
        (page,) = announced("page")
        for number, what in enumerate([(), ("run",), (scope.page_url or "",)], 1):
            done = mutoscope(tmp_path, "view", "model", *what, "--name", "mine")
            assert (done.code, done.stdout) == (0, "mine shows run.ome.zarr: eye\n"), done.describe()
            scope.source("eye").push(image("uint16", SHAPE, number))
            shows(sink, "eye", image("uint16", SHAPE, number))
        done = mutoscope(tmp_path, "view", "browser")
        assert (done.code, done.stdout) == (0, f"{page.address}?token={page.token}\n"), done.describe()


def test_a_viewer_without_descriptors_says_so_and_goes_on(tmp_path: Path):
    sources = {"eye": ms.SourceSettings(SHAPE, "uint16", rate_hz=20)}
    with ms.Scope(sources=sources, record=tmp_path / "run.ome.zarr", page=True) as scope, viewer(name="mine") as sink:
        until(lambda: announced("page"))
        found = find("mine")
        assert found is not None
        open_now = max(int(fd) for fd in os.listdir(f"/proc/{found.pid}/fd")) + 1
        allowed = resource.prlimit(found.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(found.pid, resource.RLIMIT_NOFILE, (open_now, allowed[1]))
        with pytest.raises(MutoscopeError, match="Too many open files"):
            sink.watch()
        resource.prlimit(found.pid, resource.RLIMIT_NOFILE, allowed)
        assert sink.watch().state == "live"
        assert find("mine") == found
        scope.source("eye").push(image("uint16", SHAPE, 1))
        shows(sink, "eye", image("uint16", SHAPE, 1))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("model",), "no scope of yours runs on this computer with a page"),
        (("browser",), "no scope of yours runs on this computer with a page"),
        (("model", "8123"), "no scope of yours runs on this computer with a page"),
        (("model", "http://127.0.0.1/"), "the link of a scope is that of its page"),
        (("model", "./run.ome.zarr"), "a stored data set is shown by `view browser run.ome.zarr`"),
        (("model", "run.ome.zarr"), "there is nothing at run.ome.zarr, and no scope that runs here is called run.ome.zarr"),
        (("model", "http://127.0.0.1:99999/?token=a"), "the link of a scope is that of its page"),
        (("model", "--listen", "0", "--name", ""), "the name of a viewer is 1 to 64 printable characters"),
        (("model", "--listen", "0", "--name", "a/b"), "the name of a viewer is 1 to 64 printable characters"),
        (("model", "--listen", "0", "--name", "x" * 300), "the name of a viewer is 1 to 64 printable characters"),
        (("napari", "run.ome.zarr"), "run.ome.zarr"),
        (("napari", "--port", "8000"), "napari has none"),
        (("browser", "--port", "8000"), "--port and --public-url are of the page on which a browser shows a stored data set"),
        (("nothing",), "there is no viewer 'nothing'"),
        (("napari", ""), "what is to be shown has no name"),
    ],
)
def test_what_cannot_be_shown_is_said_in_a_sentence(tmp_path: Path, line: tuple[str, ...], words: str):
    done = mutoscope(tmp_path, "view", *line)
    assert done.code == 2, done.describe()
    assert words in done.stderr, done.describe()
    assert len(done.stderr.splitlines()) == 1, done.describe()
