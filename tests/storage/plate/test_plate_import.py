"""A vendor's folder becomes a plate: bit-exact for readers from elsewhere, what is left out or missing is told."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaozarrs
import zarr
from ome_zarr_models.v05 import HCS
from plate_folders import FOLDERS, GUID, HTD, PROFILE, cellvoyager, imagexpress, opera_phenix, plane_of, write
from plate_names import READERS, place, zarr_states

from mutoscope import storage
from mutoscope.model import filenames
from mutoscope.model.errors import ConfigError, DatasetError, DatasetExistsError, DatasetNotFoundError, DiskFullError
from mutoscope.storage._half import half
from mutoscope.storage.plate import ImportReport, import_plate, plate_info, plate_lines


def check_plate(root: Path, parser: str, planes: dict[str, np.ndarray[Any, Any]]) -> None:
    """Assert that stock readers find exactly these planes, and that validators from elsewhere find nothing wrong."""
    names = filenames.get_parser(parser)
    wanted = {place(names, name): plane for name, plane in planes.items()}
    for where, plane in wanted.items():
        for reader, read in READERS.items():
            found = read(root, where)
            assert found.dtype == plane.dtype, reader
            assert np.array_equal(found, plane), (reader, where)
    images = {where.image.path for where in wanted}
    info = plate_info(root)
    assert images <= {image["image"] for image in info["images"]}
    for image in info["images"]:
        states = zarr_states(root, image["image"])
        there = {where.tcz for where in wanted if where.image.path == image["image"]}
        assert {tuple(index) for index in np.argwhere(states).tolist()} == there
        assert set(np.unique(states)) <= {0, 1}
        names_array = zarr.open_array(root / image["image"] / "planes" / "name", mode="r")
        for at in there:
            stored = bytes(names_array[at]).rstrip(b"\0").decode()
            assert place(names, stored).tcz == at
            assert stored in planes
    validate(root)


def validate(root: Path) -> None:
    """Assert that yaozarrs and ome-zarr-models find plate, wells and images valid."""
    plate = yaozarrs.validate_zarr_store(str(root)).ome_metadata()
    assert isinstance(plate, yaozarrs.v05.Plate)
    hcs = HCS.from_zarr(zarr.open_group(root, mode="r"))
    assert [well.path for well in hcs.ome_attributes.plate.wells] == [well.path for well in plate.plate.wells]
    for well in plate.plate.wells:
        attributes = own(root, well.path)
        named = {image["path"] for image in attributes["ome"]["well"]["images"]} | set(attributes["mutoscope"]["projections"])
        for name in named:
            path = root / well.path / name
            assert isinstance(yaozarrs.validate_zarr_store(str(path)).ome_metadata(), yaozarrs.v05.Image)
    if (root / "overview").exists():
        assert isinstance(yaozarrs.validate_zarr_store(str(root / "overview")).ome_metadata(), yaozarrs.v05.Image)


def reasons(report: ImportReport) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in report.skipped:
        found.setdefault(each.reason, []).append(each.name)
    return found


def own(root: Path, group: str) -> dict[str, Any]:
    return json.loads((root / group / "zarr.json").read_text())["attributes"]


@pytest.mark.parametrize("asked", ["auto", "named"])
@pytest.mark.parametrize("vendor", list(FOLDERS))
def test_every_vendor(tmp_path: Path, vendor: str, asked: str) -> None:
    planes = FOLDERS[vendor](tmp_path / "in")
    report = import_plate(tmp_path / "in", tmp_path / "out.ome.zarr", filenames=vendor if asked == "named" else "auto")
    assert (report.stored, report.already, report.filenames) == (len(planes), 0, vendor)
    check_plate(tmp_path / "out.ome.zarr", vendor, planes)
    again = import_plate(tmp_path / "in", tmp_path / "out.ome.zarr")
    assert (again.stored, again.already, again.missing) == (0, len(planes), report.missing)


def test_imagexpress_says_what_the_plate_is(tmp_path: Path) -> None:
    root = tmp_path / "out.ome.zarr"
    planes = imagexpress(tmp_path / "in")
    report = import_plate(tmp_path / "in", root)
    found = reasons(report)
    assert {key: sorted(names) for key, names in found.items()} == {
        "thumbnail": [f"TimePoint_1/ZStep_1/9987_B02_s1_w1_thumb{GUID}.TIF"],
        "metadata": ["9987.HTD", "TimePoint_1/9987.HTD"],
        "unknown name": ["notes.txt"],
        "other plate": ["other_B02_s1_w1.TIF"],
    }
    assert report.metadata_read == ("9987.HTD",)
    plate = own(root, "")
    assert [len(plate["ome"]["plate"][key]) for key in ("rows", "columns", "wells")] == [8, 12, 2]
    assert plate["ome"]["plate"]["field_count"] == 2
    assert own(root, "B/02")["ome"]["well"]["images"] == [{"path": "0"}, {"path": "1"}], (
        "viewers want all images of a well alike"
    )
    assert own(root, "B/02")["mutoscope"]["projections"] == ["0p", "1p"]
    image = own(root, "C/03/1")["ome"]
    channels = [(each["label"], each["emission_nm"], each["exposure_ms"]) for each in image["omero"]["channels"]]
    assert channels == [("DAPI", 550.0, 80.0), ("Texas Red", 650.0, 80.0)]
    [dataset] = image["multiscales"][0]["datasets"]
    scale, translation = dataset["coordinateTransformations"]
    assert scale["scale"] == [1.0, 1.0, 3.0, 0.5, 0.5]
    # The centre of the field lies at y -10, x 200 from that of the well, y down; NGFF wants the centre of the first pixel.
    assert translation["translation"] == pytest.approx([0, 0, 0, -10 - 19.5 * 0.5, 200 - 15 * 0.5])
    info = plate_info(root)
    assert (info["extent"], info["stored"], info["missing"]) == ([2, 2, 2], len(planes), 2 * 2 * (2 + 1))
    lines = "\n".join(plate_lines(info))
    assert "12 missing" in lines
    assert "DAPI, Texas Red" in lines


def test_opera_phenix_keeps_positions_and_flat_fields(tmp_path: Path) -> None:
    root = tmp_path / "out.ome.zarr"
    gone = "r01c02f02p02-ch2sk1fk1fl1.tiff"
    opera_phenix(tmp_path / "in", without=(gone,))
    report = import_plate(tmp_path / "in", root)
    assert (report.stored, report.missing) == (7, 1)
    assert plate_info(root)["images"][1]["missing"] == [[0, 1, 1]]
    described = own(root, "")["mutoscope"]["plate"]
    assert described["channels"][1]["flatfield"] == PROFILE
    assert described["channels"][0]["emission_nm"] is None, "0 is none"
    assert own(root, "A/02/1")["mutoscope"]["position_um"] == {"z": 2.0, "y": -200.0, "x": 200.0, "origin": "well"}
    scale, translation = own(root, "A/02/1")["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    assert scale["scale"] == [1.0, 1.0, 2.0, 0.5, 0.5]
    assert translation["translation"] == pytest.approx([0, 0, 2.0, -200 - 19.5 * 0.5, 200 - 15 * 0.5])


def test_an_incomplete_cellvoyager_plate_records_what_is_missing(tmp_path: Path) -> None:
    root = tmp_path / "out.ome.zarr"
    cellvoyager(tmp_path / "in")
    report = import_plate(tmp_path / "in", root)
    assert (report.stored, report.missing, report.wells) == (4, 4, 2)
    assert report.notes == ("the microscope could not take a plane of well F08: no focus",)
    wells = {well["well"]: (well["fields"], well["stored"], well["missing"]) for well in plate_info(root)["wells"]}
    assert wells == {"D08": ([0, 1], 4, 0), "F08": ([0, 1], 0, 4)}
    assert not zarr_states(root, "F/08/0").any()
    channels = own(root, "D/08/0")["ome"]["omero"]["channels"]
    assert [(each["label"], each["excitation_nm"], each["color"], each["exposure_ms"]) for each in channels] == [
        ("405nm BP445/45", 405.0, "002FFF", 100.0),
        ("488nm BP525/50", 488.0, "00FFA1", 250.0),
    ]
    assert own(root, "")["mutoscope"]["plate"]["vendor"]["shading"] == {"1": "SC1.tif", "2": "SC2.tif"}


def test_levels_are_means_of_the_level_before(tmp_path: Path) -> None:
    root = tmp_path / "out.ome.zarr"
    planes = imagexpress(tmp_path / "in", shape=(601, 700))
    import_plate(tmp_path / "in", root)
    name, plane = next(iter(planes.items()))
    where = place(filenames.get_parser("imagexpress"), name)
    levels = own(root, where.image.path)["ome"]["multiscales"][0]["datasets"]
    assert [level["path"] for level in levels] == ["0", "1", "2"]
    wide = plane.astype("int64")
    padded = np.pad(wide, ((0, 1), (0, 0)), mode="edge")
    wanted = (padded.reshape(301, 2, 350, 2).sum(axis=(1, 3)) + 2) // 4
    for read in READERS.values():
        assert np.array_equal(read(root, where, 1), wanted)
        assert read(root, where, 2).shape == (151, 175)
    assert np.array_equal(read(root, where, 2), half(wanted.astype("uint16")))
    scale, translation = levels[1]["coordinateTransformations"]
    first = levels[0]["coordinateTransformations"][1]["translation"]
    assert scale["scale"][3:] == [1.0, 1.0]
    assert np.subtract(translation["translation"], first) == pytest.approx([0, 0, 0, 0.25, 0.25])
    overview = zarr.open_array(root / "overview" / "0", mode="r")
    assert overview.shape == (2, 8 * 128, 12 * 128)
    tile = overview[0, 128:256, 128:256]
    assert tile.max() > 0
    assert overview[:].sum() == overview[:, 128:256, 128:256].sum() + overview[:, 256:384, 256:384].sum()


def test_what_cannot_become_a_plane_is_told(tmp_path: Path) -> None:
    folder, root = tmp_path / "in", tmp_path / "out.ome.zarr"
    good = {f"x_B02_s{site}_w1.tif": plane_of(f"{site}") for site in range(1, 4)}
    for name, plane in good.items():
        write(folder / name, plane)
    whole = (folder / "x_B02_s1_w1.tif").read_bytes()
    (folder / "x_B02_s4_w1.tif").write_bytes(whole[: len(whole) // 2])
    (folder / "x_B02_s5_w1.tif").write_bytes(b"II*\0 no more")
    (folder / "x_B02_s6_w1.tif").write_bytes(b"")
    write(folder / "x_B02_s1_w2.tif", plane_of("a", (12, 12)))
    write(folder / "x_B02_s2_w2.tif", plane_of("a").astype("float32"))
    write(folder / "x_B02_s3_w2.tif", np.stack([plane_of("a"), plane_of("b")]))
    write(folder / f"x_B02_s1_w1{GUID}.tif", plane_of("again"))
    (folder / "x_B02_s9_w1.png").write_bytes(b"png")
    (tmp_path / "elsewhere.tif").write_bytes(whole)
    (folder / "x_B02_s8_w1.tif").symlink_to(tmp_path / "elsewhere.tif")
    os.mkfifo(folder / "x_B02_s7_w1.tif")
    report = import_plate(folder, root, filenames="imagexpress")
    found = {key: sorted(each) for key, each in reasons(report).items()}
    damaged = [*(f"x_B02_s{site}_w1.tif" for site in (4, 5, 6)), "x_B02_s3_w2.tif"]
    assert found == {
        "damaged": sorted(damaged),
        "does not fit": ["x_B02_s1_w2.tif", "x_B02_s2_w2.tif"],
        "duplicate": [f"x_B02_s1_w1{GUID}.tif"],
        "unknown name": ["x_B02_s9_w1.png"],
        "link": ["x_B02_s7_w1.tif", "x_B02_s8_w1.tif"],
    }
    assert report.stored == 3
    assert len(report.lost) == 9
    assert any("x_B02_s4_w1.tif: damaged" in line for line in report.lines())
    check_plate(root, "imagexpress", good)


def test_a_folder_that_grows_is_gone_on_with(tmp_path: Path) -> None:
    folder, root = tmp_path / "in", tmp_path / "out.ome.zarr"
    planes = {}
    for number, names in enumerate((["x_B02_s1_w1.tif"], ["x_B02_s2_w3.tif", "x_H12_s1_w1_z4.tif", "x_AF48_s1_w1.tif"])):
        for name in names:
            planes[name] = plane_of(name)
            write(folder / name, planes[name])
        report = import_plate(folder, root, filenames="imagexpress")
        assert (report.stored, report.already) == (len(names), number)
    check_plate(root, "imagexpress", planes)
    assert plate_info(root)["extent"] == [1, 3, 4]
    assert (plate_info(root)["rows"], plate_info(root)["columns"]) == (32, 48)
    shapes = {tuple(image["shape"]) for image in plate_info(root)["images"]}
    assert shapes == {(1, 3, 4, 40, 31)}, "viewers that tile plates want all alike"


def test_one_plate_is_not_mixed_with_another(tmp_path: Path) -> None:
    write(tmp_path / "one/a_B02_s1_w1.tif", plane_of("a"))
    write(tmp_path / "two/b_B02_s1_w1.tif", plane_of("b"))
    opera_phenix(tmp_path / "three")
    root = tmp_path / "out.ome.zarr"
    import_plate(tmp_path / "one", root)
    before = plate_info(root)
    with pytest.raises(ConfigError, match="of the plate 'b'"):
        import_plate(tmp_path / "two", root)
    with pytest.raises(ConfigError, match="imagexpress names, not of opera_phenix"):
        import_plate(tmp_path / "three", root)
    assert plate_info(root) == before
    report = import_plate(tmp_path / "two", root, overwrite=True)
    assert report.stored == 1
    with storage.open("ome-zarr", root, filenames="imagexpress") as plate:
        assert plate.list_files() == ["b_B02_s1_w1.tif"]


def test_what_cannot_be_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path / "in/x_B02_s1_w1.tif", plane_of("a"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").write_text("a", encoding="utf-8")
    (tmp_path / "fly").mkdir()
    write(tmp_path / "fly/01_POS002_D.TIF", plane_of("a"))
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut/x_B02_s1_w1.tif").write_bytes(b"II*\0")
    root = tmp_path / "out.ome.zarr"
    cases: list[tuple[Any, Any, Any, type[Exception], str]] = [
        ("nowhere", root, "auto", DatasetNotFoundError, "no such folder"),
        ("notes/a.txt", root, "auto", ConfigError, "not a folder"),
        ("empty", root, "auto", ConfigError, "0 files"),
        ("notes", root, "auto", ConfigError, "no vendor is known"),
        ("notes", root, "imagexpress", ConfigError, "none of its 1 files"),
        ("in", root, "imagexpres", ConfigError, "imagexpress"),
        ("in", root, "opera_phenix", ConfigError, "none of its 1 files"),
        ("in", tmp_path / "in", "auto", ConfigError, "made from"),
        ("in", tmp_path, "auto", ConfigError, "made from"),
        ("in", tmp_path / "notes", "auto", DatasetExistsError, "no plate"),
        ("in", tmp_path / "notes/a.txt", "auto", DatasetExistsError, "no plate"),
        ("fly", root, "auto", ConfigError, "well"),
        ("cut", root, "auto", DatasetError, "can be read"),
    ]
    before = sorted(tmp_path.rglob("*"))
    for folder, out, vendor, kind, message in cases:
        with pytest.raises(kind, match=message):
            import_plate(tmp_path / folder, out, filenames=vendor)
        assert sorted(tmp_path.rglob("*")) == before, folder
    with pytest.raises(ConfigError, match="not overwritten"):
        import_plate(tmp_path / "in", tmp_path / "notes", overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_names_of_several_vendors_are_asked_about(tmp_path: Path) -> None:
    write(tmp_path / "in/x_B02_s1_w1.tif", plane_of("a"))
    write(tmp_path / "in/r01c02f01p01-ch1sk1fk1fl1.tiff", plane_of("b"))
    with pytest.raises(ConfigError, match=r"opera_phenix \(1 images\), imagexpress \(1 images\)"):
        import_plate(tmp_path / "in", tmp_path / "out.ome.zarr")


def test_an_image_of_an_unknown_name_is_a_loss_and_other_vendors_are_refused(tmp_path: Path) -> None:
    for site in range(1, 4):
        write(tmp_path / f"in/x_B02_s{site}_w1.tif", plane_of(f"{site}"))
    (tmp_path / "in/notes.txt").write_text("a", encoding="utf-8")
    assert not import_plate(tmp_path / "in", tmp_path / "out.ome.zarr").lost
    write(tmp_path / "in/overview of all.TIF", plane_of("b"))
    [lost] = import_plate(tmp_path / "in", tmp_path / "out.ome.zarr").lost
    assert (lost.name, lost.reason, lost.detail) == ("overview of all.TIF", "image of unknown name", "")
    write(tmp_path / "in/r01c02f01p01-ch1sk1fk1fl1.tiff", plane_of("c"))
    with pytest.raises(ConfigError, match=r"imagexpress \(3 images\), opera_phenix \(1 images\); say which"):
        import_plate(tmp_path / "in", tmp_path / "out.ome.zarr")
    report = import_plate(tmp_path / "in", tmp_path / "out.ome.zarr", filenames="imagexpress")
    assert report.already == 3
    assert {each.name: each.detail for each in report.lost}["r01c02f01p01-ch1sk1fk1fl1.tiff"] == "a name of opera_phenix"
    assert any("r01c02f01p01-ch1sk1fk1fl1.tiff: image of unknown name, a name of opera" in line for line in report.lines())


@pytest.mark.external_data
def test_a_folder_of_several_real_plates_is_refused(external_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cellvoyager .64 images., imagexpress .48 images., opera_phenix .6 images."):
        import_plate(external_data / "hcs", tmp_path / "out.ome.zarr")


def test_wells_that_have_only_numbers_need_the_plates_size(tmp_path: Path) -> None:
    name = "W0014F0001T0001Z001C1.tif"
    write(tmp_path / "in" / name, plane_of(name))
    with pytest.raises(ConfigError, match="wells=96"):
        import_plate(tmp_path / "in", tmp_path / "out.ome.zarr")
    import_plate(tmp_path / "in", tmp_path / "out.ome.zarr", wells=96)
    assert [well["well"] for well in plate_info(tmp_path / "out.ome.zarr")["wells"]] == ["B02"]


BOMB = b"""<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]><Plate><PlateID>&c;</PlateID></Plate>"""


@pytest.mark.parametrize("damage", ["cut", "bomb", "deep", "zeros", "outside"])
@pytest.mark.parametrize("vendor", list(FOLDERS))
def test_damaged_metadata_cost_the_description_and_no_plane(tmp_path: Path, vendor: str, damage: str) -> None:
    planes = FOLDERS[vendor](tmp_path / "in")
    for path in (tmp_path / "in").rglob("*"):
        if path.suffix.lower() not in (".htd", ".xml", ".mlf", ".mrf", ".mes"):
            continue
        whole = path.read_bytes()
        path.write_bytes(
            {
                "cut": whole[: len(whole) // 3],
                "bomb": BOMB,
                "deep": b"<Plate>" * 100_000,
                "zeros": bytes(1000),
                "outside": whole.replace(b"r01c02", b"../../../etc/r01c02")
                .replace(b"run_", b"/etc/run_")
                .replace(b"XWells", b"X"),
            }[damage]
        )
    report = import_plate(tmp_path / "in", tmp_path / "out.ome.zarr")
    assert report.stored == len(planes)
    assert report.notes
    info = plate_info(tmp_path / "out.ome.zarr")
    assert info["stored"] == len(planes)
    validate(tmp_path / "out.ome.zarr")


@pytest.mark.parametrize("text", ["<MetaData>", BOMB.decode(), "<a>" * 1000, "<MetaData></MetaData>", "no XML", "<x \0/>"])
def test_damaged_descriptions_inside_of_images(tmp_path: Path, text: str) -> None:
    name = "x_B02_s1_w1.tif"
    write(tmp_path / "in" / name, plane_of(name), text.replace("\0", "\x01"))
    report = import_plate(tmp_path / "in", tmp_path / "out.ome.zarr")
    assert report.stored == 1
    assert plate_info(tmp_path / "out.ome.zarr")["pixel_size_um"] is None


def real_planes(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Return every image of a folder, as tifffile reads it."""
    files = [path for path in folder.rglob("*") if path.suffix.lower() in (".tif", ".tiff")]
    return {str(path.relative_to(folder)): tifffile.imread(path) for path in files}


@pytest.mark.external_data
@pytest.mark.parametrize(
    ("folder", "vendor", "count", "missing", "wells"),
    [
        ("imagexpress_exported_3434", "imagexpress", 36, 28, 2),
        ("imagexpress_db_timepoints", "imagexpress", 12, 0, 1),
        ("opera_phenix_v1", "opera_phenix", 6, 0, 1),
        ("cellvoyager_cv8000_D08_E03", "cellvoyager", 64, 32, 3),
    ],
)
def test_real_plates(
    external_data: Path, tmp_path: Path, folder: str, vendor: str, count: int, missing: int, wells: int
) -> None:
    planes = real_planes(external_data / "hcs" / folder)
    assert len(planes) == count
    root = tmp_path / "out.ome.zarr"
    report = import_plate(external_data / "hcs" / folder, root)
    assert (report.filenames, report.stored, report.missing, report.wells) == (vendor, count, missing, wells)
    assert not report.lost
    assert not report.notes
    check_plate(root, vendor, planes)


@pytest.mark.external_data
def test_what_real_plates_say_of_themselves(external_data: Path, tmp_path: Path) -> None:
    hcs = external_data / "hcs"
    for folder, image, wanted in (
        ("imagexpress_exported_3434", "B/03/1", (1.3672, -314.98, 0.02)),
        ("imagexpress_db_timepoints", "C/07/0", (13.5504, None, None)),
        ("opera_phenix_v1", "A/01/0", (0.5979760809567617, 0.0, 0.0)),
        ("cellvoyager_cv8000_D08_E03", "D/08/1", (0.325, -402.9, 82.8)),
    ):
        root = tmp_path / f"{folder}.ome.zarr"
        import_plate(hcs / folder, root, with_overview=False)
        size, y, x = wanted
        scale = own(root, image)["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"]
        assert scale[3:] == pytest.approx([size, size])
        position = own(root, image)["mutoscope"]["position_um"]
        if y is not None:
            assert (position["y"], position["x"]) == pytest.approx((y, x))
            assert position["origin"] == "well"
    phenix = own(tmp_path / "opera_phenix_v1.ome.zarr", "")["mutoscope"]["plate"]
    assert all(channel["flatfield"].startswith("{Background") for channel in phenix["channels"])
    assert [channel["name"] for channel in phenix["channels"]][:2] == ["Alexa 647", "Alexa 568"]


@pytest.mark.parametrize("vendor", list(FOLDERS))
def test_flipped_bits_in_metadata_never_cost_a_plane(tmp_path: Path, vendor: str) -> None:
    planes = FOLDERS[vendor](tmp_path / "in")
    files = [path for path in (tmp_path / "in").rglob("*") if path.suffix.lower() in (".htd", ".xml", ".mlf", ".mrf", ".mes")]
    chance = random.Random(3)
    for _ in range(12):
        wholes = {path: path.read_bytes() for path in files}
        for path, whole in wholes.items():
            flipped = bytearray(whole)
            for _ in range(chance.choice([1, 1, 4])):
                at = chance.choice([chance.randrange(len(whole)), *_digits(whole)])
                flipped[at] ^= 1 << chance.randrange(8)
            path.write_bytes(bytes(flipped))
        report = import_plate(tmp_path / "in", tmp_path / "out.ome.zarr", overwrite=True, with_overview=False)
        assert report.stored == len(planes)
        assert plate_info(tmp_path / "out.ome.zarr")["stored"] == len(planes)
        assert isinstance(yaozarrs.validate_zarr_store(str(tmp_path / "out.ome.zarr")).ome_metadata(), yaozarrs.v05.Plate)
        for path, whole in wholes.items():
            path.write_bytes(whole)


def _digits(data: bytes) -> list[int]:
    """Return where digits are: a number that is wrong does more than a tag that is."""
    return [at for at, byte in enumerate(data) if 48 <= byte <= 57]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<TimepointID>0<", "<TimepointID>2147483646<"),
        ("<PlaneID>2<", "<PlaneID>60000<"),
        ("<ChannelID>2<", "<ChannelID>2000000000<"),
        ("<FieldID>2<", "<FieldID>2147483647<"),
        ("<Row>1<", "<Row>700<"),
        ("<PlateRows>8<", "<PlateRows>1<"),
        ("<PlateColumns>12<", "<PlateColumns>1<"),
        ("5E-07<", "1e300<"),
        ("5E-07<", "-3<"),
        ("2E-04<", "nan<"),
        ('<ExposureTime Unit="s">0.01<', '<ExposureTime Unit="s">inf<'),
    ],
)
def test_lists_that_say_the_impossible_are_not_believed(tmp_path: Path, old: str, new: str) -> None:
    planes = opera_phenix(tmp_path / "in")
    index = tmp_path / "in/Images/Index.xml"
    text = index.read_text(encoding="utf-8")
    assert old in text
    index.write_text(text.replace(old, new), encoding="utf-8")
    report = import_plate(tmp_path / "in", tmp_path / "out.ome.zarr")
    assert report.stored == len(planes)
    assert plate_info(tmp_path / "out.ome.zarr")["images"][-1]["shape"][0] < 1000
    validate(tmp_path / "out.ome.zarr")


def test_a_plate_definition_of_too_many_sites_is_not_believed(tmp_path: Path) -> None:
    imagexpress(tmp_path / "in")
    path = tmp_path / "in/9987.HTD"
    row = "".join(", TRUE" for _ in range(999))
    many = (
        HTD.replace('"XSites", 2', '"XSites", 999')
        .replace('"YSites", 1', '"YSites", 999')
        .replace('"TimePoints", 2', '"TimePoints", 999999')
    )
    many += "".join(f'"SiteSelection{number}"{row}\n' for number in range(2, 1000))
    path.write_bytes(many.encode("utf-8", "surrogateescape"))
    report = import_plate(tmp_path / "in", tmp_path / "out.ome.zarr", with_overview=False)
    assert report.images == 8
    assert any("believed" in note for note in report.notes)


@pytest.mark.parametrize(
    ("vendor", "names"),
    [
        ("incell", ["A - 8(fld 1 wv Cy5 - Cy5).tif", "A - 8(fld 1 wv DAPI - DAPI).tif", "H - 12(fld 2 wv DAPI - DAPI).tif"]),
        ("scanr", ["B2--W00014--P00001--Z00000--T00000--405 nm #1.tif", "B2--W00014--P00001--Z00001--T00001--488 nm #2.tif"]),
        ("imagexpress", ["timepoint0/x_t0_C05_s0_w0_z0.tif", "timepoint1/x_t1_C05_s1_w1_z2.tif"]),
        ("cellvoyager", ["Projection/W0014F0001T0001Z000C1.tif", "W0014F0001T0001Z002C1.tif"]),
    ],
)
def test_other_vendors_names(tmp_path: Path, vendor: str, names: list[str]) -> None:
    for name in names:
        write(tmp_path / "in" / name, plane_of(name))
    report = import_plate(tmp_path / "in", tmp_path / "out.ome.zarr", wells=96)
    assert (report.filenames, report.stored) == (vendor, len(names))
    with storage.open("ome-zarr", tmp_path / "out.ome.zarr", filenames=vendor) as plate:
        assert sorted(plate.list_files(recursive=True)) == sorted(names)
        for name in names:
            assert np.array_equal(plate.load(name), plane_of(name))
    validate(tmp_path / "out.ome.zarr")


def test_planes_are_told_in_the_order_in_which_they_were_stored(tmp_path: Path) -> None:
    names = [f"x_B02_s{site:03}_w1.tif" for site in range(1, 201)]
    for name in names:
        write(tmp_path / "in" / name, plane_of(name))
    told: list[tuple[int, str]] = []
    import_plate(tmp_path / "in", tmp_path / "p.zarr", workers=1, progress=lambda done, total, name: told.append((done, name)))
    assert told == list(enumerate(names, 1))


def test_a_full_disk_ends_an_import_which_goes_on_with_room(tmp_path: Path, mount: Any) -> None:
    disk = mount(2000)
    names = [f"x_B02_s{site}_w1.tif" for site in range(1, 9)]
    for name in names:
        write(tmp_path / "in" / name, plane_of(name, (512, 400)))
    stored = []
    with pytest.raises(DiskFullError):
        import_plate(tmp_path / "in", disk / "p.zarr", workers=1, progress=lambda done, total, name: stored.append(name))
    assert stored
    parser = filenames.get_parser("imagexpress")
    for name in stored:
        assert np.array_equal(READERS["zarr-python"](disk / "p.zarr", place(parser, name)), plane_of(name, (512, 400)))
    subprocess.run(["mount", "-o", "remount,size=20000k", str(disk)], check=True)
    report = import_plate(tmp_path / "in", disk / "p.zarr")
    assert (report.already >= len(stored), report.already + report.stored) == (True, len(names))
    check_plate(disk / "p.zarr", "imagexpress", {name: plane_of(name, (512, 400)) for name in names})
