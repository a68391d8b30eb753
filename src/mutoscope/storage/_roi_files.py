"""ROI lists as files. The conversions themselves are `mutoscope.model`'s; here is where they meet the suffixes."""

from __future__ import annotations

from typing import IO, Any

from mutoscope.model.errors import ConfigError

__all__ = ["NEEDS", "check", "read", "write"]

NEEDS: tuple[tuple[str, str], ...] = ()
"""(module, extra) that ROI files need."""


def check(rois: list[Any]) -> None:
    """Raise ConfigError for ROIs that an ImageJ zip cannot hold."""
    raise ConfigError("ROI files are not written by this version")


def write(file: IO[bytes], rois: list[Any]) -> None:
    """Write ROIs as ImageJ's ROI manager does."""
    raise ConfigError("ROI files are not written by this version")


def read(file: IO[bytes], size: int, where: str) -> list[Any]:
    """Return the ROIs of a zip of ImageJ's ROI manager."""
    raise ConfigError(f"{where}: ROI files are not read by this version")
