"""What lies beside the pixels of an image, in groups of their own that a list names: labels, tables.

A member is made aside, renamed into place, and listed; it is there when it is listed. A killed process leaves the old member
or the new one. Processes that save different names do not disturb each other; of two that save one name, one is refused.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutoscope.model._faults import kill_point
from mutoscope.model.errors import ConfigError, DatasetError, DatasetExistsError
from mutoscope.storage import _files, _layout, _names, _nodes, _replace

__all__ = ["Member", "Parent", "check_member_name", "find_parent"]

_serial = itertools.count()
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_MINE = re.compile(r"\.([0-9]+)-beside-[0-9]+" + re.escape(_files.PART))
_REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True)
class Parent:
    """A group of an OME-Zarr.

    Parameters
    ----------
    root : Path
        The data set.
    relative : str
        Of the group in it, empty for the root.
    attributes : dict
        Of the group.
    version : str
        Of OME-Zarr.
    """

    root: Path
    relative: str
    attributes: dict[str, Any]
    version: str

    @property
    def folder(self) -> Path:
        return self.root / self.relative if self.relative else self.root

    @property
    def ome(self) -> dict[str, Any]:
        """What OME-Zarr knows of the group."""
        found = self.attributes.get("ome", {}) if self.version == "0.5" else self.attributes
        return found if isinstance(found, dict) else {}

    @property
    def is_image(self) -> bool:
        return bool(self.ome.get("multiscales"))

    def inside(self, name: str) -> str:
        """Return the path of something in the group, from the root."""
        return f"{self.relative}/{name}" if self.relative else name


@dataclass(frozen=True)
class Member:
    """A kind of members: the folder that holds them, and what one is called in words."""

    kind: str
    word: str

    def listed(self, parent: Parent) -> list[str]:
        """Return the names, in the order in which they were saved."""
        if not _nodes.has_group(parent.folder / self.kind):
            return []
        attributes = _nodes.read_group(parent.root, parent.inside(self.kind))
        ome = attributes.get("ome") if parent.version == "0.5" else None
        found = (ome or {}).get(self.kind, attributes.get(self.kind)) if isinstance(ome, dict) else attributes.get(self.kind)
        if found is None:
            return []
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise DatasetError(f"{parent.folder / self.kind}: its list of {self.kind} is damaged")
        return list(found)

    def path(self, parent: Parent, name: str) -> str:
        """Return where a member is, from the root; DatasetNotFoundError if there is none."""
        if name not in (listed := self.listed(parent)) or not _NAME.fullmatch(name):
            raise _names.not_found(name, parent.folder / self.kind, listed)
        return parent.inside(f"{self.kind}/{name}")

    def save(self, parent: Parent, name: str, build: Callable[[Path], None], *, overwrite: bool) -> None:
        """Have `build` fill a folder, then place and list it.

        Raises
        ------
        DatasetExistsError
            If there is one of this name, and `overwrite` was not said.
        """
        check_member_name(name, self.word)
        if not overwrite and name in self.listed(parent):
            raise self._taken(parent, name)
        with _changing(parent) as staging:
            part = staging / "made"
            part.mkdir()
            build(part)
            kill_point("storage.beside.built")
            with _files.locked(parent.folder):
                self._place(parent, name, part, staging, overwrite)
            kill_point("storage.beside.listed")

    def delete(self, parent: Parent, name: str) -> None:
        """Take a member off the list, then delete it: a killed process leaves it listed and whole, or not listed.

        Raises
        ------
        DatasetNotFoundError
            If there is none of this name; names near ones.
        """
        folder = parent.root / self.path(parent, name)
        with _changing(parent) as staging:
            with _files.locked(parent.folder):
                listed = self.listed(parent)
                if name not in listed:  # another process was quicker
                    raise _names.not_found(name, parent.folder / self.kind, listed)
                self._list(parent, [each for each in listed if each != name], staging)
                kill_point("storage.beside.unlisted")
                if os.path.lexists(folder):
                    os.rename(folder, staging / "deleted")
            kill_point("storage.beside.deleted")

    def _taken(self, parent: Parent, name: str) -> DatasetExistsError:
        return DatasetExistsError(f"{parent.folder}: has {self.word} {name!r} already; say overwrite=True to replace them")

    def _place(self, parent: Parent, name: str, part: Path, staging: Path, overwrite: bool) -> None:
        listed = self.listed(parent)
        if name in listed and not overwrite:
            raise self._taken(parent, name)
        folder = parent.folder / self.kind
        folder.mkdir(exist_ok=True)
        if os.path.lexists(folder / name):  # the old one, or what a killed process placed and did not list
            _replace._exchange(folder / name, part)
        else:
            os.rename(part, folder / name)
        kill_point("storage.beside.placed")
        if name not in listed:
            self._list(parent, [*listed, name], staging)

    def _list(self, parent: Parent, new: list[str], staging: Path) -> None:
        folder = parent.folder / self.kind
        attributes = _nodes.read_group(parent.root, parent.inside(self.kind)) if _nodes.has_group(folder) else {}
        if self.kind == "labels":
            own = _layout.ome_attributes(parent.version, {self.kind: new})
            if parent.version == "0.5":
                own["ome"] = {**attributes.get("ome", {}), **own["ome"]}
            attributes = {**attributes, **own}
        else:
            attributes = {**attributes, self.kind: new}
        _nodes.replace_group(folder, parent.version, attributes, staging)


def check_member_name(name: str, word: str) -> None:
    """Raise ConfigError unless a name can be a folder of a Zarr store, on any system."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot name {word}: at most 128 letters, digits, '_', '-' and '.', a letter or digit first"
        )


def find_parent(dataset: str | os.PathLike[str], image: str | None, *, any_group: bool = False) -> Parent:
    """Return the group that members are beside of.

    Parameters
    ----------
    dataset : path
        Of an OME-Zarr.
    image : str, optional
        A camera or image of a recording, a field of a plate (``"B/03/0"``); the one image, if not given.
    any_group : bool
        Whether a group that is no image will do: a plate, a well.

    Raises
    ------
    DatasetNotFoundError, DatasetError, ConfigError
        If there is nothing; it is no OME-Zarr; there is no such image, or none was named of several.
    """
    root = Path(os.path.abspath(dataset))
    if os.path.lexists(root) and not root.is_dir():
        raise ConfigError(f"{root}: is no OME-Zarr, which alone has labels and tables beside its images")
    top = _read(root, "")
    own = top.attributes.get(_layout.NAMESPACE)
    images = own.get("images") if isinstance(own, dict) and isinstance(own.get("images"), list) else None
    if image is None:
        if top.is_image or any_group:
            return top
        if images is not None and len(images) == 1:
            return _read(root, images[0])
        if "plate" in top.ome:
            raise ConfigError(f"{root}: is a plate, say which field, such as B/03/0 {_names.image_choice('B/03/0')}")
        if images:
            choice = _names.image_choice(str(images[0]))
            raise ConfigError(f"{root}: has several images, say which: {', '.join(map(str, images))} {choice}")
        raise ConfigError(f"{root}: is no image of OME-Zarr, say which one of it (image=)")
    key = _names.check_name(image)
    if images is not None and top.is_image and key not in images and isinstance(own, dict) and own.get("camera") == key:
        return top
    if not _nodes.has_group(root / key):
        raise ConfigError(f"{root}: has no image {image!r}{'; it has ' + ', '.join(images) if images else ''}")
    found = _read(root, key)
    if not found.is_image and not any_group:
        raise ConfigError(f"{root}: {image!r} is no image")
    return found


def _read(root: Path, relative: str) -> Parent:
    attributes = _nodes.read_group(root, relative)
    return Parent(root, relative, attributes, _nodes.version_of(root / relative if relative else root))


@contextmanager
def _changing(parent: Parent) -> Iterator[Path]:
    """As `_staging`; and say in one sentence why nothing can be changed."""
    try:
        with _files.translated(parent.folder), _staging(parent) as staging:
            yield staging
    except OSError as error:
        if error.errno in _REFUSALS and not isinstance(error, ConfigError):
            raise ConfigError(f"{parent.folder}: cannot be written to ({error.strerror})") from error
        raise


@contextmanager
def _staging(parent: Parent) -> Iterator[Path]:
    """Yield a hidden folder where no Zarr reader looks for nodes; it is gone afterwards. Those of killed processes go first."""
    where = parent.folder
    if parent.is_image:
        where = where / str(parent.ome["multiscales"][0]["datasets"][0]["path"])
    for name in os.listdir(where):
        match = _MINE.fullmatch(name)
        if match is not None and not os.path.exists(f"/proc/{match[1]}"):
            shutil.rmtree(where / name, ignore_errors=True)
    made = where / f".{os.getpid()}-beside-{next(_serial)}{_files.PART}"
    made.mkdir()
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
