"""Wells have names beyond Z, and plates number their wells row by row."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mutoscope.model.errors import ConfigError
from mutoscope.model.plate import MAX_ROWS, STANDARD_PLATES, PlateGeometry, WellName, row_letters, row_number

wells = st.builds(WellName, st.integers(0, MAX_ROWS - 1), st.integers(0, 998))


@settings(deadline=None)
@given(wells, st.integers(1, 3), st.booleans())
def test_a_name_leads_back_to_its_well(well, padding, lower):
    name = well.name(padding)
    assert WellName.parse(name.lower() if lower else name) == well


@pytest.mark.parametrize(
    ("text", "row", "column"),
    [("A01", 0, 0), ("z9", 25, 8), ("AA01", 26, 0), ("AF48", 31, 47), ("B - 3", 1, 2), (" P24 ", 15, 23)],
)
def test_names_as_people_write_them(text, row, column):
    assert WellName.parse(text) == WellName(row, column)


@pytest.mark.parametrize("text", ["", "A", "A00", "3B", "AAA1", "A1000", "Ä1", "A١", "A01/..", "A-1-2"])
def test_what_is_no_well(text):
    with pytest.raises(ConfigError, match="not a well name"):
        WellName.parse(text)


def test_rows_in_order():
    letters = [row_letters(row) for row in range(MAX_ROWS)]
    assert letters[:2] + letters[25:28] + letters[-1:] == ["A", "B", "Z", "AA", "AB", "ZZ"]
    assert [row_number(each) for each in letters] == list(range(MAX_ROWS))
    with pytest.raises(ConfigError):
        row_letters(MAX_ROWS)


def test_wells_sort_by_row_then_column():
    names = ["AA01", "B10", "B02", "Z03"]
    assert [str(well) for well in sorted(map(WellName.parse, names))] == ["B02", "B10", "Z03", "AA01"]


@pytest.mark.parametrize("count", STANDARD_PLATES)
def test_a_plate_numbers_its_wells(count):
    plate = PlateGeometry.standard(count)
    assert plate.rows * plate.columns == count
    assert [plate.number(well) for well in plate.wells()] == list(range(1, count + 1))
    assert all(plate.well(plate.number(well)) == well and well in plate for well in plate.wells())
    for outside in (0, count + 1):
        with pytest.raises(ConfigError):
            plate.well(outside)


@settings(deadline=None)
@given(st.lists(wells, max_size=8))
def test_a_plate_that_holds_them_does(some):
    plate = PlateGeometry.holding(some)
    assert all(well in plate for well in some)


def test_smallest_plates():
    assert PlateGeometry.holding([WellName.parse("H12")]) == PlateGeometry.standard(96)
    assert PlateGeometry.holding([WellName.parse("H13")]) == PlateGeometry.standard(384)
    assert PlateGeometry.holding([WellName.parse("A80")]) == PlateGeometry(1, 80)
    with pytest.raises(ConfigError, match="no standard plate"):
        PlateGeometry.standard(100)
    with pytest.raises(ConfigError):
        PlateGeometry(0, 5)
