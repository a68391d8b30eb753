"""OME-Zarr 0.5 and 0.4, uncompressed and compressed, live and closed, and plates: read by tools from elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from zarr_conformance import (
    BEGIN,
    END,
    FORMS,
    METADATA,
    PAGE,
    PIXELS,
    PLATE,
    READERS,
    Finding,
    Image,
    live_images,
    matrix,
    table,
)

Matrix = dict[tuple[str, str], Finding]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Image], dict[str, dict[str, Matrix]]]:
    """The images, closed, and what each reader found while they were open: reader → findings."""
    found: dict[str, dict[str, Matrix]] = {"live": {}, "closed": {}}
    with live_images(tmp_path_factory.mktemp("forms")) as made:
        for name, reader in READERS.items():
            try:
                found["live"][name] = matrix(made, {name: reader})
            except pytest.skip.Exception:
                continue  # the tests of this reader skip, and say why
    return made, found


def findings(images: tuple[list[Image], dict[str, dict[str, Matrix]]], state: str, name: str) -> Matrix:
    made, found = images
    if name not in found[state]:
        found[state][name] = matrix(made, {name: READERS[name]})
    return found[state][name]


@pytest.mark.parametrize("state", ["live", "closed"])
@pytest.mark.parametrize("name", READERS)
def test_a_reader_finds_every_frame(images, name: str, state: str) -> None:  # type: ignore[no-untyped-def]
    found = findings(images, state, name)
    for image in images[0]:
        finding = found[name, image.form]
        assert finding.error is None, (image.form, finding.error)
        assert finding.agrees(image), image.form


def _truncate(path: Path) -> None:
    chunk = max((each for each in path.glob("0/**/0/0") if each.is_file()), key=str)
    chunk.write_bytes(chunk.read_bytes()[: chunk.stat().st_size // 2])


def _flip_index(path: Path) -> None:
    chunk = min((each for each in path.glob("0/**/0/0") if each.is_file()), key=str)
    data = bytearray(chunk.read_bytes())
    data[-20] ^= 1  # the offset of the last chunk; not every reader looks at the checksum
    chunk.write_bytes(data)


def _remove_array(path: Path) -> None:
    shutil.rmtree(path / "0")


def _swap(path: Path) -> None:
    first, second = sorted(each for each in path.glob("0/**/0/0") if each.is_file())[:2]
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)


@pytest.mark.parametrize("damage", [_truncate, _remove_array, _swap, _flip_index])
@pytest.mark.parametrize("name", PIXELS)
def test_damage_is_noticed_by_these_checks(images, tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:  # type: ignore[no-untyped-def]
    copies = []
    for image in images[0]:
        if image.form == PLATE or (damage is _flip_index and image.form.startswith("0.4")):
            continue
        copy = tmp_path / image.path.name
        shutil.copytree(image.path, copy)
        damage(copy)
        copies.append(Image(image.form, copy, image.frames, image.ids))
    found = matrix(copies, {name: READERS[name]})
    assert not [image.form for image in copies if found[name, image.form].agrees(image)]


@pytest.mark.parametrize("name", METADATA)
def test_a_missing_array_is_noticed_by_the_checks_of_metadata(images, tmp_path: Path, name: str) -> None:  # type: ignore[no-untyped-def]
    for image in images[0]:
        copy = tmp_path / image.path.name
        shutil.copytree(image.path, copy)
        _remove_array(copy)
        [finding] = READERS[name]([Image(image.form, copy, image.frames, image.ids)])
        assert finding.error is not None, image.form


def test_the_table_of_the_page_is_what_they_find(images) -> None:  # type: ignore[no-untyped-def]
    judged = []
    for state in ("live", "closed"):
        found = {key: finding for name in READERS for key, finding in findings(images, state, name).items()}
        by_form = {image.form: image for image in images[0]}
        judged.append({(name, form): found[name, form].agrees(by_form[form]) for name in READERS for form in FORMS})
    text = PAGE.read_text(encoding="utf-8")
    shown = text[text.index(BEGIN) + len(BEGIN) : text.index(END)]
    assert shown == table(*judged), "run python tests/storage/zarr_conformance.py"
