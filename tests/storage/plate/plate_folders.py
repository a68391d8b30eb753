"""Folders as microscopes write them, small and made up: every way of naming, and what else lies about in them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

GUID = "17654C10-3E85-4358-AE51-A465AF87386F"

HTD = """"HTSInfoFile", Version 1.0
"Description", "two dyes \udc82 3 \udcb5m apart"
"TimePoints", 2
"ZSeries", TRUE
"ZSteps", 2
"ZProjection", TRUE
"XWells", 12
"YWells", 8
"WellsSelection2", FALSE, TRUE, FALSE
"WellsSelection3", FALSE, FALSE, TRUE
"Sites", TRUE
"XSites", 2
"YSites", 1
"SiteSelection1", TRUE, TRUE
"Waves", TRUE
"NWavelengths", 2
"WaveName1", "DAPI"
"WaveName2", "Texas Red"
"UniquePlateIdentifier", "6f0b"
"EndFile"
"""


@cache
def plane_of(name: str, shape: tuple[int, int] = (40, 31), dtype: str = "uint16") -> np.ndarray[Any, Any]:
    """Return the plane that a name determines; no two names give the same one, and none is all zeros."""
    rng = np.random.default_rng(list(name.encode()))
    plane = rng.integers(1, np.iinfo(dtype).max, size=shape, dtype=dtype, endpoint=True)
    plane.flags.writeable = False
    return plane


def metaxpress(y: float, x: float, z: float, wavelength: float, setting: str) -> str:
    """Return a description as MetaXpress writes it."""
    props = {
        "spatial-calibration-state": "on",
        "spatial-calibration-x": "0.5",
        "spatial-calibration-units": "um",
        "stage-position-x": x + 20_000,
        "stage-position-y": y + 30_000,
        "z-position": z,
        "wavelength": wavelength,
        "_IllumSetting_": setting,
    }
    own = {"OffsetFromWellCenterUmX": x, "OffsetFromWellCenterUmY": y, "Exposure Time": "80 ms"}
    lines = [f'<prop id="{key}" type="string" value="{value}"/>' for key, value in props.items()]
    lines += [f'<custom-prop id="{key}" type="float" value="{value}"/>' for key, value in own.items()]
    return "<MetaData>\n<PlaneInfo>\n" + "\n".join(lines) + "\n</PlaneInfo>\n</MetaData>\n"


def write(path: Path, plane: np.ndarray[Any, Any], description: str | None = None, **options: Any) -> None:
    """Write a TIFF without anything that tifffile adds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, plane, description=description, metadata=None, photometric="minisblack", **options)


def imagexpress(folder: Path, shape: tuple[int, int] = (40, 31)) -> dict[str, np.ndarray[Any, Any]]:
    """Two wells, two sites, two wavelengths, three z folders of which one is a projection, two time points; returns the planes.

    Wavelength 2 is missing at the second time point. There are thumbnails, an .HTD that is not UTF-8, a note, and a file of
    another plate.
    """
    planes = {}
    for t in (1, 2):
        for z in (0, 1, 2):
            for well in ("B02", "C03"):
                for site in (1, 2):
                    for wave in (1, 2) if t == 1 else (1,):
                        name = f"TimePoint_{t}/ZStep_{z}/9987_{well}_s{site}_w{wave}{GUID}.TIF"
                        text = metaxpress(
                            -10.0, 100.0 * site, 50.0 + 3.0 * z, 450 + 100 * wave, ("DAPI", "Texas Red")[wave - 1]
                        )
                        planes[name] = plane_of(name, shape)
                        write(folder / name, planes[name], text)
    write(folder / f"TimePoint_1/ZStep_1/9987_B02_s1_w1_thumb{GUID}.TIF", plane_of("thumb", (8, 8)))
    (folder / "9987.HTD").write_bytes(HTD.encode("utf-8", "surrogateescape"))
    (folder / "TimePoint_1" / "9987.HTD").write_bytes(HTD.encode("utf-8", "surrogateescape"))
    (folder / "notes.txt").write_text("taken on a Monday\n", encoding="utf-8")
    write(folder / "other_B02_s1_w1.TIF", plane_of("other", shape))
    return planes


PROFILE = (
    "{Background: {Character: NonFlat, Mean: 10.5, Profile: {Coefficients: [[1.2], [0.1, -2E-3]]}}, Version: Acapella:2013}"
)


def opera_phenix(folder: Path, *, without: tuple[str, ...] = ()) -> dict[str, np.ndarray[Any, Any]]:
    """One well, two fields, two channels, two planes, LZW; Index.xml lists them all, files of `without` are not there."""
    planes, entries = {}, []
    for field in (1, 2):
        for z in (1, 2):
            for channel in (1, 2):
                name = f"r01c02f{field:02}p{z:02}-ch{channel}sk1fk1fl1.tiff"
                entries.append(
                    f"<Image><id>i</id><State>Ok</State><URL>{name}</URL><Row>1</Row><Col>2</Col><FieldID>{field}</FieldID>"
                    f"<PlaneID>{z}</PlaneID><TimepointID>0</TimepointID><ChannelID>{channel}</ChannelID>"
                    f"<ChannelName>{('HOECHST', 'Alexa 488')[channel - 1]}</ChannelName>"
                    '<ImageResolutionX Unit="m">5E-07</ImageResolutionX><ImageSizeX>31</ImageSizeX><ImageSizeY>40</ImageSizeY>'
                    f'<PositionX Unit="m">{field}E-04</PositionX><PositionY Unit="m">2E-04</PositionY>'
                    f'<PositionZ Unit="m">{2 * z}E-06</PositionZ>'
                    '<MainExcitationWavelength Unit="nm">405</MainExcitationWavelength>'
                    '<MainEmissionWavelength Unit="nm">0</MainEmissionWavelength>'
                    '<ExposureTime Unit="s">0.01</ExposureTime></Image>'
                )
                if name not in without:
                    planes[f"Images/{name}"] = plane_of(name)
                    write(folder / "Images" / name, planes[f"Images/{name}"], compression="lzw")
    (folder / "Images").mkdir(exist_ok=True)
    (folder / "Images/Index.xml").write_text(
        '<?xml version="1.0" encoding="utf-8"?><EvaluationInputData xmlns="http://www.perkinelmer.com/PEHH/HarmonyV5">'
        "<Plates><Plate><PlateID>P1</PlateID><Name>plate one</Name><PlateRows>8</PlateRows><PlateColumns>12</PlateColumns>"
        f"</Plate></Plates><Maps><Map><Entry ChannelID='2'><FlatfieldProfile>{PROFILE}</FlatfieldProfile></Entry></Map></Maps>"
        f"<Images>{''.join(entries)}</Images></EvaluationInputData>",
        encoding="utf-8",
    )
    return planes


def cellvoyager(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Two wells of which one has no files, two fields, two channels; .mlf, .mrf and .mes."""
    planes, records = {}, []
    space = 'xmlns:bts="http://www.yokogawa.co.jp/BTS/BTSSchema/1.0"'
    for row, well in ((4, "D08"), (6, "F08")):
        for field in (1, 2):
            for channel in (1, 2):
                name = f"run_{well}_T0001F{field:03}L01A{channel:02}Z01C{channel:02}.tif"
                records.append(
                    f'<bts:MeasurementRecord bts:Type="IMG" bts:Time="t" bts:Column="8" bts:Row="{row}" bts:TimePoint="1" '
                    f'bts:FieldIndex="{field}" bts:ZIndex="1" bts:X="{-100 * field}.5" bts:Y="200.5" bts:Z="6.0" '
                    f'bts:Ch="{channel}">{name}</bts:MeasurementRecord>'
                )
                if well == "D08":
                    planes[name] = plane_of(name)
                    write(folder / name, planes[name], compression="zlib")
    records.append(
        '<bts:MeasurementRecord bts:Type="ERR" bts:Time="t" bts:Column="8" bts:Row="6">no focus</bts:MeasurementRecord>'
    )
    (folder / "MeasurementData.mlf").write_text(
        f'<bts:MeasurementData bts:Version="1.0" {space}>{"".join(records)}</bts:MeasurementData>', encoding="utf-8"
    )
    channels = "".join(
        f'<bts:MeasurementChannel bts:Ch="{channel}" bts:HorizontalPixelDimension="0.325" bts:VerticalPixels="40" '
        f'bts:HorizontalPixels="31" bts:ShadingCorrectionSource="SC{channel}.tif"/>'
        for channel in (1, 2)
    )
    (folder / "MeasurementDetail.mrf").write_text(
        f'<bts:MeasurementDetail bts:Title="run" bts:ColumnCount="12" bts:RowCount="8" {space}>{channels}'
        "</bts:MeasurementDetail>",
        encoding="utf-8",
    )
    (folder / "run.mes").write_text(
        f"<bts:MeasurementSetting {space}><bts:LightSourceList>"
        '<bts:LightSource bts:Name="405nm" bts:WaveLength="405"/><bts:LightSource bts:Name="488nm" bts:WaveLength="488"/>'
        "</bts:LightSourceList><bts:ChannelList>"
        '<bts:Channel bts:Ch="1" bts:Acquisition="BP445/45" bts:ExposureTime="100" bts:Color="#FF002FFF">'
        "<bts:LightSourceName>405nm</bts:LightSourceName></bts:Channel>"
        '<bts:Channel bts:Ch="2" bts:Acquisition="BP525/50" bts:ExposureTime="250" bts:Color="#FF00FFA1">'
        "<bts:LightSourceName>488nm</bts:LightSourceName></bts:Channel></bts:ChannelList></bts:MeasurementSetting>",
        encoding="utf-8",
    )
    return planes


FOLDERS = {"imagexpress": imagexpress, "opera_phenix": opera_phenix, "cellvoyager": cellvoyager}
