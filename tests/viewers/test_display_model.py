"""The display model: a place is decided by components and a Display alone."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from mutoscope.model.errors import ConfigError
from mutoscope.model.filenames import Components, get_parser
from mutoscope.model.roi import Points, Roi
from mutoscope.viewers import Display, DisplayModel, ImageLayer, Percentiles, RoiLayer
from mutoscope.viewers.items import ImageItem, RoiItem, item_of
from mutoscope.viewers.planes import AxisValues, value_key
from mutoscope.viewers.roi_pack import pack_rois, unpack_rois
from mutoscope.viewers.suite import plane_of

DEFAULTS = {"source": "layer"}
PLACES = [
    {"well": well, "t": t, "channel": channel, "z": z}
    for well in ("A01", "A02", "B10")
    for t in range(1, 6)
    for channel in (1, 2)
    for z in (1, 2, 3, 10)
]
SPOT = unpack_rois(pack_rois([Roi("a", Points([(1.0, 2.0)]))]))


def plane(number: int) -> Any:
    rng = random.Random(number)
    return plane_of(number, (rng.randrange(5, 9), rng.randrange(5, 9)))


def built(order: list[int], display: Display) -> DisplayModel:
    model = DisplayModel(DEFAULTS)
    for step, number in enumerate(order):
        model.put_image(display, "raw", "", PLACES[number], [], plane(number))
        if step % 7 == 0:
            model.take_changes()
    return model


def images(model: DisplayModel) -> dict[str, ImageLayer]:
    return {f"{layer.window}/{layer.name}": layer for layer in model.layers() if isinstance(layer, ImageLayer)}


@pytest.mark.parametrize(
    "display",
    [
        Display(),
        Display(sizes="rescale"),
        Display(sizes="separate", order=("z", "t")),
        Display(z="slice", channel="channel", well="frame", t="frame"),
        Display(channel="layer", well="window", contrast={1: Percentiles(5, 95)}),
    ],
    ids=["stack", "rescale", "separate", "imagej", "windows"],
)
def test_arrival_order_never_decides_a_place(display: Display) -> None:
    found = []
    for seed in range(4):
        order = random.Random(seed).sample(range(len(PLACES)), len(PLACES))
        layers = images(built(order, display)).values()
        found.append(
            sorted(
                (
                    *(each.window, each.name, each.order, each.axes, each.values),
                    *(each.array.shape, each.array.tobytes(), each.missing.tobytes(), str(each.contrast)),
                )
                for each in layers
            )
        )
    assert found[1:] == found[:-1]


def test_axes_of_imagej_share_components() -> None:
    model = built(list(range(len(PLACES))), Display(z="slice", channel="channel", well="frame", t="frame", source="window"))
    (layer,) = images(model).values()
    assert (layer.window, layer.axes, layer.array.shape[:3]) == ("raw", ("T", "Z", "C"), (15, 4, 2))
    assert layer.values[0][6] == ("A02", 2)
    number = PLACES.index({"well": "A02", "t": 2, "channel": 2, "z": 10})
    image = plane(number)
    assert np.array_equal(layer.array[6, 3, 1][: image.shape[0], : image.shape[1]], image)


def test_missing_planes_and_later_axes() -> None:
    model, display = DisplayModel(DEFAULTS), Display()
    first, second, third = (np.full((2, 3), value, np.uint8) for value in (1, 2, 3))
    model.put_image(display, "raw", "", {"t": 1}, [], first)
    model.put_image(display, "raw", "", {}, [], second)
    model.put_image(display, "raw", "", {"z": 1, "t": 2}, [], third)
    (layer,) = images(model).values()
    assert (layer.axes, layer.values) == (("t", "z"), (((None,), (1,), (2,)), ((None,), (1,))))
    assert layer.missing.tolist() == [[False, True], [False, True], [True, False]]
    assert [int(layer.array[index][0, 0]) for index in ((1, 0), (0, 0), (2, 1), (0, 1))] == [1, 2, 3, 0]


def test_an_array_stays_while_it_has_room_and_tells_what_changed() -> None:
    model, display = DisplayModel(DEFAULTS), Display()
    moves = 0
    for t in range(1, 101):
        model.put_image(display, "raw", "", {"t": t}, [], np.full((4, 4), t, np.uint8))
        (layer,) = model.take_changes().images
        moves += layer.moved
        assert layer.changed == {(t - 1,)}
    assert moves == 8  # 1, 2, 4, … 128
    assert layer.array[:, 0, 0].tolist() == list(range(1, 101))
    model.put_image(display, "raw", "", {"t": 0}, [], np.zeros((4, 4), np.uint8))
    (layer,) = model.take_changes().images
    assert layer.moved
    assert layer.array[:, 0, 0].tolist() == list(range(101))


def test_layers_of_a_window_share_their_axes() -> None:
    model, display = DisplayModel(DEFAULTS), Display()
    for t in (1, 3):
        model.put_image(display, "a", "", {"t": t}, [], np.full((2, 2), t, np.uint8))
    model.put_image(display, "b", "", {"t": 2}, [], np.full((2, 2), 2, np.uint8))
    model.put_image(display, "overview", "", {}, [], np.zeros((2, 2), np.uint8))
    found = {layer.name: layer for layer in images(model).values()}
    assert found["a"].array[:, 0, 0].tolist() == [1, 0, 3]
    assert found["b"].array[:, 0, 0].tolist() == [0, 2, 0]
    assert found["overview"].array.shape == (2, 2)
    assert {(each.window_axes, each.window_shape) for each in found.values()} == {(("t",), (3,))}
    model.take_changes()
    model.put_image(display, "b", "", {"t": 9}, [], np.zeros((2, 2), np.uint8))
    changed = {layer.name: layer for layer in model.take_changes().images}
    assert changed["overview"].window_shape == (4,)  # as its window has become longer


def test_forms_of_one_source_are_layers_of_their_own() -> None:
    model, display = DisplayModel(DEFAULTS), Display()
    model.put_image(display, "raw", "", {"z": 1}, [], np.zeros((4, 4), np.uint8))
    assert list(images(model)) == ["Mutoscope/raw"]
    model.put_image(display, "raw", "", {"z": 1}, [], np.zeros((4, 4), np.uint16))
    model.put_image(display, "raw", "", {"z": 1}, [], np.zeros((4, 4, 3), np.uint8), True)
    assert sorted(images(model)) == ["Mutoscope/raw uint16", "Mutoscope/raw uint8", "Mutoscope/raw uint8 rgb"]


def test_contrast_follows_what_is_there() -> None:
    model, display = DisplayModel(DEFAULTS), Display()
    model.put_image(display, "raw", "", {"z": 1, "channel": 1}, [], np.array([[1, 9]], np.uint8))
    model.put_image(display, "raw", "", {"z": 2, "channel": 1}, [], np.array([[3, 200]], np.uint8))
    model.put_image(display, "raw", "", {"z": 1, "channel": 2}, [], np.array([[50, 60]], np.uint8))
    (layer,) = images(model).values()
    assert layer.contrast == {1: (1.0, 200.0), 2: (50.0, 60.0)}
    model.put_image(display, "raw", "", {"z": 2, "channel": 1}, [], np.array([[3, 8]], np.uint8))
    (layer,) = images(model).values()
    assert layer.contrast == {1: (1.0, 9.0), 2: (50.0, 60.0)}
    model.put_image(display, "float", "", {}, [], np.array([[np.nan, np.inf, 2.0]]))
    assert images(model)["Mutoscope/float"].contrast == {None: (2.0, 2.0)}


def test_rois_find_their_images_whichever_comes_first() -> None:
    for rois_first in (True, False):
        model, display = DisplayModel(DEFAULTS), Display()

        def send_rois(model: DisplayModel = model, display: Display = display) -> None:
            model.put_rois(display, "unknown", "/data/run", {"z": 3}, SPOT)

        if rois_first:
            send_rois()
        for z in (1, 3, 5):
            model.put_image(display, "raw", "/data/run", {"z": z}, [], np.zeros((4, 4), np.uint8))
        if not rois_first:
            send_rois()
        (layer,) = [each for each in model.layers() if isinstance(each, RoiLayer)]
        assert (layer.name, layer.axes, list(layer.rois)) == ("raw ROIs", ("z",), [(1,)])
        model.put_image(display, "raw", "/data/run", {"z": 2}, [], np.zeros((4, 4), np.uint8))
        (layer,) = [each for each in model.layers() if isinstance(each, RoiLayer)]
        assert list(layer.rois) == [(2,)]
        model.put_rois(display, "unknown", "/data/run", {"z": 3}, unpack_rois(pack_rois([])))
        (layer,) = [each for each in model.layers() if isinstance(each, RoiLayer)]
        assert layer.rois == {}


def test_clearing_a_source() -> None:
    model, display = DisplayModel(DEFAULTS), Display(source="stack")
    for source in ("a", "b"):
        model.put_image(display, source, "", {}, [], np.ones((2, 2), np.uint8))
    model.clear("a")
    (layer,) = images(model).values()
    assert layer.missing.tolist() == [True, False]
    assert layer.array[:, 0, 0].tolist() == [0, 1]
    model.clear()
    assert model.layers() == []
    assert model.take_changes().removed == [layer.id]


def test_no_memory_for_one_item_fails_that_alone() -> None:
    model, display = DisplayModel(DEFAULTS), Display()
    model.put_image(display, "raw", "", {"z": 1}, [], np.ones((2, 2), np.uint8))
    whole = np.zeros((1, 1), np.float64)
    huge = np.lib.stride_tricks.as_strided(whole, (1 << 24, 1 << 24), (0, 0))
    with pytest.raises(MemoryError):
        model.put_image(display, "raw", "", {"z": 2}, [], huge)
    model.put_image(display, "raw", "", {"z": 3}, [], np.full((2, 2), 3, np.uint8))
    (layer,) = images(model).values()
    assert layer.array[-1, 0, 0] == 3


def test_planes_without_a_channel_count_where_the_layer_has_one() -> None:
    model, display = DisplayModel({}), Display()
    model.put_image(display, "raw", "", {"z": 1}, [], np.array([[0, 5000]], np.uint16))
    model.put_image(display, "raw", "", {"z": 1, "channel": 2}, [], np.array([[10, 20]], np.uint16))
    (layer,) = images(model).values()
    assert layer.contrast == {None: (0.0, 5000.0)}


def test_one_source_of_a_layer_is_cleared() -> None:
    model, display = DisplayModel({}), Display(source="stack")
    for t in range(300):
        for number, source in enumerate("ab"):
            model.put_image(display, source, "", {"t": t}, [], np.full((2, 2), 1 + t + 1000 * number, np.uint16))
    model.take_changes()
    model.put_image(display, "a", "", {"t": 7}, [], np.full((2, 2), 9, np.uint16))
    model.put_image(display, "b", "", {"t": 8}, [], np.full((2, 2), 9, np.uint16))
    model.clear("b")
    (layer,) = model.take_changes().images
    assert layer.contrast == {None: (1.0, 300.0)}
    assert layer.changed == {(0, 7), *((1, t) for t in range(300))}
    assert layer.missing.tolist() == [[False] * 300, [True] * 300]
    assert not layer.array[1].any()
    assert layer.array[0, :, 0, 0].tolist() == [9 if t == 7 else 1 + t for t in range(300)]


def test_rois_of_two_steps_on_one_plane_are_told_apart() -> None:
    model, display, place = DisplayModel({"source": "layer"}), Display(), {"well": "A01"}
    model.put_image(display, "raw", "/f", place, [], np.ones((4, 5), np.uint16))

    def put(source: str, name: str) -> None:
        model.put_rois(display, source, "/f", place, unpack_rois(pack_rois([Roi(name, Points([(1.0, 2.0)]))])))

    def names() -> list[str]:
        layers = [layer for layer in model.layers() if isinstance(layer, RoiLayer)]
        return [roi.id for layer in layers for rois in layer.rois.values() for roi in rois]

    put("a", "of a")
    put("b", "of b")
    model.take_changes()
    model.clear("a")
    assert (names(), model.take_changes().removed) == (["of b"], [])
    put("a", "again of a")
    assert names() == ["again of a"]
    model.clear("a")
    assert names() == []
    put("b", "again of b")
    assert names() == ["again of b"]
    model.take_changes()
    model.clear()
    removed = model.take_changes().removed
    assert len(removed) == len(set(removed)) == 2
    assert model.layers() == []


def test_values_are_sorted_as_people_read_them() -> None:
    values = ["B03", "A10", 10, "A2", None, 9, "a1"]
    assert sorted(values, key=value_key) == [None, 9, 10, "a1", "A2", "A10", "B03"]
    axis = AxisValues()
    for value in values:
        axis.add((value,))
    assert [value for (value,) in axis.values] == sorted(values, key=value_key)


# -- items


class Scope(Components, frozen=True, kw_only=True):
    """What the names of a microscope say that no other's do."""

    lamp: str = ""


class Parser:
    name = "ours"

    def parse(self, path: str) -> Components | None:
        lamp, _, rest = path.rpartition("/")[2].partition("-")
        found = get_parser("imagexpress").parse(rest)
        return None if found is None else Scope(well=found.well, z=found.z, channel=found.channel, lamp=lamp)

    def format(self, components: Components) -> str:
        raise ConfigError("never")


def test_components_that_a_parser_adds() -> None:
    item = item_of(np.zeros((2, 2)), "/some/where/led-A01_w1_z3.tif", Parser())
    assert isinstance(item, ImageItem)
    assert item.place == {"well": "A01", "channel": 1, "z": 3, "lamp": "led"}
    model = DisplayModel(DEFAULTS)
    model.put_image(Display(others={"lamp": "window"}), "raw", "", item.place, [], item.array)
    assert next(iter(images(model))) == "lamp led/raw"


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("/absolute/../x/A01_s1_w2_z3_t4.tif", {"well": "A01", "field": 1, "channel": 2, "z": 3, "t": 4}),
        ("C:\\data\\A01_s1_w2.TIF", {"well": "A01", "field": 1, "channel": 2}),
        ("A01_s1_w2_z3.npy", {"well": "A01", "field": 1, "channel": 2, "z": 3}),
        ("TimePoint_2/ZStep_5/A01_s1_w2.tif", {"well": "A01", "field": 1, "channel": 2, "z": 5, "t": 2}),
    ],
)
def test_any_path_is_a_name(name: str, place: dict[str, Any]) -> None:
    item = item_of(np.zeros((2, 2)), name, get_parser("auto"))
    assert isinstance(item, ImageItem)
    assert (item.name, item.place) == (name, place)


def test_names_of_rois_may_have_more_to_them() -> None:
    item = item_of([], "results/A01_s1_w2_z3_nuclei_step7.roi.zip", get_parser("auto"))
    assert isinstance(item, RoiItem)
    assert item.place == {"well": "A01", "field": 1, "channel": 2, "z": 3}
    with pytest.raises(ConfigError, match="so its place is not known"):
        item_of(np.zeros((2, 2)), "A01_s1_w2_z3_nuclei.tif", get_parser("auto"))
    with pytest.raises(ConfigError, match=r"3 axes before \(y, x\), and its name leaves t"):
        item_of(np.zeros((2, 2, 2, 4, 5)), "A01_w1_z1.tif", get_parser("auto"))
