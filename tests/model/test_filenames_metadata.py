"""The files that describe plates are read as they are; damaged and hostile ones end in a DatasetError, soon."""

from __future__ import annotations

import random
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mutoscope.model import _xml, filenames
from mutoscope.model.errors import DatasetError
from mutoscope.model.filenames import cellvoyager, imagexpress, opera_phenix
from mutoscope.model.plate import PlateGeometry

HTD = b""""HTSInfoFile", Version 1.0
"Description", "two dyes \x82\x81 3 \xb5m apart"
"TimePoints", 2
"ZSeries", TRUE
"ZSteps", 3
"ZProjection", TRUE
"XWells", 4
"YWells", 2
"WellsSelection1", FALSE, TRUE, FALSE, FALSE
"WellsSelection2", FALSE, FALSE, FALSE, TRUE
"Sites", TRUE
"XSites", 2
"YSites", 2
"SiteSelection1", TRUE, FALSE
"SiteSelection2", TRUE, TRUE
"Waves", TRUE
"NWavelengths", 2
"WaveName1", "DAPI"
"WaveName2", "Texas Red"
"UniquePlateIdentifier", "6f0b"
"EndFile"
"""

PROFILE = (
    "{Background: {Character: NonFlat, Mean: 10.5, Profile: {Coefficients: [[1.2], [0.1, -2E-3]]}}, Version: Acapella:2013}"
)


def index_xml(url="r01c02f03p04-ch5sk6fk1fl1.tiff", profile=PROFILE, y="1.5E-04"):
    return f"""<?xml version="1.0" encoding="utf-8"?>
<EvaluationInputData xmlns="http://www.perkinelmer.com/PEHH/HarmonyV5">
<Plates><Plate><PlateID>P1</PlateID><Name>plate one</Name>
<PlateRows>8</PlateRows><PlateColumns>12</PlateColumns></Plate></Plates>
<Wells><Well><id>0102</id><Row>1</Row><Col>2</Col><Image id="0102K1F3P4R5" /></Well></Wells>
<Maps><Map><Entry ChannelID="5"><FlatfieldProfile>{escape(profile)}</FlatfieldProfile></Entry></Map></Maps>
<Images><Image Version="1"><id>0102K1F3P4R5</id><State>Ok</State><URL>{escape(url)}</URL><Row>1</Row><Col>2</Col>
<FieldID>3</FieldID><PlaneID>4</PlaneID><TimepointID>5</TimepointID><ChannelID>5</ChannelID>
<ChannelName>Alexa 647</ChannelName>
<ImageResolutionX Unit="m">5.9797E-07</ImageResolutionX><ImageSizeX>1080</ImageSizeX><ImageSizeY>1000</ImageSizeY>
<PositionX Unit="m">-2E-04</PositionX><PositionY Unit="m">{y}</PositionY><PositionZ Unit="m">-5E-06</PositionZ>
<ExposureTime Unit="s">0.01</ExposureTime></Image></Images></EvaluationInputData>""".encode()


MLF = b"""<?xml version="1.0" encoding="utf-8"?>
<bts:MeasurementData bts:Version="1.0" xmlns:bts="http://www.yokogawa.co.jp/BTS/BTSSchema/1.0">
<bts:MeasurementRecord bts:Type="IMG" bts:Time="2023-09-18T13:58:44.438+02:00" bts:Column="8" bts:Row="4"
 bts:TimePoint="1"
 bts:FieldIndex="2" bts:ZIndex="3" bts:TimelineIndex="1" bts:ActionIndex="1" bts:Action="3D" bts:X="-567.1" bts:Y="402.9"
 bts:Z="6.0" bts:Ch="4">x_D08_T0001F002L01A01Z03C04.tif</bts:MeasurementRecord>
<bts:MeasurementRecord bts:Type="ERR" bts:Time="2023-09-18T13:58:45"
 bts:Column="9" bts:Row="27">no focus</bts:MeasurementRecord>
</bts:MeasurementData>"""

MRF = b"""\xef\xbb\xbf<?xml version="1.0" encoding="utf-8"?>
<bts:MeasurementDetail bts:Title="run" bts:ColumnCount="12" bts:RowCount="8" bts:TimePointCount="1" bts:FieldCount="4"
 bts:ZCount="4" xmlns:bts="http://www.yokogawa.co.jp/BTS/BTSSchema/1.0">
<bts:MeasurementChannel bts:Ch="2" bts:HorizontalPixelDimension="0.325" bts:VerticalPixelDimension="0.325" bts:CameraNumber="3"
 bts:InputBitDepth="16" bts:HorizontalPixels="2000" bts:VerticalPixels="1500" bts:ShadingCorrectionSource="SC.tif" />
</bts:MeasurementDetail>"""

READERS = [
    (imagexpress.read_htd, HTD),
    (opera_phenix.read_index, index_xml()),
    (cellvoyager.read_mlf, MLF),
    (cellvoyager.read_mrf, MRF),
]


def test_htd():
    found = imagexpress.read_htd(HTD)
    assert found.plate == PlateGeometry(2, 4)
    assert found.wells == ["A02", "B04"]
    assert found.sites == [(0, 0), (1, 0), (1, 1)]
    assert found.channels == ["DAPI", "Texas Red"]
    assert (found.timepoints, found.z_steps, found.z_projection, found.plate_id) == (2, 3, True, "6f0b")
    assert found.description.endswith("3 µm apart")


def test_phenix_index():
    found = opera_phenix.read_index(index_xml())
    (image,) = found.images
    assert (found.plate_id, found.name, found.plate) == ("P1", "plate one", PlateGeometry(8, 12))
    assert (image.y_um, image.x_um, image.z_um) == (-150.0, -200.0, -5.0), "rows of an image go down, Harmony's y goes up"
    said = filenames.parse(image.name)
    assert (image.well, image.field, image.z, image.t, image.channel) == (said.well, said.field, said.z, said.t, said.channel)
    channel = found.channels[5]
    assert (channel.name, channel.exposure_ms, channel.pixel_size_um, channel.shape) == (
        "Alexa 647",
        10.0,
        0.59797,
        (1000, 1080),
    )
    assert channel.flatfield == PROFILE
    assert opera_phenix.read_flatfield(channel.flatfield) == {
        "Background": {"Character": "NonFlat", "Mean": 10.5, "Profile": {"Coefficients": [[1.2], [0.1, -0.002]]}},
        "Version": "Acapella:2013",
    }
    assert opera_phenix.read_index(iter([index_xml()[:700], index_xml()[700:]])) == found


def test_voyager_records():
    found = cellvoyager.read_mlf(MLF)
    (image,) = found.images
    assert (image.well, image.field, image.channel, image.z, image.t) == ("D08", 2, 4, 3, 1)
    assert (image.y_um, image.x_um, image.z_um) == (-402.9, -567.1, 6.0)
    assert [(error.well, error.message) for error in found.errors] == [("AA09", "no focus")]
    detail = cellvoyager.read_mrf(MRF)
    assert (detail.plate, detail.title, detail.fields, detail.z_steps) == (PlateGeometry(8, 12), "run", 4, 4)
    assert detail.channels[2].pixel_size_um == 0.325
    assert detail.channels[2].shape == (1500, 2000)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "C:\\x.tif", "a/../../b.tif", "", "..", "a//b"])
def test_lists_do_not_lead_outside(name):
    with pytest.raises(DatasetError, match="below its own folder"):
        opera_phenix.read_index(index_xml(url=name or "."))
    with pytest.raises(DatasetError, match="below its own folder"):
        cellvoyager.read_mlf(MLF.replace(b"x_D08_T0001F002L01A01Z03C04.tif", name.encode()))


BOMB = b"""<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">
<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">
<!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;">]><Plate><PlateID>&d;</PlateID></Plate>"""
OUTSIDE = (
    b"""<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><Plate><PlateID>&x;</PlateID></Plate>"""
)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("read", [opera_phenix.read_index, cellvoyager.read_mlf, cellvoyager.read_mrf])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 1000,
        BOMB,
        OUTSIDE,
        b"<Plate>" * 1_000_000,
        b"<x>" * 65 + b"</x>" * 65,
        b"<x>\xff</x>",
        b'<?xml version="1.0" encoding="klingon"?><x/>',
        b'<?xml version="1.0" encoding="utf-7"?><x/>',
        b"<Plate a='1' a='2'/>",
        b"<Plate>" + b"a" * 20_000_000 + b"</Plate>",
        b"<a/>",
    ],
    ids=["empty", "zeros", "bomb", "outside", "deep", "too_deep", "bytes", "klingon", "utf-7", "twice", "long", "nothing"],
)
def test_hostile_documents(read, data):
    with pytest.raises(DatasetError):
        read(data)


def test_no_document_type_is_expanded():
    with pytest.raises(DatasetError, match="document type"):
        _xml.elements(BOMB, ["Plate"], what="x")


@pytest.mark.parametrize(("read", "data"), READERS, ids=lambda each: getattr(each, "__name__", ""))
def test_every_truncation_and_many_flips(read, data):
    chance = random.Random(5)
    damaged = [data[:length] for length in range(0, len(data), 7)]
    for _ in range(600):
        flipped = bytearray(data)
        for _ in range(chance.choice([1, 1, 3, 20])):
            flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        damaged.append(bytes(flipped))
    outcomes = set()
    for each in damaged:
        try:
            read(each)
            outcomes.add("read")
        except DatasetError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"hello", "no .HTD file"),
        (HTD.replace(b'"XWells", 4', b'"XWells", 400000000000'), "XWells"),
        (HTD.replace(b'"YWells", 2', b'"YWells", many'), "YWells of an .HTD file is no number"),
        (HTD.replace(b'"NWavelengths", 2', b'"NWavelengths", 99999999'), "NWavelengths"),
        (HTD.replace(b'"YSites", 2', b'"YSites", -1'), "YSites"),
    ],
)
def test_impossible_htd(data, message):
    with pytest.raises(DatasetError, match=message):
        imagexpress.read_htd(data)


@settings(deadline=None)
@given(st.text(alphabet="{}[]:, aA1.-", max_size=60))
def test_any_profile_is_read_or_refused(text):
    try:
        assert isinstance(opera_phenix.read_flatfield(text), dict)
    except DatasetError:
        pass


def test_deep_profile():
    with pytest.raises(DatasetError, match="deep"):
        opera_phenix.read_flatfield("{a: " * 10_000 + "}" * 10_000)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_no_htd(data):
    with pytest.raises(DatasetError):
        imagexpress.read_htd(data)


@pytest.mark.external_data
def test_real_imagexpress_plate(external_data):
    folder = external_data / "hcs/imagexpress_exported_3434"
    files = [path for path in folder.rglob("*") if path.is_file()]
    found = {imagexpress.read_htd(path.read_bytes()).plate_id for path in files if path.suffix == ".HTD"}
    assert found == {"6f0ba473-d18a-4a31-8db8-e2087bc78145"}
    htd = imagexpress.read_htd(next(folder.rglob("*.HTD")).read_bytes())
    planes = [said for path in files if (said := filenames.parse(str(path))).kind == "image"]
    assert {plane.well for plane in planes} == set(htd.wells)
    assert {plane.field for plane in planes} == {1, 2}
    assert len(htd.sites) == 2
    assert max(plane.channel for plane in planes) <= len(htd.channels)
    assert {plane.z for plane in planes if not plane.projection} <= set(range(1, htd.z_steps + 1))
    assert filenames.detect(str(path) for path in files).name == "imagexpress"


@pytest.mark.external_data
def test_real_phenix_index(external_data):
    path = next((external_data / "hcs/opera_phenix_v1").rglob("Index*.xml"))
    index = opera_phenix.read_index(path.read_bytes())
    assert (index.plate, len(index.images), len(index.channels)) == (PlateGeometry(16, 24), 6, 6)
    for image in index.images:
        assert (path.parent / image.name).exists()
        said = filenames.parse(image.name)
        assert (image.well, image.field, image.z, image.t, image.channel) == (
            said.well,
            said.field,
            said.z,
            said.t,
            said.channel,
        )
        profile = opera_phenix.read_flatfield(index.channels[image.channel].flatfield)
        assert (profile["Channel"], profile["ChannelName"]) == (image.channel, index.channels[image.channel].name)
    for cut in range(0, path.stat().st_size - 200, 5000):
        with pytest.raises(DatasetError):
            opera_phenix.read_index(path.read_bytes()[:cut])


@pytest.mark.external_data
def test_real_voyager_plate_is_incomplete(external_data):
    path = next((external_data / "hcs").rglob("*.mlf"))
    records = cellvoyager.read_mlf(path.read_bytes())
    detail = cellvoyager.read_mrf(next(path.parent.glob("*.mrf")).read_bytes())
    assert (detail.plate, detail.fields, detail.z_steps) == (PlateGeometry(8, 12), 4, 4)
    listed = {image.name: image for image in records.images}
    there = {each.name for each in path.parent.glob("*_T0*.tif")}
    assert there < set(listed), "well F08 is listed but not among the files"
    for name, image in listed.items():
        said = filenames.parse(name)
        assert (image.well, image.field, image.z, image.t, image.channel) == (
            said.well,
            said.field,
            said.z,
            said.t,
            said.channel,
        )
