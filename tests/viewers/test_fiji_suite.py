"""Real ImageJ passes what every viewer has to, and what only ImageJ has: hyperstacks of its own."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import tifffile
from imagej_support import DEADLINE_S, JARS, Probe, compile_probe, installation, running_probe, virtual_screen

from mutoscope.model.errors import ViewerUnavailableError
from mutoscope.model.roi import Composite, Line, Rectangle, Roi
from mutoscope.viewers import Display, Percentiles
from mutoscope.viewers.fiji import attach, running
from mutoscope.viewers.launch import find
from mutoscope.viewers.sink import ViewerSink, open_viewer
from mutoscope.viewers.suite import ROIS, ViewerSuite, name_of, plane_of
from polling import until


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A screen, and ImageJ's folder, with the compiled probe."""
    folder = tmp_path_factory.mktemp("imagej")
    with virtual_screen() as display, pytest.MonkeyPatch.context() as patch:
        os.symlink(installation("central").program, folder / "ij.jar")
        patch.setenv("DISPLAY", display)
        patch.setenv("FIJI_HOME", str(folder))
        patch.setenv("JAVA_TOOL_OPTIONS", f"-Duser.home={folder} -Xmx500m")
        yield compile_probe(folder)


@pytest.mark.usefixtures("screen")
class TestFiji(ViewerSuite):
    kind = "fiji"
    dtypes: ClassVar[tuple[str, ...]] = ("bool", "uint8", "uint16", "int8", "int16", "float16", "float32")
    contrast_step: ClassVar[float] = 1.0


# -- what only ImageJ has


@pytest.fixture
def folder(screen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own for announcements; the compiled probe is in `screen`."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture(params=list(JARS))
def probe(request: pytest.FixtureRequest, screen: Path, folder: Path) -> Iterator[Probe]:
    """An ImageJ that a person has started, with the live receiver."""
    with running_probe(request.param, folder, screen, owned=False) as made:
        yield made


@pytest.fixture
def open_fiji(folder: Path) -> Iterator[Callable[..., ViewerSink]]:
    opened: list[ViewerSink] = []

    def make(**options: Any) -> ViewerSink:
        opened.append(open_viewer("fiji", **{"filenames": "imagexpress", "timeout_s": DEADLINE_S, **options}))
        return opened[-1]

    yield make
    for sink in opened:
        sink.close(leave_open=False)


CHANNELS, SLICES, TIMES = (1, 2, 4), (1, 3, 7), (2, 5)


def test_channels_slices_and_times_are_imagejs_own_axes(
    probe: Probe, open_fiji: Callable[..., ViewerSink], tmp_path: Path
) -> None:
    """Two sources, each a window of the person's ImageJ; read back from the TIFF that ImageJ itself writes."""
    display = Display(
        lut={1: "green", 2: "magenta", 4: "viridis"},
        contrast={1: (100, 4000), 2: "auto", 4: Percentiles(10, 90)},
        pixel_size_um=0.5,
        z_um=2.0,
        t_s=3.0,
    )
    sink = open_fiji(display=display)
    assert len(running()) == 1, "none was started beside the one that is open"
    places = [{"channel": c, "z": z, "t": t} for t in TIMES for z in SLICES for c in CHANNELS]
    missing = places[8]
    order = [place for place in places if place != missing]
    random.Random(3).shuffle(order)
    for place in order:
        for number, source in enumerate(("raw", "deconvolved")):
            sink.save(plane_of(1000 * number + places.index(place), (20, 24)), name_of(**place), source=source)
    assert sink.wait(DEADLINE_S).images.displayed == 34
    for number, title in enumerate(("raw", "deconvolved")):
        path = tmp_path / f"{title}.tif"
        assert probe.ask("save", title, path) == ["true"]
        with tifffile.TiffFile(path) as tiff:
            assert tiff.series[0].axes == "TZCYX"
            pixels, about = tiff.asarray(), tiff.imagej_metadata
            (tag,) = [each.value for each in tiff.pages[0].tags if each.name == "XResolution"]
        assert pixels.shape == (2, 3, 3, 20, 24)
        for index, place in zip(np.ndindex(2, 3, 3), places, strict=True):
            wanted = plane_of(1000 * number + places.index(place), (20, 24))
            label = about["Labels"][places.index(place)]
            if place == missing:
                assert not pixels[index].any()
                assert label == "missing"
                continue
            assert np.array_equal(pixels[index], wanted), place
            for word in ("channel {channel}", "z {z}", "t {t}"):
                assert word.format(**place) in label
        green, magenta, viridis = (np.asarray(lut) for lut in about["LUTs"])
        assert green.tolist() == [[0] * 256, list(range(256)), [0] * 256]
        assert magenta.tolist() == [list(range(256)), [0] * 256, list(range(256))]
        assert viridis[:, 0].tolist() == [0x44, 0x01, 0x54]
        low, high = about["Ranges"][:2]
        assert (low, high) == (100, 4000)
        second = [plane_of(1000 * number + places.index(each), (20, 24)) for each in order if each["channel"] == 2]
        assert about["Ranges"][2] == min(int(each.min()) for each in second)
        assert about["Ranges"][3] == max(int(each.max()) for each in second)
        low, high = about["Ranges"][4:]
        assert 0 < low < 20000 < 50000 < high < 65535
        assert (about["mode"], about["spacing"], about["finterval"]) == ("composite", 2.0, 3.0)
        assert tag[0] / tag[1] == pytest.approx(2.0, rel=1e-4)
    sink.close(leave_open=False)
    assert probe.ask("window", "raw")[3] == "true", "what is in the person's ImageJ stays there"


def test_a_window_grows_while_images_come_and_rois_stay_where_they_are(
    probe: Probe, open_fiji: Callable[..., ViewerSink]
) -> None:
    sink = open_fiji()
    sink.save(plane_of(5, (20, 24)), name_of(z=5, t=3), source="raw", until="displayed")
    before = probe.ask("window", "raw")
    sink.save(list(ROIS), name_of(z=5, t=3), source="raw", until="displayed")
    names = {(roi.name or roi.id): roi for roi in ROIS}
    for t in (3, 1, 2, 9):
        for z in (5, 1, 9, 3):
            if (t, z) != (3, 5):
                sink.save(plane_of(10 * t + z, (20, 24)), name_of(z=z, t=t), source="raw", until="displayed")
    after = probe.ask("window", "raw")
    assert (after[:2], after[3]) == (before[:2], "true"), "the same window, and none was closed"
    count, *lines = probe.ask("rois")
    assert int(count) == len(ROIS)
    assert {tuple(line.split("|")[1:4]) for line in lines} == {("0", "3", "3")} or {
        tuple(line.split("|")[1:4]) for line in lines
    } == {("1", "3", "3")}
    assert {line.split("|")[0] for line in lines} >= {roi.name for roi in ROIS if roi.name}
    assert len(names) == len(ROIS)
    assert probe.ask("overlay", "raw") == [str(len(ROIS))]
    (images,) = [layer for layer in sink.layers() if layer.kind == "images"]
    assert images.missing == 0
    (rois,) = [layer for layer in sink.layers() if layer.kind == "rois"]
    t, z = 2, 2
    index = [{"T": t, "Z": z}.get(axis, 0) for axis in rois.axis_names[:-2]]
    assert sorted(sink.rois(rois, index), key=lambda roi: roi.id) == sorted(ROIS, key=lambda roi: roi.id)


def test_what_a_person_does_to_windows_and_rois(probe: Probe, open_fiji: Callable[..., ViewerSink]) -> None:
    sink = open_fiji(display=Display(contrast="auto"))
    sink.save_batch([plane_of(z, (20, 24)) for z in (1, 2)], [name_of(z=z) for z in (1, 2)], source="raw", until="displayed")
    sink.save(list(ROIS[:2]), name_of(z=1), source="raw", until="displayed")
    probe.ask("range", "raw", 40, 400)
    sink.save(plane_of(3, (20, 24)), name_of(z=3), source="raw", until="displayed")
    (images,) = [layer for layer in sink.layers() if layer.kind == "images"]
    assert [tuple(each[1:]) for each in images.contrast] == [(40.0, 400.0)], "the person's contrast stays"
    probe.ask("close", "raw")
    assert [layer.kind for layer in sink.layers()] == ["rois"]
    sink.save(plane_of(4, (20, 24)), name_of(z=4), source="raw", until="displayed")
    (images,) = [layer for layer in sink.layers() if layer.kind == "images"]
    z = images.axis_names.index("Z")
    for number in range(4):
        index = [number if axis == z else 0 for axis in range(len(images.shape) - 2)]
        assert np.array_equal(sink.plane(images, index), plane_of(number + 1, (20, 24))), "all of it, in a window of its own"
    assert probe.ask("overlay", "raw") == ["2"]
    assert sink.progress().images.failed == 0


def test_it_ends_when_the_person_ends_imagej(probe: Probe, open_fiji: Callable[..., ViewerSink]) -> None:
    sink = open_fiji()
    sink.save(plane_of(1), name_of(), source="raw", until="displayed")
    probe.tell("quit", "")
    assert probe.process.wait(DEADLINE_S) == 0
    until(lambda: find("fiji") is None)
    sink.save(plane_of(2), name_of(z=2), source="raw")
    account = sink.wait(DEADLINE_S)
    images = account.images  # the second one was dropped, or had been sent to a viewer that was ending
    assert (account.state, images.displayed, images.dropped + images.failed, images.pending) == ("closed", 1, 1, 0)
    assert running() == [], "nobody starts another one against the person's will"


@pytest.mark.parametrize("killed", ["imagej", "viewer", "both"])
def test_it_goes_on_after_a_kill_and_accounts_for_every_item(
    folder: Path, open_fiji: Callable[..., ViewerSink], killed: str
) -> None:
    sink = open_fiji()
    sink.save(plane_of(1), name_of(), source="raw", until="displayed")
    (first,) = running()
    viewer = find("fiji")
    assert viewer is not None
    assert first.viewer == "fiji"
    for pid in {"imagej": [first.pid], "viewer": [viewer.pid], "both": [first.pid, viewer.pid]}[killed]:
        os.kill(pid, signal.SIGKILL)
    sent = 1
    while True:
        sink.save(plane_of(sent + 1), name_of(z=sent + 1), source="raw")
        sent += 1
        sink.wait(DEADLINE_S)
        if find("fiji") not in (None, viewer):
            break
        assert sent < 10_000
    account = sink.wait(DEADLINE_S)
    assert account.images.sent == account.images.displayed + account.images.failed
    assert account.images.sent + account.images.dropped == sent
    (second,) = running()
    assert (second.pid == first.pid) is (killed == "viewer"), "an ImageJ that is there is taken over"
    with attach(second) as imagej:
        assert imagej.state().images == 1, "and what its predecessor left there is closed"
    (layer,) = sink.layers()
    z = layer.axis_names.index("Z")
    index = [layer.shape[z] - 1 if axis == z else 0 for axis in range(len(layer.shape) - 2)]
    assert np.array_equal(sink.plane(layer, index), plane_of(sent))


def test_two_viewers_have_an_imagej_each(folder: Path, open_fiji: Callable[..., ViewerSink]) -> None:
    left, right = open_fiji(address="left"), open_fiji(address="right")
    for number, sink in enumerate((left, right)):
        sink.save(plane_of(number), name_of(), source="raw", until="displayed")
    assert sorted(each.viewer for each in running()) == ["left", "right"]
    left.close(leave_open=False)
    assert [each.viewer for each in running()] == ["right"]
    (layer,) = right.layers()
    assert np.array_equal(right.plane(layer, [0] * (len(layer.shape) - 2)), plane_of(1))


def test_a_look_up_table_of_imagejs_own_and_one_that_nobody_has(folder: Path, open_fiji: Callable[..., ViewerSink]) -> None:
    sink = open_fiji(display=Display(lut={1: "spectrum", 2: "no such table"}))
    sink.save_batch([plane_of(c) for c in (1, 2)], [name_of(channel=c) for c in (1, 2)], source="raw", until="displayed")
    (layer,) = sink.layers()
    assert [tuple(each) for each in layer.luts] == [(1, "spectrum"), (2, "grays")]
    assert "no look-up table 'no such table'" in Path(sink.log).read_text()


def test_what_imagej_cannot_hold_fails_alone(folder: Path, open_fiji: Callable[..., ViewerSink]) -> None:
    sink = open_fiji()
    roi = Roi("mixed", Composite([Line((0.0, 0.0), (3.0, 3.0)), Rectangle((4.0, 4.0), 2.0, 2.0)]))
    sink.save(plane_of(1), name_of(), source="raw")
    sink.save([roi, ROIS[0]], name_of(), source="raw", until="displayed")
    (rois,) = [layer for layer in sink.layers() if layer.kind == "rois"]
    assert sink.rois(rois, [0] * (len(rois.shape))) == [ROIS[0]]
    assert "ROI mixed is not shown" in Path(sink.log).read_text()


def test_there_is_no_screen(folder: Path, open_fiji: Callable[..., ViewerSink], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY")
    with pytest.raises(ViewerUnavailableError, match="xvfb-run"):
        open_fiji(required=True)
