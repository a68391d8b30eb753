"""The commands for ImageJ and Fiji: ``mutoscope fiji install``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from mutoscope.model.errors import ConfigError

__all__ = ["fiji"]

fiji = App(name="fiji", help="ImageJ and Fiji: the plug-in that shows what Mutoscope sends.", result_action="return_value")


@fiji.command
def install(
    folder: Annotated[
        Path | None, Parameter(help="Of Fiji or ImageJ. By default FIJI_HOME, else the first one in the usual places.")
    ] = None,
    /,
) -> int:
    """Put the plug-in into Fiji or ImageJ, in place of an older one."""
    from mutoscope.viewers.fiji.find import find_installation, installation_of
    from mutoscope.viewers.fiji.install import install_plugin

    found = find_installation() if folder is None else installation_of(folder.expanduser())
    if found is None:
        raise ConfigError(f"{folder} is no folder of Fiji or ImageJ")
    print(f"the plug-in is {install_plugin(found)}")
    print("after a restart there: Plugins > Mutoscope > Live receiver")
    return 0
