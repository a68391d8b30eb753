"""Labels and tables on their way from one OME-Zarr to another."""

from __future__ import annotations

from pathlib import Path

from mutoscope.model.errors import ConfigError, DatasetError, MutoscopeError
from mutoscope.storage import labels, tables
from mutoscope.storage._beside import Parent, find_parent
from mutoscope.storage.converting._sources import Source

__all__ = ["copy_members", "leave_members"]


def copy_members(source: Source, target: Path) -> None:
    """Copy what can be copied; the source tells what could not, and why."""
    for image, other in source.members:
        parent = find_parent(source.path, image, any_group=True)
        new = find_parent(target, other, any_group=True)
        for name in _names(source, parent, "labels"):
            try:
                labels.copy_labels(parent, new, name)
                source.copied.append(f"labels {name!r}")
            except (ConfigError, DatasetError) as error:
                source.lost.append(f"labels {name!r} ({error})")
        for name in _names(source, parent, "tables"):
            try:
                rows = tables.load_table(source.path, name, image=image)
                tables.save_table(target, name, rows, image=other, labels=tables.labels_of(parent, name))
                source.copied.append(f"table {name!r}")
            except (ConfigError, DatasetError) as error:
                source.lost.append(f"table {name!r} ({error})")


def leave_members(source: Source) -> None:
    """Have the source tell what lies beside its images, for a target that cannot hold it."""
    for image, _ in source.members:
        parent = find_parent(source.path, image, any_group=True)
        source.lost += [f"labels {name!r}" for name in _names(source, parent, "labels")]
        source.lost += [f"table {name!r}" for name in _names(source, parent, "tables")]


def _names(source: Source, parent: Parent, kind: str) -> list[str]:
    listed = labels._LABELS if kind == "labels" else tables._TABLES
    try:
        return listed.listed(parent)
    except MutoscopeError as error:
        source.lost.append(f"{kind} ({error})")
        return []
