"""The page in the command line: its address is printed, and where it cannot be served that is one line."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

import mutoscope as ms
from command_line import mutoscope
from mutoscope.cameras import SimulatedCamera
from mutoscope.cli import _commands

PROGRAM = """
import mutoscope as ms

if __name__ == "__main__":
    camera = ms.cameras.SimulatedCamera(shape=(16, 16), rate_hz=200)
    with ms.Scope(camera=camera) as scope:
        print("has a page:", scope.page_url is not None)
        scope.acquire(frames=5)
"""


def test_a_demonstration_prints_the_address_of_its_page(tmp_path: Path):
    done = mutoscope(tmp_path, "demo", "--frames", "20", "--shape", "64", "64", "--out", "one")
    assert done.code == 0, done.describe()
    assert done.stderr.splitlines()[0].startswith("the page: http://127.0.0.1:"), done.describe()
    assert "RuntimeWarning" not in done.stderr
    done = mutoscope(tmp_path, "demo", "--frames", "20", "--shape", "64", "64", "--out", "two", "--without-page")
    assert "the page" not in done.stderr, done.describe()


def test_a_program_gets_a_page_that_says_nothing_of_one(tmp_path: Path):
    (tmp_path / "scope.py").write_text(PROGRAM, encoding="utf-8")
    for options, expected in (((), "True"), (("--headless",), "False")):
        done = mutoscope(tmp_path, "run", *options, "scope.py")
        assert done.code == 0, done.describe()
        assert f"has a page: {expected}" in done.stdout, done.describe()
        assert ("the page: http" in done.stderr) is (expected == "True"), done.describe()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--port", "70000"), "65535 or less"),
        (("--public-url", "lab"), "a public URL is an address"),
        (("--port", "1", "--headless"), "leave out"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, words: tuple[str, ...], expected: str):
    done = mutoscope(tmp_path, "demo", "--frames", "1", *words)
    assert done.code == 2, done.describe()
    assert expected in done.stderr, done.describe()
    assert len(done.stderr.splitlines()) == 1, done.describe()


def test_without_what_serves_it_a_command_goes_on_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    assert importlib.util.find_spec("aiohttp") is None
    assert _commands._page(False, None, None) is None
    said = capsys.readouterr().err
    assert said == "without the live page: the page needs aiohttp: pip install aiohttp\n"
    with pytest.raises(ms.errors.BackendUnavailableError, match="pip install aiohttp"):
        ms.Scope(camera=SimulatedCamera(), page=True)
