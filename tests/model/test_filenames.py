"""File names of many microscopes are read, and rebuilt exactly; what is none is refused."""

from __future__ import annotations

import sys
import types
from importlib import metadata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mutoscope.model import filenames
from mutoscope.model.errors import BackendUnavailableError, ConfigError
from mutoscope.model.filenames import Components, Pattern, PatternParser
from mutoscope.model.filenames.components import fill
from mutoscope.model.plate import PlateGeometry, WellName

GUID = "17654C10-3E85-4358-AE51-A465AF87386F"

EXAMPLES = [
    ("9987_B02_s1_w1.TIF", "imagexpress", {"source": "9987", "well": "B02", "field": 1, "channel": 1}),
    ("A01_s1_w2_z3_t1.tif", "imagexpress", {"well": "A01", "field": 1, "channel": 2, "z": 3, "t": 1}),
    ("A01_w2.tif", "imagexpress", {"well": "A01", "channel": 2}),
    ("AF48_s12.tif", "imagexpress", {"well": "AF48", "field": 12}),
    (f"a_b_C05_s1_w1{GUID}.tif", "imagexpress", {"source": "a_b", "well": "C05", "field": 1, "channel": 1}),
    (f"x_C05_s1_w12{GUID}.tif", "imagexpress", {"source": "x", "well": "C05", "field": 1, "channel": 12}),
    ("A01_B02_s1_w1.tif", "imagexpress", {"source": "A01", "well": "B02", "field": 1, "channel": 1}),
    (
        "p\\TimePoint_2\\ZStep_3\\p_B02_s1_w1.TIF",
        "imagexpress",
        {"source": "p", "well": "B02", "field": 1, "channel": 1, "z": 3, "t": 2},
    ),
    (
        "e/timepoint0/a_t0_C05_s0_w0_z0.tif",
        "imagexpress",
        {"source": "a", "well": "C05", "field": 0, "channel": 0, "z": 0, "t": 0},
    ),
    ("r27c01f01p02-ch3sk4fk1fl1.tiff", "opera_phenix", {"well": "AA01", "field": 1, "channel": 3, "z": 2, "t": 4}),
    (
        "x_D08_T0001F003L01A02Z04C02.tif",
        "cellvoyager",
        {"source": "x", "well": "D08", "field": 3, "channel": 2, "z": 4, "t": 1},
    ),
    ("MFG_A01f00d0.C01", "cellomics", {"source": "MFG", "well": "A01", "field": 0, "channel": 0}),
    ("A - 8(fld 1 wv Cy5 - Cy5).tif", "incell", {"well": "A08", "field": 1, "channel": "Cy5 - Cy5"}),
    (
        "B2--W00014--P00001--Z00000--T00000--405 nm #1.tif",
        "scanr",
        {"well": "B02", "field": 1, "channel": "405 nm #1", "z": 0, "t": 0},
    ),
    ("01_POS002_D.TIF", "cellprofiler_fly", {"source": "01", "field": 2, "channel": "D"}),
]


@pytest.mark.parametrize(("name", "parser", "place"), EXAMPLES, ids=[name for name, _, _ in EXAMPLES])
def test_examples(name, parser, place):
    found = filenames.parse(name)
    assert (found.parser, found.place(), found.kind) == (parser, place, "image")
    assert filenames.parse(name, parser) == found
    assert filenames.format(found) == name
    assert filenames.format(found, parser) == name


@pytest.mark.parametrize("name", filenames.VENDORS)
def test_every_vendor_has_an_example(name):
    assert name in {parser for _, parser, _ in EXAMPLES}


def test_thumbnails_and_projections_say_so():
    thumb = filenames.parse(f"p_C05_s1_w1_thumb{GUID}.tif")
    assert (thumb.kind, thumb.channel) == ("thumbnail", 1)
    projection = filenames.parse("TimePoint_1/ZStep_0/p_C05_s1_w1.TIF")
    assert (projection.projection, projection.z, projection.t) == (True, None, 1)
    assert filenames.parse("ZStep_1/p_C05_s1_w1.TIF").projection is False
    assert filenames.parse("Projection/W0029F0001T0001Z000C1.tif").projection is True
    assert filenames.parse("TimePoint_3/9987.HTD").kind == "metadata"


def test_a_well_number_needs_the_plate():
    found = filenames.parse("W0029F0001T0001Z003C1.tif")
    assert (found.well, found.well_number, found.z) == (None, 29, 3)
    assert found.on_plate(PlateGeometry.standard(96)).well == "C05"
    assert found.on_plate(PlateGeometry.standard(384)).well == "B05"
    with pytest.raises(ConfigError, match="1 to 6"):
        found.on_plate(PlateGeometry.standard(6))


def test_the_inner_part_of_a_path_wins():
    found = filenames.parse("TimePoint_7/A01_s1_w1_t2.tif")
    assert found.t == 2
    assert filenames.format(found) == "TimePoint_7/A01_s1_w1_t2.tif"
    assert filenames.parse("TimePoint_1/TimePoint_2/A01_s1_w1.tif").t == 2


def test_indices_start_at_0_whoever_counted():
    assert filenames.parse("A01_s1_w2_z3_t1.tif").indices() == {"field": 0, "channel": 1, "z": 2, "t": 0}
    assert filenames.parse("a_t0_C05_s0_w0_z2.tif").indices() == {"field": 0, "channel": 0, "z": 2, "t": 0}


def test_a_changed_plane_gets_its_own_name():
    found = filenames.parse("run/TimePoint_2/x{1}_B02_s1_w1.tif")
    assert filenames.format(found.replace(well="AA3", site=12, timepoint=10)) == "run/TimePoint_10/x{1}_AA03_s12_w1.tif"
    with pytest.raises(ConfigError, match="needs the component field"):
        filenames.format(found.replace(field=None))


def test_components_by_other_names():
    assert Components.of({"site": 3, "z_index": 1, "timepoint": 0, "well": "aa1"}).place() == {
        "well": "AA01",
        "field": 3,
        "z": 1,
        "t": 0,
    }
    for wrong, message in [
        ({"site": 1, "field": 1}, "given twice"),
        ({"plane": 1}, "no component 'plane'"),
        ({"z": "three"}, "not the components"),
        ({"z": -1}, "number from 0"),
        ({"well": "99"}, "not a well name"),
    ]:
        with pytest.raises(ConfigError, match=message):
            Components.of(wrong)


def test_names_from_nothing():
    plane = Components(well="B03", field=1, channel=2)
    assert filenames.format(plane, "imagexpress") == "B03_s1_w2.tif"
    full = Components(source="x", well="B03", field=1, channel=2, z=3, t=4)
    for vendor in ("imagexpress", "cellvoyager"):
        assert filenames.parse(filenames.format(full, vendor), vendor).place() == full.place()
    with pytest.raises(ConfigError, match="makes no name of just"):
        filenames.format(plane, "cellvoyager")
    with pytest.raises(ConfigError, match="after which vendor"):
        filenames.format(plane)
    with pytest.raises(ConfigError, match="after which vendor"):
        filenames.format(plane, "auto")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "a/",
        "notes.txt",
        "A00_s1_w1.tif",
        "s1_w1.png",
        "r00c00f01p01-ch1sk1fk1fl1.tiff",
        "A01_s1_w1.tif\0",
        "A01_s1_w1.tif/",
    ],
)
def test_what_is_no_name(name):
    with pytest.raises(ConfigError, match="not a file name of"):
        filenames.parse(name)


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_a_name_or_refused(text):
    try:
        found = filenames.parse(text)
    except ConfigError:
        return
    assert filenames.format(found) == text


@pytest.mark.timeout(20)
@pytest.mark.parametrize("unit", ["A01_", "A01_s1_w", "A", "_", "1", "a-", "TimePoint_1/", "../", "--W00014", "(fld 1 wv "])
def test_long_names_end_soon(unit):
    for length in (4096, 100_000):
        text = (unit * length)[: length - 4] + ".tif"
        try:
            assert filenames.format(filenames.parse(text)) == text
        except ConfigError:
            pass


source = st.from_regex(r"[A-Za-z0-9 {}.\-]([A-Za-z0-9 {}.\-_]{0,12}[A-Za-z{}\-])?", fullmatch=True)
count = st.integers(0, 99)


@st.composite
def imagexpress_names(draw):
    """Return a name as MetaXpress may write it, and what it says."""
    well = draw(st.builds(WellName, st.integers(0, 700), st.integers(0, 98)))
    place = {"well": str(well), "field": draw(st.integers(1, 99)), "channel": draw(st.integers(1, 99))}
    text = f"{well}_s{place['field']}_w{place['channel']}"
    if draw(st.booleans()):
        place["source"] = draw(source)
        text = f"{place['source']}_{text}"
    if draw(st.booleans()):
        text += "_thumb"
    if draw(st.booleans()):
        text += str(draw(st.uuids())).upper()
    folders = ""
    if draw(st.booleans()):
        place["t"] = draw(st.integers(1, 999))
        folders += f"TimePoint_{place['t']}/"
        if draw(st.booleans()):
            place["z"] = draw(st.integers(1, 99))
            folders += f"ZStep_{place['z']}/"
    return f"{folders}{text}{draw(st.sampled_from(['.tif', '.TIF', '.tiff']))}", place


@settings(deadline=None)
@given(imagexpress_names())
def test_imagexpress_names_there_and_back(example):
    name, place = example
    found = filenames.parse(name, "imagexpress")
    assert found.place() == place
    assert filenames.format(found) == name


@settings(deadline=None)
@given(
    st.integers(1, 99),
    st.integers(1, 99),
    count,
    count,
    st.integers(0, 99),
    st.integers(1, 999),
    st.sampled_from(["", "r/", "r\\"]),
)
def test_phenix_names_there_and_back(row, column, field, z, channel, t, folder):
    name = f"{folder}r{row:02}c{column:02}f{field:02}p{z:02}-ch{channel}sk{t}fk1fl1.tiff"
    found = filenames.parse(name, "opera_phenix")
    assert found.well == str(WellName(row - 1, column - 1))
    assert (found.field, found.channel, found.t) == (field, channel, t)
    assert (found.z, found.projection) == ((z, False) if z else (None, True))
    assert filenames.format(found) == name


@settings(deadline=None)
@given(
    source, st.builds(WellName, st.integers(0, 700), st.integers(0, 98)), count, count, st.integers(1, 99), st.integers(1, 9999)
)
def test_voyager_names_there_and_back(plate, well, field, channel, z, t):
    name = f"{plate}_{well}_T{t:04}F{field:03}L01A02Z{z:02}C{channel:02}.tif"
    found = filenames.parse(name, "cellvoyager")
    assert found.place() == {"source": plate, "well": str(well), "field": field, "channel": channel, "z": z, "t": t}
    assert filenames.format(found) == name


OURS = PatternParser("ours", [Pattern(r"(?P<row>[a-p])(?P<column>\d\d)-(?P<site>\d+)\.tif", counted_from_0=("field",))])


def test_own_patterns():
    found = filenames.parse("b03-07.tif", OURS)
    assert (found.well, found.indices()) == ("B03", {"field": 7})
    assert filenames.format(found.replace(well="C04", field=12), OURS) == "c04-12.tif"
    with pytest.raises(ConfigError, match="not a file name of ours"):
        filenames.parse("b03.tif", OURS)
    with pytest.raises(ConfigError, match="unknown group"):
        PatternParser("x", [Pattern(r"(?P<plane>\d)")])
    with pytest.raises(ConfigError, match="no regular expression"):
        PatternParser("x", [Pattern(r"(?P<z>\d")])
    with pytest.raises(ConfigError, match="no place called"):
        fill("{plane}", Components())


def test_parsers_by_name(monkeypatch):
    assert filenames.get_parser("Opera-Phenix").name == "opera_phenix"
    assert filenames.get_parser(OURS) is OURS
    with pytest.raises(ConfigError, match="did you mean 'imagexpress'"):
        filenames.get_parser("imagexpres")
    module = types.ModuleType("lab_names")
    module.PARSER, module.NONE = OURS, 3
    monkeypatch.setitem(sys.modules, "lab_names", module)
    assert filenames.get_parser("lab_names:PARSER") is OURS
    with pytest.raises(ConfigError, match="no file name parser"):
        filenames.get_parser("lab_names:NONE")
    for missing in ("lab_names:ABSENT", "no_such_module_here:x"):
        with pytest.raises(BackendUnavailableError):
            filenames.get_parser(missing)


def test_parsers_of_entry_points(monkeypatch):
    module = types.ModuleType("lab_names")
    module.PARSER = OURS
    monkeypatch.setitem(sys.modules, "lab_names", module)

    def offer(*entries):
        points = [metadata.EntryPoint(name, value, filenames.ENTRY_POINTS) for name, value in entries]
        monkeypatch.setattr(metadata, "entry_points", lambda group: points)

    offer(("ours", "lab_names:PARSER"))
    assert filenames.get_parser("ours") is OURS
    assert "ours" in filenames.names()
    assert filenames.detect(["b03-07.tif"]) is OURS
    offer(("ours", "lab_names:PARSER"), ("Ours", "lab_names:OTHER"))
    with pytest.raises(ConfigError, match="two file name parsers"):
        filenames.get_parser("ours")
    offer(("imagexpress", "lab_names:PARSER"))
    with pytest.raises(ConfigError, match="two file name parsers"):
        filenames.get_parser("imagexpress")


def test_the_names_of_a_folder_tell_the_vendor():
    assert filenames.detect(["notes.txt", "9987.HTD", "9987_B02_s1_w1.TIF"]).name == "imagexpress"
    assert filenames.detect(["r01c01f01p01-ch1sk1fk1fl1.tiff"]).name == "opera_phenix"
    with pytest.raises(ConfigError, match="knows these names"):
        filenames.detect(["notes.txt"])


@pytest.mark.external_data
def test_all_real_names(external_data):
    """Each row of the table: its vendor's parser, and the plane as an expression of the test's own says."""
    vendors = {
        "CellProfiler ExampleFly (no well)": "cellprofiler_fly",
        "Cellomics ArrayScan": "cellomics",
        "InCell": "incell",
        "Olympus/Evident scanR": "scanr",
        "Revvity Operetta": "opera_phenix",
        "ImageXpress": "imagexpress",
        "Opera": "opera_phenix",
        "Yokogawa": "cellvoyager",
    }
    rows = [line.split("\t") for line in (external_data / "hcs/names/real_names.tsv").read_text().splitlines()[1:]]
    assert len(rows) > 150
    for vendor, path, _ in rows:
        expected = next(parser for begin, parser in vendors.items() if vendor.startswith(begin))
        found = filenames.parse(path)
        assert (found.parser, filenames.format(found)) == (expected, path)
        assert found.kind == ("metadata" if path.endswith(".HTD") else "thumbnail" if "_thumb" in path else "image")
        if found.kind == "metadata":
            continue
        tokens = {
            "imagexpress": "_t{t}_{well}_s{field}_w{channel}_z{z}." if "HCS.ai" in vendor else "_{well}_s{field}_w{channel}",
            "cellvoyager": "F{field:03}" if found.well else "F{field:04}T{t:04}",
            "opera_phenix": "f{field:02}p{z:02}-ch{channel}sk{t}fk",
        }
        written = tokens.get(expected, "").format(**found.place())
        assert written in path
        if expected == "cellvoyager" and found.well:
            assert f"_{found.well}_T{found.t:04}" in path
            assert path.endswith((f"Z{found.z:02}C{found.channel:02}.tif", f"Z{found.z:02}C{found.channel:02}.png"))
        if expected == "opera_phenix":
            well = WellName.parse(found.well)
            assert f"r{well.row + 1:02}c{well.column + 1:02}f" in path
