"""Sinks in bad surroundings, and given what cannot be sent: nobody hangs, and every item is accounted for."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from adapters import GATE
from viewer_senders import image, name

from mutoscope import viewers
from mutoscope.frames import _os
from mutoscope.model.errors import ConfigError, ViewerUnavailableError
from mutoscope.model.filenames import Components, NameParser, get_parser
from mutoscope.model.roi import Polygon, Roi
from mutoscope.viewers import ViewerSink, items, wire
from mutoscope.viewers.announce import announced
from mutoscope.viewers.launch import find, greet
from polling import until

HERE = Path(__file__).parent
PATIENCE_S = 60.0
TRIANGLE = Polygon([(0.0, 0.0), (0.0, 5.0), (5.0, 0.0)])


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv(GATE, str(tmp_path / "gate"))
    paths = [str(HERE), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    return tmp_path / "mutoscope"


@pytest.fixture
def opened() -> Iterator[Callable[..., ViewerSink]]:
    """Open viewers, which end with the test."""
    sinks: list[ViewerSink] = []

    def take(*arguments: Any, **options: Any) -> ViewerSink:
        sinks.append(viewers.open(*arguments, **{"timeout_s": PATIENCE_S, **options}))
        return sinks[-1]

    yield take
    for sink in sinks:
        ViewerSink(sink.name, kind=sink._settings.kind, timeout_s=PATIENCE_S).close(leave_open=False)
        sink.close()


class Huge(NameParser):
    """Reads a number, however large, and text, however long."""

    name = "huge"

    def parse(self, filename: str) -> Components | None:
        stem = Path(filename).stem
        return Components(field=int(stem)) if stem.isdigit() else Components(well=stem)


# -- what cannot be sent


@pytest.mark.parametrize(
    ("data", "words", "options"),
    [
        (image(1), "source has at most", {"source": "s" * 5000}),
        ([], "images_dir has at most", {"images_dir": "/images" * 1000}),
        ([], "images_dir is the path", {"images_dir": b"/images"}),
        ([Roi("\udc80", TRIANGLE)], "one of its ROIs cannot be sent", {}),
        ([Roi("1", TRIANGLE, "\ud800")], "one of its ROIs cannot be sent", {}),
        ([Roi("1", None)], "a NoneType is no geometry", {}),  # type: ignore[arg-type]
    ],
)
def test_what_no_message_can_hold_is_an_error_before_it_is_counted(
    opened: Callable[..., ViewerSink], data: Any, words: str, options: dict[str, Any]
) -> None:
    sink = opened("model")
    with pytest.raises(ConfigError, match=words):
        sink.save(data, name(1), **options)
    sink.save(image(2), name(2), until="displayed")
    account = sink.progress()
    assert (account.images.sent, account.images.displayed, account.rois.sent) == (1, 1, 0)
    assert viewers.progress("model").refused == 0


@pytest.mark.parametrize("stem", ["9" * 20, "w" * 300])
def test_components_that_no_message_can_hold(opened: Callable[..., ViewerSink], stem: str) -> None:
    sink = opened("model", filenames=Huge())
    with pytest.raises(ConfigError, match="is more than can be sent; nothing was sent"):
        sink.save_batch([image(1), image(2)], ["7.tif", f"{stem}.tif"])
    sink.save(image(1), "7.tif", until="displayed")
    assert (sink.progress().images.sent, viewers.progress("model").refused) == (1, 0)


def test_questions_that_cannot_be_asked(opened: Callable[..., ViewerSink]) -> None:
    sink = opened("model")
    sink.save(image(1), name(1), until="displayed")
    for source in ("\udc80", "s" * (1 << 21)):
        with pytest.raises(ConfigError, match="sent"):
            sink.clear(source)
    assert (sink.progress().state, viewers.progress("model").refused) == ("connected", 0)


@pytest.mark.parametrize("kind", ["model", "browser"])
def test_planes_that_are_not_there_cost_nothing_that_is_on_its_way(kind: str, opened: Callable[..., ViewerSink]) -> None:
    sink = opened(kind, "planes", filenames="imagexpress")
    sink.save(image(0), name(0), source="raw")
    sink.save([Roi("r", TRIANGLE)], name(0), source="rois")
    layers = {each.kind: each for each in sink.layers()}
    for number in range(1, 30):
        sink.save(image(number), name(number), source="more")
    for what, ask in (("images", sink.plane), ("rois", sink.rois)):
        axes = len(layers[what].axis_names) - 2
        for index in ((), (0,) * (axes + 1), (-1, *[0] * (axes - 1)), (99, *[0] * (axes - 1))):
            with pytest.raises(ConfigError, match=r"^there is no plane \(.*, whose axes before \(y, x\) have the lengths \["):
                ask(layers[what], index)
        for index in (0, "0", ("a",), (0.5,)):
            with pytest.raises(ConfigError, match="an index is a whole number for each axis before"):
                ask(layers[what], index)  # type: ignore[arg-type]
        for layer in (layers[what].id, None, layers["rois" if what == "images" else "images"]):
            with pytest.raises(ConfigError, match=f"a layer of {what} is asked for, one of those that layers"):
                ask(layer, (0,) * axes)  # type: ignore[arg-type]
    account = sink.wait()
    assert (account.images.displayed, account.images.failed) == (30, 0)


def test_colour_that_is_none_is_said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "_said_no_colour", set())
    item = items.item_of(np.zeros((30, 40, 3), np.float32), "A01_s1_w1.tif", get_parser("imagexpress"))
    assert isinstance(item, items.ImageItem)
    assert (item.rgb, item.axes) == (False, [("z", 1)])
    assert "'A01_s1_w1.tif': the last axis of (30, 40, 3) of float32 is taken for x, not for colour" in caplog.text


def test_several_viewers_of_one_name_are_told_apart(opened: Callable[..., ViewerSink]) -> None:
    assert repr(opened("model", "same")) == "ViewerSink('same', kind='model', state='connected')"
    opened("browser", "same")
    with pytest.raises(ConfigError, match=r"several viewers are called 'same' \(browser, model\)"):
        viewers.progress("same")
    with pytest.raises(ViewerUnavailableError, match=r"no viewer is called 'other'; open: 'same', 'same'"):
        viewers.progress("other")


def test_names_and_folders_that_are_no_text(opened: Callable[..., ViewerSink]) -> None:
    """As Python has the bytes of file names that are not UTF-8."""
    sink = opened("model")
    sink.save(image(1), "/plate\udcb5/" + name(1), source="raw \udcb5")
    sink.save([Roi("1", TRIANGLE)], name(1), source="nuclei", images_dir="/plate\udcb5")
    assert sink.wait(PATIENCE_S).rois.displayed == 1
    images, rois = sink.layers()
    assert images.name == "raw ���"
    assert rois.name == "raw ��� ROIs"


def test_a_program_whose_name_is_no_text(opened: Callable[..., ViewerSink], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/home/\udcb5scope.py"])
    sink = opened("model")
    sink.save(image(1), name(1), until="displayed")
    assert sink.progress().images.displayed == 1


def test_a_sink_that_drops_sends_what_is_larger_than_its_window(opened: Callable[..., ViewerSink]) -> None:
    sink = opened("model", policy="drop", window_bytes=1 << 16)
    large = np.arange(6_000_000, dtype=np.uint32).reshape(2000, 3000)
    sink.save(large, name(1), until="displayed")
    assert (sink.progress().images.displayed, sink.progress().images.dropped) == (1, 0)
    (layer,) = sink.layers()
    assert (sink.plane(layer, [0] * (len(layer.shape) - 2)) == large).all()


def test_items_that_no_sink_would_send_are_accounted_for(opened: Callable[..., ViewerSink]) -> None:
    """By one who knows the token: each of these ends its connection, and the account of the viewer has nothing pending."""
    opened("model")
    entry = find("model")
    assert entry is not None
    form = wire.Form([4, 5], "<u2", False)
    whole = wire.Image(1, "a.tif", "raw", "", {"t": 1}, [], form, wire.BEHIND, 40, 1)
    hello = wire.Hello(wire.WIRE_VERSION, entry.token, "send", 1, "here", "rascal", False, {})
    begun = [wire.frame(msgspec.structs.replace(whole, id=number, nbytes=0)) for number in range(1, 100)]
    for sent in (
        wire.frame(whole, 10) + bytes(10),
        wire.frame(msgspec.structs.replace(whole, at=0)),
        (wire.frame(whole, 40) + bytes(40)) * 2,
        b"".join(begun),
    ):
        sock, _ = greet(entry, hello, [], PATIENCE_S)
        with sock:
            sock.settimeout(PATIENCE_S)
            sock.sendall(sent)
            while sock.recv(1 << 16):
                pass
    until(lambda: viewers.progress("model").refused == 4)
    until(lambda: viewers.progress("model").images.pending == 0)
    images = viewers.progress("model").images
    assert (images.sent, images.displayed) == (68, 1)


# -- what goes wrong around it


def test_a_folder_of_announcements_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/proc/self")
    sink = viewers.open("model", timeout_s=PATIENCE_S)
    sink.save(image(1), name(1))
    assert sink.progress().images.dropped == 1
    sink.close(leave_open=False)
    with pytest.raises(ConfigError, match="let XDG_RUNTIME_DIR be a folder"):
        viewers.progress("model")


def test_a_viewer_that_cannot_be_announced_leaves_nothing(own_folder: Path) -> None:
    command = [sys.executable, "-m", "viewer_senders", "on_a_full_disk", "full"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert "the viewer 'full' cannot be started: OSError" in done.stderr
    assert [file.name for file in own_folder.iterdir()] == ["viewer-full.log"]


def test_announcements_that_are_none(opened: Callable[..., ViewerSink], own_folder: Path) -> None:
    sink = opened("model")
    (entry,) = announced("viewer")
    (own_folder / "viewer-1000001.json").mkdir()
    os.mkfifo(own_folder / "viewer-1000002.json")
    (own_folder / "viewer-1000003.json").symlink_to(f"viewer-{entry.pid}.json")
    (own_folder / "viewer-1000004.json").write_bytes(msgspec.json.encode(entry) + b" " * (1 << 17))
    (own_folder / "viewer-1000005.json").write_bytes(b"[" * 60000)
    (own_folder / "viewer-1000006.json").write_bytes(msgspec.json.encode({**msgspec.to_builtins(entry), "pid": 10**18}))
    (own_folder / "viewer-1000007.json").write_bytes(b"\xff")
    assert announced("viewer") == [entry]
    assert sorted(file.name for file in own_folder.glob("viewer-1*.json") if file.name != f"viewer-{entry.pid}.json") == [
        "viewer-1000001.json"
    ]
    assert not opened("model").started
    assert sink.progress().state == "connected"


def test_one_that_may_open_no_more_files_takes_no_announcement_away(opened: Callable[..., ViewerSink]) -> None:
    sink = opened("model")
    entry = find("model")
    command = [sys.executable, "-W", "error", "-m", "viewer_senders", "starving", "model"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "displayed"
    assert "Traceback" not in done.stderr
    assert find("model") == entry
    assert sink.progress().state == "connected"


def test_a_viewer_without_descriptors_serves_those_that_it_has_let_in(opened: Callable[..., ViewerSink]) -> None:
    sink = opened("model", "full")
    sink.save(image(0), name(0), until="displayed")
    viewer = find("full")
    assert viewer is not None
    allowed = resource.prlimit(viewer.pid, resource.RLIMIT_NOFILE)
    used = max(int(fd) for fd in os.listdir(f"/proc/{viewer.pid}/fd")) + 1
    resource.prlimit(viewer.pid, resource.RLIMIT_NOFILE, (used, allowed[1]))
    with contextlib.ExitStack() as waiting:
        for _ in range(8):
            waiting.enter_context(_os.connect_at(viewer.address, PATIENCE_S))
        until(lambda: "Too many open files" in Path(sink.log).read_text())
        for number in range(1, 100):
            sink.save(image(number), name(number), until="displayed")
        assert sink.progress().images.displayed == 100
        assert Path(sink.log).read_text().count("a sender waits to be let in") == 1
        resource.prlimit(viewer.pid, resource.RLIMIT_NOFILE, allowed)
        other = opened("model", "full")
        other.save(image(100), name(100), until="displayed")
        assert find("full") == viewer


def test_one_that_takes_long_to_open_is_not_started_twice(opened: Callable[..., ViewerSink], tmp_path: Path) -> None:
    for _ in range(2):
        sink = ViewerSink(kind="adapters:SlowToOpen", timeout_s=5.0)
        assert not sink.connect()
        sink.close()
    ids = until(lambda: (tmp_path / "gate.opening").read_text().split() if (tmp_path / "gate.opening").exists() else [])
    (tmp_path / "gate").touch()
    until(lambda: find("adapters:SlowToOpen"))
    sink = opened("adapters:SlowToOpen")
    sink.save(image(1), name(1), until="displayed")
    assert not sink.started
    assert (tmp_path / "gate.opening").read_text().split() == ids
    assert len(ids) == 1


def test_a_process_forked_while_a_viewer_is_started_keeps_nobody_from_starting_one(
    opened: Callable[..., ViewerSink], tmp_path: Path
) -> None:
    sink = ViewerSink(kind="adapters:SlowToOpen", policy="drop", timeout_s=PATIENCE_S)
    sink.save(image(1), name(1))
    until(lambda: (tmp_path / "gate.opening").exists())
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,))
    process.start()
    try:
        (tmp_path / "gate").touch()
        assert opened("adapters:SlowToOpen").progress().state == "connected"
        assert opened("model", "other").progress().state == "connected"
        until(lambda: sink.connect())
        sink.close()
        until(lambda: sum(each.connected for each in viewers.progress("adapters:SlowToOpen").senders) == 1)
    finally:
        process.kill()
        process.join()


def test_an_adapter_that_exits_ends_the_viewer(opened: Callable[..., ViewerSink]) -> None:
    sink = opened("adapters:Choosy", "choosy")
    first = find("choosy")
    sink.save(np.zeros((3, 4), np.complex64).view(np.float64), name(1))
    sink.save(np.zeros((3, 4), np.float16), name(2))
    until(lambda: sink.progress().images.failed == 2)
    assert sink.progress().failures[-1][1] == "the viewer's receiver failed: SystemExit: 3"
    sink.save(image(3), name(3), until="displayed")
    assert find("choosy") not in (None, first)
