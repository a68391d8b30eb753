"""What `import mutoscope` costs, and that nothing of the extras comes with it."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata

import pytest

LIST_MODULES = "import sys; {}; print(' '.join(sorted({{name.partition('.')[0] for name in sys.modules}})))"
NOT_OF_THE_CORE = {
    *(
        "IPython",
        "acquire_zarr",
        "aiohttp",
        "bioio",
        "imagecodecs",
        "imageio",
        "napari",
        "ndstorage",
        "ome_writers",
        "PIL",
        "PySide6",
        "bermuda",
        "pymmcore",
        "pymmcore_plus",
        "scipy",
        "tensorstore",
    ),
    *("numcodecs", "roifile", "tifffile", "useq", "zarr", "zmq"),
}
NOT_BEFORE_USE = {"cloudpickle", "cyclopts", "rich"}


def modules_after(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after a statement."""
    done = subprocess.run([sys.executable, "-c", LIST_MODULES.format(statement)], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import mutoscope",
        "import mutoscope; mutoscope.Scope; mutoscope.Worker; mutoscope.Command",
        "import mutoscope; mutoscope.cameras.SimulatedCamera; mutoscope.storage.open_reader",
        "import mutoscope.app.demo, mutoscope.app.replay, mutoscope.app.session",
        "import mutoscope.cli",
    ],
)
def test_no_extra_is_imported(statement: str) -> None:
    assert not modules_after(statement) & NOT_OF_THE_CORE
    assert not modules_after(statement) & NOT_BEFORE_USE


def test_the_list_names_every_extra() -> None:
    """A new extra must come into the list above."""
    extras = {
        requirement.split(";")[0].strip() for requirement in metadata.requires("mutoscope") or () if "extra ==" in requirement
    }
    names = {re.split(r"[<>=!~\[ ]", requirement)[0] for requirement in extras}
    modules = {"pyzmq": "zmq", "useq-schema": "useq", "PySide6-Essentials": "PySide6"}
    modules |= {name.lower(): module for name, module in modules.items()}
    assert {modules.get(name, name).replace("-", "_") for name in names} <= NOT_OF_THE_CORE


def test_the_command_line_imports_what_it_needs_only_when_called() -> None:
    assert not modules_after("import mutoscope.cli._commands") & NOT_OF_THE_CORE
    text = "import sys, mutoscope.cli._top; print([name for name in sys.modules if name.startswith('mutoscope.')])"
    loaded = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout
    for package in ("frames", "bus", "storage", "runtime", "cameras", "recording", "bench"):
        assert f"mutoscope.{package}" not in loaded


def test_storage_loads_what_is_used() -> None:
    text = (
        "import sys, mutoscope.storage as s; {}; print([name for name in sys.modules if name.startswith('mutoscope.storage.')])"
    )

    def loaded(statement: str) -> str:
        return subprocess.run([sys.executable, "-c", text.format(statement)], capture_output=True, text=True, check=True).stdout

    assert loaded("pass") == "[]\n"
    for statement in ("s.open('memory')", "s.open('disk', '.')"):
        for other in ("ome_tiff", "plate", "recording", "publishing", "writer"):
            assert f"mutoscope.storage.{other}" not in loaded(statement)


def test_every_name_of_storage_can_be_had() -> None:
    import mutoscope.storage

    for name in mutoscope.storage.__all__:
        assert getattr(mutoscope.storage, name) is not None
    assert set(mutoscope.storage.__all__) <= set(dir(mutoscope.storage))
    with pytest.raises(AttributeError, match="nothing"):
        mutoscope.storage.nothing  # noqa: B018


def test_it_loads_little_more_than_what_it_stands_on() -> None:
    """Modules beside those of NumPy and msgspec; what that takes is measured by ``tools/import_cost.py``."""
    text = "import sys; {}; print(len(sys.modules))"

    def loaded(statement: str) -> int:
        return int(subprocess.run([sys.executable, "-c", text.format(statement)], capture_output=True, text=True).stdout)

    assert loaded("import numpy, msgspec, mutoscope") <= loaded("import numpy, msgspec") + 4
