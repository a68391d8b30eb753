"""What this machine has and lacks: versions, the native core, limits, extras."""

from __future__ import annotations

import os
import platform
import resource
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from mutoscope.model.errors import MutoscopeError
from mutoscope.model.install import extras, install_command

__all__ = ["examine", "lines"]

DISTRIBUTION = "mutoscope"
CORE_PACKAGES = ("numpy", "msgspec", "rich", "cyclopts", "cloudpickle")
READERS = ("zarr", "tensorstore", "tifffile", "imageio", "ome-zarr")
"""Python packages that can open what Mutoscope writes, or that replay reads with."""

_UNLIMITED = 1 << 60
_NO_IMAGEJ = "none found: set FIJI_HOME to Fiji's folder, or apt-get install imagej default-jre"


def examine(folder: Path | None = None) -> dict[str, Any]:
    """Look at this machine.

    Parameters
    ----------
    folder : Path, optional
        Where data would go; by default the current folder.

    Returns
    -------
    dict
        Plain values: ``versions``, ``core``, ``limits``, ``extras``, ``readers``, ``imagej`` and ``problems`` (sentences; empty
        when a scope can run here).
    """
    problems: list[str] = []
    core = _core(problems)
    limits = _limits(folder or Path.cwd(), problems)
    return {
        "versions": _versions(),
        "core": core,
        "limits": limits,
        "extras": _extras(),
        "readers": {name: _version(name) for name in READERS},
        "imagej": _imagej(),
        "problems": problems,
    }


def lines(report: dict[str, Any]) -> list[str]:
    """Return what :func:`examine` found as lines for people."""
    found = ["versions"]
    found += [f"  {name:<22}{version}" for name, version in report["versions"].items()]
    core = {"library": report["core"]["library"], "loads": "yes" if report["core"]["loads"] else "no"}
    found += [
        "native core",
        f"  {'library':<22}{core['library']}",
        f"  {'loads':<22}{'yes' if core['loads'] else 'no'}",
        "limits",
    ]
    for name, value in report["limits"].items():
        label = name.removesuffix("_bytes").replace("_", " ")
        found.append(f"  {label:<22}{_amount(value) if name.endswith('_bytes') else value}")
    found.append("extras")
    for name, extra in report["extras"].items():
        state = "installed" if not extra["missing"] else f"missing {', '.join(extra['missing'])}: {extra['command']}"
        found.append(f"  {name:<22}{state}")
    found.append("readers of what is recorded")
    found += [f"  {name:<22}{version or f'missing: {install_command(name)}'}" for name, version in report["readers"].items()]
    found.append("ImageJ and Fiji")
    found += [f"  {each['program']}: {each['plugin']}" for each in report["imagej"]] or [f"  {_NO_IMAGEJ}"]
    found += [f"problem: {problem}" for problem in report["problems"]] or ["no problem found: a scope can run here"]
    return found


def _versions() -> dict[str, str]:
    found = {DISTRIBUTION: _version(DISTRIBUTION) or "not installed", "python": platform.python_version()}
    found |= {name: _version(name) or "missing" for name in CORE_PACKAGES}
    found["system"] = f"{platform.system()} {platform.release()} {platform.machine()}"
    return found


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _imagej() -> list[dict[str, str]]:
    """Return the installations of ImageJ and Fiji, and whether each has the plug-in of this package."""
    from mutoscope.viewers.fiji.find import find_installations
    from mutoscope.viewers.fiji.install import is_installed

    try:
        installed = find_installations()
    except MutoscopeError as error:
        return [{"kind": "", "program": os.environ.get("FIJI_HOME", ""), "plugin": str(error)}]
    found = []
    for each in installed:
        try:
            where = each.program if each.kind == "imagej" else each.folder
            state = "the plug-in is installed"
            if not is_installed(each):
                found_there = "another version of the plug-in" if each.plugin.is_file() else "no plug-in"
                needed = " (it needs one where you open it yourself)" if each.kind == "imagej" else ""
                state = f"{found_there}{needed}: mutoscope fiji install {where}"
        except MutoscopeError as error:
            state = str(error)
        found.append({"kind": each.kind, "program": str(each.program), "plugin": state})
    return found


def _core(problems: list[str]) -> dict[str, Any]:
    try:
        from mutoscope.frames import FrameRing
        from mutoscope.frames._native import library

        FrameRing(slots=4, slot_bytes=4096, name="doctor").close()
    except (MutoscopeError, OSError, AttributeError) as error:
        problems.append(f"the native core does not work: {error}")
        return {"library": None, "loads": False}
    return {"library": library._name, "loads": True}


def _limits(folder: Path, problems: list[str]) -> dict[str, Any]:
    available = _meminfo("MemAvailable")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    cgroup = _cgroup_memory_bytes()
    free = shutil.disk_usage(folder).free
    if soft < 256:
        problems.append(f"only {soft} files may be open at once: raise it with ulimit -n 1024")
    if min(available, cgroup or available) < 256 << 20:
        problems.append(f"only {_amount(min(available, cgroup or available))} of memory can be used: a ring may not fit")
    if free < 1 << 30:
        problems.append(f"only {_amount(free)} are free in {folder}")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": _meminfo("MemTotal"),
        "memory_available_bytes": available,
        "memory_of_cgroup_bytes": cgroup,
        "shared_memory_bytes": shutil.disk_usage("/dev/shm").total if Path("/dev/shm").is_dir() else None,
        "open_files": f"{soft} (at most {hard})",
        "disk_free_bytes": free,
    }


def _meminfo(key: str) -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise MutoscopeError(f"/proc/meminfo holds no {key}")


def _cgroup_memory_bytes() -> int | None:
    """Return the tightest memory limit of this process's control groups (version 2 or 1), None when there is none."""
    limits = []
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, name = ("/sys/fs/cgroup", "memory.max") if not controllers else ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        folder = Path(root, group.lstrip("/"))
        for place in (folder, *folder.parents):
            file = place / name
            if file.is_file():
                text = file.read_text(encoding="ascii").strip()
                limits += [int(text)] if text != "max" else []
            if str(place) == root:
                break
    tightest = min(limits, default=_UNLIMITED)
    return tightest if tightest < _UNLIMITED else None


def _extras() -> dict[str, dict[str, Any]]:
    found = {}
    for extra, packages in extras().items():
        missing = [package for package in packages if _version(package) is None]
        found[extra] = {"missing": missing, "command": install_command(*(packages[each] for each in missing or packages))}
    return found


def _amount(count: int | None) -> str:
    """Write a number of bytes for people.

    Examples
    --------
    >>> _amount(3 << 30), _amount(None)
    ('3.0 GiB', 'none')
    """
    if count is None:
        return "none"
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
