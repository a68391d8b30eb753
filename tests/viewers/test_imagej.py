"""The live receiver in real ImageJ: what it holds is read back through the link, from its own TIFF, and by its own means."""

from __future__ import annotations

import itertools
import os
import random
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import roifile
import tifffile
from imagej_support import Probe, compile_probe, running_probe, virtual_screen

from mutoscope.model.errors import CommandTimeoutError
from mutoscope.model.roi import Ellipse, Line, Mask, Points, Polygon, Rectangle, Roi
from mutoscope.model.roi_convert.imagej import from_imagej, to_imagej_roi
from mutoscope.viewers.fiji import ImageJ, ImageJError, WindowGoneError, WindowShape
from mutoscope.viewers.fiji.imagej import Place, Scale
from mutoscope.viewers.fiji.messages import ChannelStyle, Done, Map, State, StateOf
from mutoscope.viewers.fiji.pixels import stored_form

U16 = stored_form(np.dtype("uint16"))
RAMP = bytes(range(256))
FIRE = (
    bytes(min(255, 3 * i) for i in range(256))
    + bytes(max(0, 2 * i - 256) for i in range(256))
    + bytes(i // 2 for i in range(256))
)


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A screen, a person's folder, and the compiled probe in it."""
    home = tmp_path_factory.mktemp("home")
    with virtual_screen() as display, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISPLAY", display)
        patch.setenv("XDG_RUNTIME_DIR", str(home))
        yield compile_probe(home)


@pytest.fixture(scope="module", params=["central", "debian"])
def probe(request: pytest.FixtureRequest, screen: Path) -> Iterator[Probe]:
    with running_probe(request.param, screen, screen) as made:
        yield made


@pytest.fixture
def imagej(probe: Probe) -> Iterator[ImageJ]:
    """A connection of its own, and no windows and ROIs of it afterwards."""
    made = probe.attach()
    try:
        yield made
        for window in made.state().windows:
            made.close_window(window)
        for layer in made.state().rois:
            made.put_rois(layer, {}, window=None, whole=True)
    finally:
        made.close()


def plane_of(seed: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if kind.kind == "f":
        return rng.normal(0, 1000, shape).astype(kind)
    info = np.iinfo(kind)
    return rng.integers(info.min, info.max, shape, dtype=kind, endpoint=True)


def expected(plane: np.ndarray) -> np.ndarray:
    """What ImageJ shows for a plane, said once more in other words."""
    if plane.ndim == 3:
        return (plane[..., :3] if plane.dtype == np.uint8 else plane[..., :3] // 256).astype("uint8")
    if plane.dtype == bool:
        return np.where(plane, 255, 0).astype("uint8")
    if plane.dtype == np.int8:
        return plane.astype("int16")
    return plane if plane.dtype.name in ("uint8", "uint16", "int16", "float32") else plane.astype("float32")


def saved(probe: Probe, title: str, path: Path) -> tifffile.TiffFile:
    """An image as ImageJ itself writes it."""
    assert probe.ask("save", title, path) == ["true"]
    return tifffile.TiffFile(path)


def test_every_plane_of_a_hyperstack_is_where_it_belongs(imagej: ImageJ, probe: Probe, tmp_path: Path) -> None:
    shape = WindowShape(20, 30, channels=3, slices=4, frames=2)
    imagej.open_window("w", "a hyperstack", U16, shape, composite=True)
    places = [Place(*each) for each in itertools.product((1, 2, 3), (1, 2, 3, 4), (1, 2))]
    random.Random(7).shuffle(places)
    planes = {place: plane_of(number, (20, 30), "uint16") for number, place in enumerate(places)}
    for place in places[:5]:
        imagej.put_plane("w", place, planes[places[-1]], U16, "to be replaced")
    imagej.show("w")
    assert imagej.describe("w").missing == 24 - 5
    for place, plane in planes.items():
        imagej.put_plane("w", place, plane, U16, f"c{place.c} z{place.z} t{place.t}.tif")
        plane_before = plane.copy()
        plane[:] = 0  # it was copied: what the caller does to it afterwards is not seen
        planes[place] = plane_before
    imagej.show("w")
    for place, plane in planes.items():
        held, about = imagej.read_plane("w", place, U16)
        assert np.array_equal(held, plane)
        assert (about.label, about.missing) == (f"c{place.c} z{place.z} t{place.t}.tif", False)
    assert imagej.describe("w").missing == 0
    with saved(probe, "a hyperstack", tmp_path / "w.tif") as tiff:
        assert tiff.series[0].axes == "TZCYX"
        pixels = tiff.asarray()
        labels = tiff.imagej_metadata["Labels"]
    for place, plane in planes.items():
        assert np.array_equal(pixels[place.t - 1, place.z - 1, place.c - 1], plane)
        assert labels[((place.t - 1) * 4 + place.z - 1) * 3 + place.c - 1] == f"c{place.c} z{place.z} t{place.t}.tif"


KINDS = ["uint8", "uint16", "float32", "bool", "int8", "int16", "float16", "uint32", "int32", "uint64", "int64", "float64"]


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "socket"])
def test_every_dtype_is_shown_by_the_documented_rule(probe: Probe, tmp_path: Path, shared: bool) -> None:
    with probe.attach(shared=shared) as imagej:
        cases = [(plane_of(1, (9, 14), dtype), False) for dtype in KINDS]
        cases += [(plane_of(2, (9, 14, colours), dtype), True) for colours in (3, 4) for dtype in ("uint8", "uint16")]
        for number, (plane, rgb) in enumerate(cases):
            form = stored_form(plane.dtype, rgb)
            title = f"{plane.dtype} {plane.shape} {shared}"
            imagej.open_window(str(number), title, form, WindowShape(9, 14), composite=False)
            imagej.put_plane(str(number), Place(), plane, form, "one")
            imagej.show(str(number))
            held, _ = imagej.read_plane(str(number), Place(), form)
            wanted = expected(plane)
            restored = form.restore(held)
            assert np.array_equal(restored, wanted if not form.exact or rgb else plane), title
            with saved(probe, title, tmp_path / "one.tif") as tiff:
                stored = tiff.asarray()
            if form.word == "i16":
                stored = stored.astype("int32") - (0 if stored.dtype == np.int16 else 32768)
            assert np.array_equal(stored, wanted), title
            imagej.close_window(str(number))
        assert imagej.shares_memory is shared


def test_signed_pixels_are_read_as_they_were_given(imagej: ImageJ, probe: Probe) -> None:
    form = stored_form(np.dtype("int16"))
    plane = np.full((5, 6), -1234, "int16")
    imagej.open_window("w", "signed", form, WindowShape(5, 6), composite=False)
    imagej.put_plane("w", Place(), plane, form, "")
    imagej.show("w")
    imagej.style("w", channels=[ChannelStyle(c=1, low=form.level(-2000), high=form.level(3000))])
    state = imagej.describe("w")
    assert (form.value(state.styles[0].low), form.value(state.styles[0].high)) == (-2000, 3000)


def test_looks_are_what_was_asked_for_also_after_growth(imagej: ImageJ, probe: Probe, tmp_path: Path) -> None:
    imagej.open_window("w", "first", U16, WindowShape(16, 16, channels=2), composite=True)
    for c in (1, 2):
        imagej.put_plane("w", Place(c), plane_of(c, (16, 16), "uint16"), U16, "")
    imagej.show("w")
    styles = [ChannelStyle(c=1, low=100, high=4000, lut=FIRE), ChannelStyle(c=2, low=7, high=65000, lut=RAMP * 3)]
    scale = Scale(pixel_size=0.11, depth=0.5, unit="µm", interval=2.5, time_unit="sec")
    assert imagej.style("w", title="second µ", overlay=True, scale=scale, channels=styles) == [True, True]

    def check(channels: int) -> None:
        state = imagej.describe("w")
        assert [(each.lut, each.low, each.high) for each in state.styles[:2]] == [(FIRE, 100, 4000), (RAMP * 3, 7, 65000)]
        assert (state.title, state.scale, state.channels) == ("second µ", scale, channels)
        with saved(probe, "second µ", tmp_path / "w.tif") as tiff:
            about = tiff.imagej_metadata
        assert [bytes(lut) for lut in about["LUTs"][:2]] == [FIRE, RAMP * 3]
        assert tuple(about["Ranges"][:4]) == (100, 4000, 7, 65000)
        assert about["mode"] == "composite"
        assert about["unit"] in ("µm", "um", "micron", "\\u00B5m")

    check(2)
    imagej.arrange("w", WindowShape(16, 16, channels=3, slices=2), ([0, 1, -1], [0, -1], [0]))
    check(3)
    assert probe.ask("window", "second µ")[2].startswith("second µ")


def test_a_range_that_a_person_has_chosen_stays(imagej: ImageJ, probe: Probe) -> None:
    imagej.open_window("w", "contrast", U16, WindowShape(16, 16), composite=False)
    imagej.put_plane("w", Place(), plane_of(1, (16, 16), "uint16"), U16, "")
    imagej.show("w")
    assert imagej.style("w", channels=[ChannelStyle(c=1, low=0, high=1000)]) == [True]
    assert imagej.style("w", channels=[ChannelStyle(c=1, low=0, high=2000)]) == [True]
    probe.ask("range", "contrast", 50, 500)
    assert imagej.style("w", channels=[ChannelStyle(c=1, low=0, high=3000)]) == [False]
    imagej.arrange("w", WindowShape(16, 16, slices=2), ([0], [0, -1], [0]))
    assert imagej.style("w", channels=[ChannelStyle(c=1, low=0, high=3000)]) == [False]
    state = imagej.describe("w")
    assert (state.styles[0].low, state.styles[0].high) == (50, 500)


def test_a_window_grows_without_being_closed(imagej: ImageJ, probe: Probe, tmp_path: Path) -> None:
    imagej.open_window("w", "growing", U16, WindowShape(12, 10), composite=True)
    before = probe.ask("window", "growing")
    planes = {Place(1, 1, 1): plane_of(0, (12, 10), "uint16")}
    imagej.put_plane("w", Place(), planes[Place()], U16, "first")
    imagej.show("w")
    # one axis after the other, at either end and in between, and larger planes
    steps = [
        (WindowShape(12, 10, 1, 1, 3), ([0], [0], [-1, 0, -1])),
        (WindowShape(12, 10, 1, 2, 3), ([0], [-1, 0], [0, 1, 2])),
        (WindowShape(12, 10, 3, 2, 3), ([-1, 0, -1], [0, 1], [0, 1, 2])),
        (WindowShape(15, 13, 3, 3, 4), ([0, 1, 2], [0, -1, 1], [0, 1, -1, 2])),
    ]
    for number, (shape, came_from) in enumerate(steps):
        imagej.arrange("w", shape, came_from)
        planes = {
            Place(*(axis.index(old - 1) + 1 for axis, old in zip(came_from, place, strict=True))): plane
            for place, plane in planes.items()
        }
        planes = {
            place: np.pad(p, ((0, shape.height - p.shape[0]), (0, shape.width - p.shape[1]))) for place, p in planes.items()
        }
        new = Place(shape.channels, shape.slices, shape.frames)
        planes[new] = plane_of(number + 1, (shape.height, shape.width), "uint16")
        imagej.put_plane("w", new, planes[new], U16, f"step {number}")
        imagej.show("w")
        for place in map(Place._make, itertools.product(*(range(1, n + 1) for n in shape[2:]))):
            held, about = imagej.read_plane("w", place, U16)
            assert about.missing is (place not in planes)
            assert np.array_equal(held, planes.get(place, np.zeros_like(held))), (number, place)
            assert (about.label == "missing") is about.missing
        state = imagej.describe("w")
        assert state.missing == shape.channels * shape.slices * shape.frames - len(planes)
        assert planes[Place(*state.shown)] is not None, "the plane that a person looks at moves with its index"
    after = probe.ask("window", "growing")
    assert (after[:2], after[3]) == (before[:2], "true"), "the same window, and none was closed"
    assert "c:" in after[5]
    assert "z:" in after[5]
    assert "t:" in after[5]
    for place in (Place(3, 2, 4), Place(1, 3, 1)):
        assert probe.ask("go", "growing", *place) == [*map(str, place), str(((place.t - 1) * 3 + place.z - 1) * 3 + place.c)]
        assert imagej.describe("w").shown == place
    imagej.forget_plane("w", new)
    imagej.show("w")
    held, about = imagej.read_plane("w", new, U16)
    assert about.missing
    assert not held.any()
    with saved(probe, "growing", tmp_path / "w.tif") as tiff:
        assert tiff.series[0].shape == (4, 3, 3, 15, 13)


def test_planes_that_wait_survive_growth(imagej: ImageJ) -> None:
    imagej.open_window("w", "waiting", U16, WindowShape(8, 8, frames=2), composite=False)
    first, second = (plane_of(seed, (8, 8), "uint16") for seed in (1, 2))
    imagej.put_plane("w", Place(1, 1, 1), first, U16, "first")
    imagej.put_plane("w", Place(1, 1, 2), second, U16, "second")
    imagej.arrange("w", WindowShape(9, 8, frames=3), ([0], [0], [1, -1, 0]))
    imagej.show("w")
    assert np.array_equal(imagej.read_plane("w", Place(1, 1, 1), U16)[0][:8], second)
    assert np.array_equal(imagej.read_plane("w", Place(1, 1, 3), U16)[0][:8], first)
    assert imagej.describe("w").missing == 1


def test_live_frames_are_painted_and_take_no_more_memory(imagej: ImageJ) -> None:
    imagej.open_window("w", "live", U16, WindowShape(512, 512), composite=False)
    before = imagej.describe("w").paints
    for number in range(1500):  # 750 MB of pixels through a heap of 600 MB
        frame = np.full((512, 512), number, "uint16")
        imagej.put_plane("w", Place(), frame, U16, str(number))
        imagej.show("w")
    held, about = imagej.read_plane("w", Place(), U16)
    assert (int(held[0, 0]), int(held[-1, -1]), about.label) == (1499, 1499, "1499")
    assert imagej.describe("w").paints > before + 100


def test_what_a_person_sees(imagej: ImageJ) -> None:
    plane = np.zeros((40, 60), "uint16")
    plane[:, 30:] = 1000
    imagej.open_window("w", "picture", U16, WindowShape(40, 60), composite=False)
    imagej.put_plane("w", Place(), plane, U16, "")
    imagej.style("w", channels=[ChannelStyle(c=1, low=0, high=1000, lut=RAMP + bytes(512))])
    imagej.show("w")
    picture = imagej.picture("w")
    assert picture[20, 5].tolist() == [0, 0, 0]
    assert picture[20, picture.shape[1] - 5].tolist() == [255, 0, 0]


def shapes() -> list[Roi]:
    ring = Mask.from_array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 1]], (3, 4))
    hole = Polygon([(2.0, 2.0), (2.0, 20.0), (20.0, 20.0), (20.0, 2.0)], [[(5.0, 5.0), (5.0, 10.0), (10.0, 10.0), (10.0, 5.0)]])
    return [
        Roi("p1", Polygon([(1.0, 1.0), (1.0, 9.0), (7.25, 5.5)]), "triangle"),
        Roi("h1", hole, "with a hole"),
        Roi("e1", Ellipse((10.0, 12.0), 6.0, 9.0, 30.0), "ellipse é"),
        Roi("r1", Rectangle((7.5, 8.5), 4.0, 6.0), "box"),
        Roi("l1", Line((1.0, 2.0), (8.0, 9.0)), "line"),
        Roi("d1", Points([(3.0, 4.0), (5.5, 6.25)]), "points"),
        Roi("m1", ring, "mask"),
    ]


def test_rois_are_in_the_manager_by_name_and_place(imagej: ImageJ, probe: Probe, tmp_path: Path) -> None:
    imagej.open_window("w", "rois", U16, WindowShape(32, 32, channels=2, slices=3, frames=4), composite=True)
    rois = shapes()
    data = [to_imagej_roi(roi) for roi in rois]
    probe.ask("draw", "", "a person's own")
    own = probe.ask("rois")[1].split("|")[:4]
    imagej.put_rois("cells", {Place(2, 3, 4): data[:4], Place(1, 1, 2): data[4:]}, window="w", whole=True)
    count, *lines = probe.ask("rois")
    assert int(count) == 8
    assert [line.split("|")[:4] for line in lines] == [
        own,
        *([roi.name, "2", "3", "4"] for roi in rois[:4]),
        *([roi.name, "1", "1", "2"] for roi in rois[4:]),
    ]
    assert probe.ask("overlay", "rois") == ["7"]
    assert imagej.state().rois == {"": 1, "cells": 7}
    held = imagej.held_rois("cells")
    assert {place: len(each) for place, each in held.items()} == {Place(2, 3, 4): 4, Place(1, 1, 2): 3}
    back = [from_imagej(each)[0] for place in held for each in held[place]]
    assert [(roi.id, roi.name) for roi in back] == [(roi.id, roi.name) for roi in rois]
    # the whole set as ImageJ writes it, read by roifile: the coordinates are those that were sent
    probe.ask("save rois", "", tmp_path / "set.zip")
    with zipfile.ZipFile(tmp_path / "set.zip") as archive:
        read = [roifile.ImagejRoi.frombytes(archive.read(name)) for name in archive.namelist()]
    by_name = {each.name: each for each in read}
    for roi, sent in zip(rois, data, strict=True):
        wanted = roifile.ImagejRoi.frombytes(sent)
        found = by_name[roi.name]
        assert found.roitype == wanted.roitype
        if isinstance(roi.geometry, Ellipse):  # ImageJ draws it anew, with 72 vertices, by the ends of its axis
            ends = [[each.x1, each.y1, each.x2, each.y2] for each in (found, wanted)]
            assert np.allclose(*ends, atol=1e-3)
        else:
            assert np.allclose(np.asarray(found.coordinates()), np.asarray(wanted.coordinates()), atol=1e-3), roi.name
    # other ROIs on a plane take the place of those that were there, an empty list clears it, and all others stay
    imagej.put_rois("cells", {Place(2, 3, 4): data[:1], Place(1, 1, 2): []}, window="w", whole=False)
    imagej.put_rois("nuclei", {Place(0, 0, 1): data[:1]}, window="w", whole=False)
    assert [line.split("|")[:4] for line in probe.ask("rois")[1:]] == [
        own,
        ["triangle", "2", "3", "4"],
        ["triangle", "0", "0", "1"],
    ]
    assert probe.ask("overlay", "rois") == ["2"]
    imagej.put_rois("cells", {}, window="w", whole=True)
    imagej.put_rois("nuclei", {}, window="w", whole=True)
    assert probe.ask("rois")[0] == "1"
    assert probe.ask("overlay", "rois") == ["0"]


def test_rois_of_a_plain_stack_have_its_one_number(imagej: ImageJ, probe: Probe) -> None:
    imagej.open_window("w", "stack", U16, WindowShape(32, 32, slices=5), composite=False)
    imagej.put_rois("cells", {Place(0, 4, 0): [to_imagej_roi(shapes()[0])]}, window="w", whole=True)
    assert probe.ask("rois")[-1].split("|")[:5] == ["triangle", "0", "4", "0", "4"]


def test_what_a_person_has_closed_or_changed_is_told(imagej: ImageJ, probe: Probe) -> None:
    plane = plane_of(1, (16, 16), "uint16")
    for title, change in (("closed", None), ("altered", ("32-bit",)), ("smaller", ("Size...", "width=8 height=8"))):
        imagej.open_window("w", title, U16, WindowShape(16, 16), composite=False)
        imagej.put_plane("w", Place(), plane, U16, "")
        imagej.show("w")
        probe.ask("close", title) if change is None else probe.ask("convert", title, *change)
        for call in (lambda: imagej.put_plane("w", Place(), plane, U16, ""), lambda: imagej.show("w")):
            with pytest.raises(WindowGoneError) as told:
                call()
            assert told.value.code == ("closed" if change is None else "altered")
        imagej.open_window("w", f"{title} again", U16, WindowShape(16, 16), composite=False)
        imagej.put_plane("w", Place(), plane, U16, "")
        imagej.show("w")
        assert np.array_equal(imagej.read_plane("w", Place(), U16)[0], plane)
        imagej.close_window("w")
        if change is not None:
            probe.ask("close", title)


def test_a_window_may_be_closed_at_the_very_moment_it_is_asked_for(imagej: ImageJ, probe: Probe, tmp_path: Path) -> None:
    calls = [
        lambda: imagej.show("w"),
        lambda: imagej.arrange("w", WindowShape(16, 16, frames=2), ([0], [0], [0, -1])),
        lambda: imagej.style("w", title="other"),
        lambda: imagej.describe("w"),
        lambda: imagej.picture("w"),
    ]
    for number, call in enumerate(calls):
        imagej.open_window("w", f"closing {number}", U16, WindowShape(16, 16), composite=False)
        imagej.put_plane("w", Place(), plane_of(1, (16, 16), "uint16"), U16, "")
        probe.tell("close when", f"closing {number}", tmp_path / str(number))
        probe.told("hanging")
        threading.Timer(0.2, (tmp_path / str(number)).touch).start()
        with pytest.raises(WindowGoneError) as told:
            call()
        assert told.value.code == "closed"
        probe.told()


def test_windows_that_a_person_closes_keep_no_memory(imagej: ImageJ, probe: Probe) -> None:
    """A gigabyte of pixels in a heap of 600 MB, and nobody tells the client to forget its windows."""
    plane = np.zeros((2048, 2048), "uint16")
    for number in range(16):
        imagej.open_window(str(number), f"large {number}", U16, WindowShape(2048, 2048, frames=8), composite=False)
        for t in range(1, 9):
            imagej.put_plane(str(number), Place(1, 1, t), plane, U16, "")
        imagej.show(str(number))
        probe.ask("close", f"large {number}")


def test_what_cannot_be_is_refused_and_the_link_goes_on(imagej: ImageJ) -> None:
    imagej.open_window("w", "refusals", U16, WindowShape(16, 16), composite=False)
    plane = np.zeros((16, 16), "uint16")
    refused = [
        lambda: imagej.open_window("w", "twice", U16, WindowShape(16, 16), composite=False),
        lambda: imagej.open_window("x", "huge", U16, WindowShape(1 << 20, 1 << 20), composite=False),
        lambda: imagej.put_plane("w", Place(1, 1, 2), plane, U16, ""),
        lambda: imagej.put_plane("w", Place(), np.zeros((16, 17), "uint16"), U16, ""),
        lambda: imagej.put_plane("y", Place(), plane, U16, ""),
        lambda: imagej.arrange("w", WindowShape(16, 15), ([0], [0], [0])),
        lambda: imagej.arrange("w", WindowShape(16, 16, frames=2), ([0], [0], [0, 0])),
        lambda: imagej.style("w", channels=[ChannelStyle(c=2, low=0, high=1)]),
        lambda: imagej.style("w", channels=[ChannelStyle(c=1, low=0, high=1, lut=b"short")]),
        lambda: imagej.put_rois("l", {Place(): [b"no roi of ImageJ"]}, window="w", whole=False),
    ]
    for number, call in enumerate(refused):
        with pytest.raises(ImageJError) as told:
            call()
        assert told.value.code in ("malformed", "refused", "unknown"), number
    imagej.put_plane("w", Place(), plane_of(3, (16, 16), "uint16"), U16, "")
    imagej.show("w")
    assert np.array_equal(imagej.read_plane("w", Place(), U16)[0], plane_of(3, (16, 16), "uint16"))


def test_an_answer_that_comes_too_late_is_thrown_away(probe: Probe, tmp_path: Path) -> None:
    with probe.attach() as imagej:
        link = imagej._link
        probe.tell("hang until", "", tmp_path / "enough")
        probe.told("hanging")
        for _ in range(3):
            with pytest.raises(CommandTimeoutError, match="did not answer in time"):
                link.ask(State(id=link.next_id()), StateOf, timeout_s=0.2)
        (tmp_path / "enough").touch()
        probe.told()
        imagej.open_window("w", "late", U16, WindowShape(8, 8), composite=False)
        assert imagej.state().windows == ["w"]
        imagej.close_window("w")


def test_shared_memory_of_others_is_not_mapped(imagej: ImageJ, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(100))
    link = imagej._link
    for path, size in ((str(tmp_path / "file"), 100), ("/etc/passwd", 10), (f"/proc/{os.getpid()}/fd/99999", 10)):
        with pytest.raises(ImageJError) as told:
            link.ask(Map(id=link.next_id(), segment=9, path=path, size=size), Done)
        assert told.value.code == "unmappable"
    fd = os.memfd_create("short")
    try:
        with pytest.raises(ImageJError, match="has 0 bytes"):
            link.ask(Map(id=link.next_id(), segment=9, path=f"/proc/{os.getpid()}/fd/{fd}", size=10), Done)
    finally:
        os.close(fd)
