"""Builds the native core (a plain shared library, no Python headers) into the wheel or the editable tree."""

from __future__ import annotations

import importlib.util
import platform
import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CORE = Path("src/mutoscope/frames/_core")


class NativeCoreHook(BuildHookInterface[Any]):
    """Compile ``libmutoscope.so`` with the system's C compiler, else with PyPI's ``ziglang``."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        return [] if shutil.which("cc") else ["ziglang>=0.13"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        spec = importlib.util.spec_from_file_location("_mutoscope_compile", root / "src/mutoscope/frames/_compile.py")
        if spec is None or spec.loader is None:
            raise RuntimeError("src/mutoscope/frames/_compile.py is missing from the source tree")
        compile_module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(compile_module)
        compile_module.compile_core(root / CORE / "libmutoscope.so")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-linux_{platform.machine()}"
