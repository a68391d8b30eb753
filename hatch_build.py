"""Builds what is no Python: the native core (a plain shared library, no Python headers), the live page, ImageJ's plug-in."""

from __future__ import annotations

import importlib.util
import platform
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CORE = Path("src/mutoscope/frames/_core")
HAVE_NODE_WHEELS = {"x86_64", "aarch64"}


class BuildHook(BuildHookInterface[Any]):
    """Compile ``libmutoscope.so`` with the system's C compiler, else with PyPI's ``ziglang``; bundle the page with the system's
    Node, else with PyPI's; build the plug-in of ImageJ with Maven. Where Node or npm's registry, or Maven, cannot be had, the
    package is built without the page, or without the plug-in."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        needed = [] if shutil.which("cc") else ["ziglang>=0.13"]
        page = self._load("web/build.py")
        if page.needs_building() and page.system_node() is None and platform.machine() in HAVE_NODE_WHEELS:
            needed.append(page.NODE_PACKAGE)
        return needed

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        self._load("src/mutoscope/frames/_compile.py").compile_core(root / CORE / "libmutoscope.so")
        page = self._load("web/build.py")
        try:
            page.build_page()
        except page.PageNotBuiltError as error:
            self.app.display_warning(f"Mutoscope is installed without its live page: {str(error).splitlines()[0]}")
        plugin = self._load("fiji/build.py")
        try:
            plugin.build_plugin()
        except plugin.PluginNotBuiltError as error:
            self.app.display_warning(f"Mutoscope is installed without its plug-in for ImageJ: {str(error).splitlines()[0]}")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-linux_{platform.machine()}"

    def _load(self, name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"_mutoscope_{Path(name).stem.strip('_')}", Path(self.root) / name)
        if spec is None or spec.loader is None or not (Path(self.root) / name).exists():
            raise RuntimeError(f"{name} is missing from the source tree")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
