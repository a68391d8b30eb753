"""The replay camera shows data sets frame by frame, bit-exact, and says what it cannot show."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading

import imagecodecs
import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile

from command_line import mutoscope
from mutoscope import storage
from mutoscope.cameras import ReplayCamera
from mutoscope.cameras.suite import CameraSuite
from mutoscope.model import PlaneIndex
from mutoscope.model.errors import (
    BackendUnavailableError,
    BufferUnavailableError,
    ConfigError,
    DatasetError,
    DatasetNotFoundError,
)

zarr_threads = pytest.mark.leaks_elsewhere("zarr-python keeps its event loop and thread pool for the life of the process")


def stack(count=6, shape=(20, 31), dtype="uint16", seed=0):
    random = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return random.normal(size=(count, *shape)).astype(dtype)
    return random.integers(0, 250, (count, *shape)).astype(dtype)


def take(camera, n=None):
    """Return (metadata, frame) of each frame of a sequence."""
    buffers, found = [], []

    def get_buffer(shape, dtype):
        buffers.append(np.zeros(shape, dtype))
        return buffers[-1]

    with camera:
        found.extend((metadata, buffers[-1]) for metadata in camera.start_sequence(n, get_buffer))
    return found


def frames(camera, n=None):
    return np.array([frame for _, frame in take(camera, n)])


class TestPaced(CameraSuite):
    @pytest.fixture(autouse=True)
    def dataset(self, tmp_path):
        self.path = tmp_path / "stack.tif"
        tifffile.imwrite(self.path, stack())

    def make_camera(self):
        return ReplayCamera(self.path, rate_hz=400, loop=True)


class TestUnpaced(TestPaced):
    drops_when_refused = False
    waits = False
    test_the_waiter_can_end_a_sequence = None

    def make_camera(self):
        return ReplayCamera(self.path, loop=True)


# What it reads


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float32"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib", "predictor": True},
        {"byteorder": ">"},
        {"imagej": True},
        {"truncate": True},
        {"bigtiff": True},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_tiff(tmp_path, dtype, options):
    if options.get("imagej") and dtype == "uint32":
        dtype = "uint8"  # ImageJ has no 32-bit integers
    data = stack(dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", data, **options)
    camera = ReplayCamera(tmp_path / "a.tif")
    assert (camera.shape, camera.dtype, camera.facts.count) == ((20, 31), dtype, 6)
    found = frames(camera)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, data)


def test_the_planes_of_an_ome_tiff_have_their_places(tmp_path):
    data = stack(2 * 3 * 4).reshape(2, 3, 4, 20, 31)
    metadata = {"axes": "TCZYX", "PhysicalSizeX": 65, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 65, "PhysicalSizeYUnit": "nm"}
    tifffile.imwrite(tmp_path / "a.ome.tif", data, metadata=metadata)
    camera = ReplayCamera(tmp_path / "a.ome.tif")
    assert camera.pixel_size_um == pytest.approx(0.065)
    assert camera.facts.kind == "OME-TIFF"
    found = take(camera)
    for metadata, frame in found:
        place = metadata["index"]
        np.testing.assert_array_equal(frame, data[place.t, place.c, place.z])
    assert len({metadata["index"] for metadata, _ in found}) == 24


def test_the_pixel_size_of_an_imagej_file(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", stack(), imagej=True, resolution=(1 / 0.11, 1 / 0.11), metadata={"unit": "um"})
    assert ReplayCamera(tmp_path / "a.tif").pixel_size_um == pytest.approx(0.11, rel=1e-4)
    assert ReplayCamera(tmp_path / "a.tif", pixel_size_um=0.2).pixel_size_um == 0.2


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
def test_a_folder_in_natural_order(tmp_path, suffix):
    data = stack(12)
    for number, frame in enumerate(data):
        write = imageio.imwrite if suffix == ".png" else tifffile.imwrite
        write(tmp_path / f"img{number + 1}{suffix}", frame)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "._img1.png").write_bytes(b"not an image either")
    found = take(ReplayCamera(tmp_path))
    np.testing.assert_array_equal([frame for _, frame in found], data)
    assert [metadata["index"] for metadata, _ in found] == [PlaneIndex(t=t) for t in range(12)]


def test_a_single_png(tmp_path):
    imageio.imwrite(tmp_path / "one.png", stack(1)[0])
    np.testing.assert_array_equal(frames(ReplayCamera(tmp_path / "one.png")), stack(1))


def test_our_own_recording_has_its_written_frames_only(tmp_path):
    data = stack(7)
    with storage.open_writer(tmp_path / "run.ome.zarr", shape=(20, 31), dtype="uint16", pixel_size_um=0.25) as writer:
        for number, frame in enumerate(data):
            writer.append(frame, frame_id=2 * number + 1)
    camera = ReplayCamera(tmp_path / "run.ome.zarr")
    assert camera.pixel_size_um == 0.25
    np.testing.assert_array_equal(frames(camera), data)


def test_our_own_recording_of_several_images_needs_a_choice(tmp_path):
    path = tmp_path / "run.ome.zarr"
    for resume, part in ((False, stack(3)), (True, stack(2, seed=1))):
        with storage.open_writer(path, shape=(20, 31), dtype="uint16", resume=resume) as writer:
            for frame in part:
                writer.append(frame)
    with pytest.raises(ConfigError, match="choose one with image=") as caught:
        _ = ReplayCamera(path).shape
    names = str(caught.value).rpartition("image=: ")[2].partition(" (")[0].split(", ")
    assert len(names) == 2
    np.testing.assert_array_equal(frames(ReplayCamera(path, image=names[1])), stack(2, seed=1))


@zarr_threads
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_of_others(tmp_path, version):
    import zarr

    data = stack(2 * 3).reshape(2, 3, 20, 31)
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=3 if version == "0.5" else 2)
    group.create_array("s0", data=data, chunks=(1, 1, 16, 16))
    scales = [
        {
            "axes": [
                {"name": "t", "type": "time"},
                {"name": "c", "type": "channel"},
                {"name": "y", "type": "space", "unit": "nanometer"},
                {"name": "x", "type": "space", "unit": "nanometer"},
            ],
            "datasets": [{"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 108, 108]}]}],
        }
    ]
    if version == "0.5":
        group.attrs["ome"] = {"version": "0.5", "multiscales": scales}
    else:
        group.attrs["multiscales"] = [{"version": "0.4", **scales[0]}]
    camera = ReplayCamera(tmp_path / "a.zarr")
    assert camera.pixel_size_um == pytest.approx(0.108)
    for metadata, frame in take(camera):
        np.testing.assert_array_equal(frame, data[metadata["index"].t, metadata["index"].c])
    with pytest.raises(ConfigError, match="has no image 'B/03/0'"):
        _ = ReplayCamera(tmp_path / "a.zarr", image="B/03/0").shape


# Colour


@pytest.mark.parametrize("samples", [3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("form", ["png", "tif", "planar"])
def test_colour_is_converted_as_said(tmp_path, samples, dtype, form):
    data = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, (9, 11, samples), endpoint=True).astype(dtype)
    path = tmp_path / ("a.png" if form == "png" else "a.tif")
    if form == "png":
        path.write_bytes(imagecodecs.png_encode(data))
    else:
        extra = ["unassalpha"] if samples == 4 else None
        stored = np.moveaxis(data, -1, 0) if form == "planar" else data
        tifffile.imwrite(
            path, stored, photometric="rgb", planarconfig="separate" if form == "planar" else "contig", extrasamples=extra
        )
    expected = {
        "red": data[..., 0],
        "green": data[..., 1],
        "blue": data[..., 2],
        "luminance": np.rint(data[..., :3].astype(float) @ [0.299, 0.587, 0.114]).astype(dtype),
    }
    for colour, wanted in expected.items():
        camera = ReplayCamera(path, colour=colour)
        found = frames(camera)[0]
        assert found.dtype == dtype
        exact = np.asarray(np.abs(data[..., :3].astype(float) @ [0.299, 0.587, 0.114] % 1 - 0.5) > 1e-6)
        np.testing.assert_array_equal(found[exact], wanted[exact])
        assert camera.describe()["replayed"]["conversion"] == f"{colour} of {'RGB' if samples == 3 else 'RGBA'}"
    with pytest.raises(ConfigError, match="red or green or blue or luminance"):
        _ = ReplayCamera(path).shape
    with pytest.raises(ConfigError, match="say how it becomes grey"):
        ReplayCamera(path).open()


def test_grey_with_a_colour_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", stack())
    with pytest.raises(ConfigError, match="is grey already: leave colour \\(green\\) out"):
        _ = ReplayCamera(tmp_path / "a.tif", colour="green").dtype


# Real inputs


@pytest.mark.external_data
def test_real_cells(external_data):
    path = external_data / "cells" / "Fluo_Hela_02_img.tif"
    expected = tifffile.imread(path)
    assert expected.shape == (20, 700, 1100)
    camera = ReplayCamera(path)
    assert (camera.shape, camera.dtype) == ((700, 1100), "uint16")
    found = take(camera)
    np.testing.assert_array_equal([frame for _, frame in found], expected)
    assert [metadata["tick"] for metadata, _ in found] == list(range(1, 21))


@pytest.mark.external_data
def test_real_particles(external_data):
    folder = external_data / "particles" / "bulk_water_000-019"
    expected = np.array([imagecodecs.imread(folder / f"bulk_water_{n:03d}.png")[..., 1] for n in range(20)])
    np.testing.assert_array_equal(frames(ReplayCamera(folder, rate_hz=200, colour="green")), expected)


@pytest.mark.external_data
@pytest.mark.parametrize("name", ["bf_dimorder_odd.ome.tif", "bf_tzc.ome.tif"])
def test_real_ome_tiff_of_bio_formats(external_data, name):
    path = external_data / "ome_tiff" / "written_by_bioformats" / name
    with tifffile.TiffFile(path) as file:
        axes, expected = file.series[0].axes, file.series[0].asarray()
    for metadata, frame in take(ReplayCamera(path)):
        place = {"T": metadata["index"].t, "C": metadata["index"].c, "Z": metadata["index"].z}
        np.testing.assert_array_equal(frame, expected[tuple(place[axis] for axis in axes[:3])])


@pytest.mark.external_data
@zarr_threads
def test_real_ome_zarr(external_data):
    import zarr

    path = external_data / "ome_zarr" / "written_by_ome-zarr-py_cli" / "coins_0.5.ome.zarr"
    np.testing.assert_array_equal(
        frames(ReplayCamera(path)).reshape(zarr.open_array(str(path / "s0"), mode="r").shape),
        zarr.open_array(str(path / "s0"), mode="r")[:],
    )


@pytest.mark.external_data
@zarr_threads
def test_a_real_plate_needs_a_field(external_data):
    path = external_data / "ome_zarr" / "ome-zarr-models_examples" / "examples" / "v04" / "hcs_example.ome.zarr"
    with pytest.raises(
        ConfigError, match=r"it is a plate, choose a field with image=, such as B/03/0 .image='B/03/0' in Python"
    ):
        _ = ReplayCamera(path).shape


# What it refuses


def damaged(path):
    tifffile.imwrite(path / "a.tif", stack(), compression="zlib")
    content = (path / "a.tif").read_bytes()
    (path / "a.tif").write_bytes(content[:100])
    return path / "a.tif"


def no_tiff(path):
    (path / "a.tif").write_bytes(b"this is no TIFF at all")
    return path / "a.tif"


def empty_file(path):
    (path / "a.tif").touch()
    return path / "a.tif"


def no_png(path):
    (path / "a.png").write_bytes(b"this is no PNG at all")
    return path


def half_a_png(path):
    content = imagecodecs.png_encode(stack(1)[0])
    (path / "a.png").write_bytes(content[: len(content) // 2])
    return path


def empty_folder(path):
    (path / "notes.txt").write_text("nothing here")
    return path


def other_kind(path):
    (path / "a.czi").write_bytes(b"ZISRAWFILE")
    return path / "a.czi"


def stacks_in_a_folder(path):
    tifffile.imwrite(path / "a.tif", stack())
    return path


def complex_pixels(path):
    tifffile.imwrite(path / "a.tif", stack().astype("complex64"))
    return path / "a.tif"


def empty_recording(path):
    storage.open_writer(path / "run.ome.zarr", shape=(4, 5), dtype="uint8").close()
    return path / "run.ome.zarr"


def damaged_zarr(path):
    (path / "zarr.json").write_text("{ no json")
    return path


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (damaged, "a.tif: (not a readable TIFF|holds no frame)"),
        (no_tiff, "a.tif: not a readable TIFF"),
        (empty_file, "a.tif: not a readable TIFF"),
        (no_png, "a.png: is not a PNG"),
        (half_a_png, "a.png: cannot be read"),
        (empty_folder, "holds no TIFF or PNG files"),
        (other_kind, "a.czi: not a data set that can be read"),
        (stacks_in_a_folder, "a.tif: has 6 planes; replay it by its own name"),
        (complex_pixels, "pixels of type complex64 cannot be read"),
        (empty_recording, "holds no frame"),
        (damaged_zarr, "zarr.json: is damaged"),
    ],
)
def test_what_cannot_be_replayed(tmp_path, make, sentence):
    path = make(tmp_path)
    for act in (lambda: ReplayCamera(path).shape, lambda: ReplayCamera(path).open()):
        with pytest.raises(DatasetError, match=sentence) as caught:
            act()
        assert str(tmp_path) in str(caught.value)


def test_nothing_there(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"there is no data set .*nowhere"):
        _ = ReplayCamera(tmp_path / "nowhere.tif").shape
    with pytest.raises(ConfigError, match="path must"):
        ReplayCamera("")


def test_damage_in_the_middle_ends_the_sequence_after_the_good_frames(tmp_path):
    data = stack(5)
    for number, frame in enumerate(data):
        imageio.imwrite(tmp_path / f"{number}.png", frame)
    (tmp_path / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    seen = []
    with ReplayCamera(tmp_path) as camera, pytest.raises(DatasetError, match=r"3\.png: cannot be read"):
        seen.extend(m["tick"] for m in camera.start_sequence(None, np.zeros))
    assert seen == [1, 2, 3]


def test_frames_of_different_sizes_are_refused_with_both_sizes(tmp_path):
    imageio.imwrite(tmp_path / "1.png", stack(1)[0])
    imageio.imwrite(tmp_path / "2.png", stack(1, shape=(20, 30))[0])
    with (
        ReplayCamera(tmp_path) as camera,
        pytest.raises(DatasetError, match="frame 1 is 20 x 30 uint16, the first is 20 x 31 uint16"),
    ):
        list(camera.start_sequence(None, np.zeros))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_frames_of_different_sizes_are_refused_before_anything_is_made(tmp_path, suffix):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(12):
        image = stack(1, shape=(20, 30 if number == 9 else 31))[0]
        imageio.imwrite(folder / f"{number}.{suffix}", image)
    done = mutoscope(tmp_path, "replay", "images", "--headless", "--out", "copy")
    assert done.code == 2, done.describe()
    assert "frame 9 is 20 x 30 uint16, the first is 20 x 31 uint16" in done.stderr, done.describe()
    assert len(done.stderr.splitlines()) == 1, done.describe()
    assert not (tmp_path / "copy").exists()


def test_a_missing_library_is_named_with_the_command(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", stack())
    code = (
        "import sys\n"
        "sys.modules['tifffile'] = None\n"
        "from mutoscope.cameras import ReplayCamera\n"
        "from mutoscope.model.errors import BackendUnavailableError\n"
        "try:\n"
        f"    ReplayCamera({str(tmp_path / 'a.tif')!r}).shape\n"
        "except BackendUnavailableError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "pip install imagecodecs imageio tifffile zarr" in done.stdout
    assert issubclass(BackendUnavailableError, ImportError)


def test_the_libraries_load_only_when_used():
    code = (
        "import sys\n"
        "from mutoscope.cameras import ReplayCamera, SimulatedCamera\n"
        "ReplayCamera('a.tif'), SimulatedCamera()\n"
        "print([name for name in ('tifffile', 'imageio', 'zarr', 'imagecodecs', 'PIL') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


# How it runs


def test_it_ends_with_the_data_or_goes_round(tmp_path):
    data = stack(4)
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="minisblack")
    assert len(take(ReplayCamera(tmp_path / "a.tif"), 100)) == 4
    found = take(ReplayCamera(tmp_path / "a.tif", loop=True), 10)
    np.testing.assert_array_equal([frame for _, frame in found], data[np.arange(10) % 4])
    assert [metadata["tick"] for metadata, _ in found] == list(range(1, 11))
    assert [metadata["index"].t for metadata, _ in found] == [0, 1, 2, 3] * 2 + [0, 1]


def test_a_rate_is_kept_and_a_refused_frame_is_gone(tmp_path):
    import time

    data = stack(12)
    tifffile.imwrite(tmp_path / "a.tif", data)
    asked = iter(range(100))
    kept = []

    def get_buffer(shape, dtype):
        if next(asked) in (2, 5):
            raise BufferUnavailableError("full")
        kept.append(np.zeros(shape, dtype))
        return kept[-1]

    with ReplayCamera(tmp_path / "a.tif", rate_hz=100) as camera:
        begin = time.monotonic()
        ticks = [metadata["tick"] for metadata in camera.start_sequence(None, get_buffer)]
        assert time.monotonic() - begin >= 12 / 100
        assert camera.health()["missed"] == 2
        assert camera.health()["exposed"] == 12
    assert ticks == [1, 2, 4, 5, 7, 8, 9, 10, 11, 12]
    np.testing.assert_array_equal(kept, data[np.array(ticks) - 1])


@pytest.mark.parametrize("loop", [False, True])
def test_a_restarted_process_goes_on_where_the_first_ended(tmp_path, loop):
    data = stack(8)
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="minisblack")
    camera = ReplayCamera(tmp_path / "a.tif", loop=loop)
    camera.already_delivered = 5
    found = take(camera, 6)
    places = [5, 6, 7] + ([0, 1, 2] if loop else [])
    assert [metadata["tick"] for metadata, _ in found] == list(range(6, 6 + len(places)))
    np.testing.assert_array_equal([frame for _, frame in found], data[places])
    assert camera.health()["missed"] == 0


def test_reading_ahead_is_bounded_and_its_thread_ends(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", stack(50), compression="zlib")
    loaded = []
    with ReplayCamera(tmp_path / "a.tif", read_ahead=3) as camera:
        inner = camera._dataset.load
        camera._dataset.load = lambda number: (loaded.append(number), inner(number))[1]
        sequence = camera.start_sequence(None, np.zeros)
        for taken in range(1, 20):
            next(sequence)
            assert len(loaded) <= taken + 3
        assert any(thread.name.startswith("mutoscope-replay") for thread in threading.enumerate())
        sequence.close()
        assert not any(thread.name.startswith("mutoscope-replay") for thread in threading.enumerate())


def test_it_travels_with_an_absolute_path(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", stack())
    monkeypatch.chdir(tmp_path)
    camera = pickle.loads(pickle.dumps(ReplayCamera("a.tif", rate_hz=5)))
    monkeypatch.chdir("/")
    assert camera.configuration()["path"] == str(tmp_path / "a.tif")
    assert camera.shape == (20, 31)
    assert camera.rate_hz == 5.0
    assert json.loads(json.dumps(camera.describe()))["replayed"] == {"kind": "TIFF", "frames": 6, "conversion": None}
