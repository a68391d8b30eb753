"""Frame headers travel as plain values; units convert as the cited sources say."""

from __future__ import annotations

import math

import msgspec
import pytest
import useq

from mutoscope.model import FrameInfo, PlaneIndex, units
from mutoscope.model.errors import ConfigError


def test_a_header_crosses_msgpack():
    info = FrameInfo(7, 9, 123, 456, 10.0, (512, 640), "uint16", PlaneIndex(t=3, z=2), b"\x00user")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(info), type=FrameInfo) == info
    assert math.isnan(FrameInfo(1).exposure_ms)
    with pytest.raises(AttributeError):
        info.tick = 3


def test_the_index_of_a_useq_event():
    sequence = useq.MDASequence(
        axis_order="tpgcz",
        time_plan={"interval": 0, "loops": 2},
        stage_positions=[(0, 0), (10, 0)],
        grid_plan={"rows": 2, "columns": 2, "fov_width": 1, "fov_height": 1},
        channels=["A", "B"],
        z_plan={"range": 2, "step": 1},
    )
    tiles = sequence.sizes["g"]
    places = {PlaneIndex.from_axes(event.index, grid_size=tiles) for event in sequence}
    assert len(places) == 2 * 2 * 4 * 2 * 3, "every event has a place of its own"
    assert {place.position for place in places} == set(range(8))
    assert PlaneIndex.from_axes({}) == PlaneIndex()
    assert not PlaneIndex().is_placed
    assert PlaneIndex.from_axes({"z": 0}).is_placed


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [(65, "nm", 0.065), (0.5, "µm", 0.5), (0.5, "\u03bcm", 0.5), (0.5, "\\u00B5m", 0.5), (2, "micron", 2.0), (1, "mm", 1000.0)],
)
def test_lengths(value, unit, expected):
    assert units.length_um(value, unit) == pytest.approx(expected)


def test_times_and_exposures():
    assert units.exposure_ms_from_ome(0.25) == 250.0
    assert units.exposure_ms_from_ome(250, "ms") == 250.0
    assert units.exposure_s_for_ome(250.0) == 0.25
    assert units.exposure_s_for_ome(math.nan) is None
    assert units.time_ms(2, "second") == 2000.0
    assert units.s_to_ms(units.ms_to_s(12.5)) == 12.5


def test_unknown_units_are_refused_by_name():
    with pytest.raises(ConfigError, match="'pixel' is not a unit of length"):
        units.length_um(1, "pixel")


def test_pixel_size_attributes():
    assert units.pixel_size_attributes_for_ome(None) == {}
    assert units.pixel_size_attributes_for_ome(0.1)["PhysicalSizeYUnit"] == "µm"
