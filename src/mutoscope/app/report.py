"""What is known of a data set, as lines for people; programs take the JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mutoscope.app._gaps import find_gaps
from mutoscope.model.errors import DatasetError, DatasetNotFoundError

__all__ = ["check_dataset", "dataset_lines", "describe"]


def check_dataset(path: Path) -> None:
    """Raise DatasetNotFoundError, one sentence, where there is no data set that a person may have meant.

    Raises
    ------
    DatasetNotFoundError
        If nothing is there, or a file that is no OME-TIFF, or a folder without a data set in it; one that holds data sets is
        told by their names.
    """
    if not os.path.lexists(path):
        raise DatasetNotFoundError(f"there is nothing at {path}: a data set is a folder, such as run.ome.zarr")
    if not path.is_dir():
        from mutoscope.storage.ome_tiff import is_ome_tiff

        if is_ome_tiff(path):
            return
        raise DatasetNotFoundError(
            f"{path} is a file, and no data set: that is a folder, such as run.ome.zarr, or a run.ome.tiff with its .json"
        )
    if any(os.path.lexists(path / name) for name in ("zarr.json", ".zgroup", ".zattrs")):
        return
    inside = sorted(each.name for each in path.iterdir() if each.suffix == ".zarr")
    names = " or ".join(str(path / name) for name in inside[:3])
    hint = f"did you mean {names}?" if inside else "it has no zarr.json or .zgroup"
    raise DatasetNotFoundError(f"{path} is a folder, but no data set: {hint}")


def describe(path: Path) -> dict[str, Any]:
    """Return what :func:`mutoscope.storage.info` tells, and of each recorded image the exposures `missed` between its frames.

    They are told by the camera's ticks, where a frame that was dropped has one; None where there are none.
    """
    from mutoscope import storage

    info: dict[str, Any] = storage.info(path)
    ticks: dict[str, tuple[Any, Any]] = {}
    for image in info["images"] if "cameras" in info else ():
        if image["camera"] not in ticks:
            with storage.open_reader(path, camera=image["camera"]) as reader:
                ticks[image["camera"]] = (reader.frame_ids, reader.ticks)
        ids, counted = ticks[image["camera"]]
        own = (ids >= (image["first_frame_id"] or 0)) & (ids <= (image["last_frame_id"] or 0))
        image["missed"] = int(find_gaps(ids[own], counted[own]).missed.sum()) if counted[own].any() else None
    return info


def dataset_lines(info: Mapping[str, Any]) -> list[str]:
    """Return what :func:`describe` tells, without the settings and the clocks.

    Parameters
    ----------
    info : mapping
        Of one data set.
    """
    if "plate_layout" in info:
        from mutoscope.storage.plate import plate_lines

        return plate_lines(info)
    state = "complete" if info["complete"] else "not closed (being written, or cut off)"
    found = [f"{info['path']}: {info['frames']:,} frames, {state}"]
    for image in info["images"]:
        count, height, width = image["shape"]
        name = image["camera"] if image["segment"] == 0 else f"{image['camera']}.{image['segment']}"
        form = "" if image.get("compression", "none") == "none" else f", {image['compression']}"
        form += f", {image['levels']} levels" if image.get("levels", 1) > 1 else ""
        found.append(f"{name}: {image['frames']:,} frames of {height} x {width} px, {image['dtype']}{form}")
        if image["frames"]:
            missed = "unknown: the camera counts none" if image["missed"] is None else f"{image['missed']:,} exposures"
            found += [
                f"  ids      {image['first_frame_id']:,} to {image['last_frame_id']:,}, gaps {_gaps(image['gaps'])}",
                f"  missed   {missed}",
                f"  from     {_utc(image['first_utc_ns'])} to {_utc(image['last_utc_ns'])}",
            ]
        if image["rate_hz"] is not None:
            found.append(f"  rate     {image['rate_hz']:,.2f} Hz over {image['duration_s']:,.2f} s")
        size = image["pixel_size_um"]
        found.append(f"  pixel    {'size unknown' if size is None else f'{size:g} µm'}")
        if count != image["frames"]:
            found.append(f"  declared {count:,} frames; those without an id are unwritten")
    return found + _ledger_lines(info)


def _ledger_lines(info: Mapping[str, Any]) -> list[str]:
    """The account of the run; of a data set that was resumed, that of each run, and of all together."""
    from mutoscope.runtime import Ledger
    from mutoscope.runtime.figures import add_up

    found: list[str] = []
    accounts = [run.get("ledger") for run in (*info.get("earlier_runs", ()), info)]
    if not any(accounts):
        return found
    for number, account in enumerate(accounts, 1):
        found.append("ledger" if len(accounts) == 1 else f"ledger of run {number} of {len(accounts)}")
        if not account:
            found.append("  none: the run was cut off, or goes on")
            continue
        try:
            found += [f"  {line}" for line in Ledger(dict(account)).summary().splitlines()]
            found += [f"  problem: {problem}" for problem in account.get("problems", ())]
        except (AttributeError, DatasetError, TypeError, ValueError) as error:
            raise DatasetError(f"{info['path']}: its ledger is damaged ({error}); --json tells what can be read") from None
    if len(accounts) > 1:
        ledgers = [Ledger(dict(account)) for account in accounts if account]
        reasons = add_up(ledger.dropped for ledger in ledgers)
        why = f" ({', '.join(f'{reason} {count:,}' for reason, count in reasons.items())})" if reasons else ""
        whose = f"all {len(accounts)} runs" if len(ledgers) == len(accounts) else f"the {len(ledgers)} runs with a ledger"
        produced, stored = sum(ledger.produced for ledger in ledgers), sum(ledger.stored for ledger in ledgers)
        missed, dropped = sum(ledger.missed for ledger in ledgers), sum(reasons.values())
        found.append(f"{whose} together: produced {produced:,}, stored {stored:,}, missed {missed:,}, dropped {dropped:,}{why}")
    return found


def _gaps(gaps: Sequence[Sequence[int]]) -> str:
    if not gaps:
        return "none"
    shown = ", ".join(f"{count:,} from {first:,}" for first, count in gaps[:5])
    return shown if len(gaps) <= 5 else f"{shown} and {len(gaps) - 5:,} more"


def _utc(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if ns else "unknown"
