"""The commands. What they do is in ``mutoscope.app``, ``mutoscope.storage`` and ``mutoscope.bench``, imported when called."""

from __future__ import annotations

import importlib
import json as jsonlib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from mutoscope.cli._convert import Image, add_commands
from mutoscope.cli._fiji import fiji
from mutoscope.cli._keys import keys
from mutoscope.cli._plate import plate
from mutoscope.cli._values import out_path, whole
from mutoscope.cli._view import add_view
from mutoscope.model.errors import BackendUnavailableError, ConfigError
from mutoscope.model.install import command_for

if TYPE_CHECKING:
    from mutoscope.app.display import ScopeDisplay
    from mutoscope.app.summary import RunSummary
    from mutoscope.viewers.page.settings import PageSettings

__all__ = ["app"]


def _version() -> str:
    from importlib.metadata import version

    return version("mutoscope")


app = App(
    name="mutoscope",
    help="The live data plane of a microscope: from cameras to trackers and crash-safe files, with every frame accounted for.",
    version=_version,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
app.command(plate)
app.command(fiji)
app.command(keys)
add_commands(app)
add_view(app)

Json = Annotated[bool, Parameter(negative="", help="Print the result as one JSON object, on the last line.")]
Headless = Annotated[bool, Parameter(negative="", help="No live display in the terminal.")]
Overwrite = Annotated[bool, Parameter(negative="", help="Replace a data set that stands there.")]
Out = Annotated[
    str | None,
    Parameter(
        help="Folder for the data set, or its own name, in .ome.zarr or .ome.tiff. By default a new one in ./mutoscope-data."
    ),
]

Port = Annotated[int | None, Parameter(converter=whole, help="Of the live page; by default any that is free.")]
WithoutPage = Annotated[bool, Parameter(negative="", help="Without the live page, which --headless leaves out as well.")]
PublicUrl = Annotated[str | None, Parameter(help="The page's address behind a proxy, such as https://lab.example/scope1/.")]

Compression = Annotated[
    str | None,
    Parameter(help="How frames are stored: none, blosc-lz4, blosc-zstd or zstd. By default none, which is the fastest."),
]


@app.command
def demo(
    *,
    frames: Annotated[
        int | None, Parameter(converter=whole, help="End after this many frames; by default Ctrl-C ends it.")
    ] = None,
    seconds: Annotated[float | None, Parameter(help="End after this many seconds.")] = None,
    out: Out = None,
    headless: Headless = False,
    json: Json = False,
    overwrite: Overwrite = False,
    compression: Compression = None,
    shape: Annotated[tuple[int, int], Parameter(converter=whole, negative="", help="Of the camera: y x, in pixels.")] = (
        512,
        512,
    ),
    rate_hz: Annotated[float, Parameter(help="Of the camera, in frames a second.")] = 100.0,
    seed: Annotated[int, Parameter(converter=whole, help="Of everything random in the simulation.")] = 0,
    port: Port = None,
    public_url: PublicUrl = None,
    without_page: WithoutPage = False,
) -> int:
    """Run a simulated microscope and record it: diffusing beads, a spot counter, OME-Zarr."""
    from mutoscope.app.demo import DemoSettings, run_demo

    settings = DemoSettings(
        frames=frames,
        seconds=seconds,
        out=out_path(out),
        overwrite=overwrite,
        compression=compression,
        shape=shape,
        rate_hz=rate_hz,
        seed=seed,
        page=_page(headless or without_page, port, public_url),
    )
    display = _display("mutoscope demo", headless, frames, seconds)
    return _finish(run_demo(settings, display=display, announce=_announce), json)


@app.command
def replay(
    path: Annotated[Path, Parameter(help="Multi-page TIFF or OME-TIFF, folder of TIFF or PNG, or OME-Zarr.")],
    /,
    *,
    rate_hz: Annotated[float, Parameter(help="Frames a second.")] = 50.0,
    loop: Annotated[bool, Parameter(negative="", help="Begin again after the last frame.")] = False,
    colour: Annotated[
        str | None, Parameter(help="How a colour image becomes grey: red, green, blue or luminance. Else colour is refused.")
    ] = None,
    image: Image = None,
    out: Out = None,
    frames: Annotated[int | None, Parameter(converter=whole, help="End after this many frames.")] = None,
    headless: Headless = False,
    json: Json = False,
    overwrite: Overwrite = False,
    compression: Compression = None,
    port: Port = None,
    public_url: PublicUrl = None,
    without_page: WithoutPage = False,
) -> int:
    """Send a data set through the camera path and record it again."""
    from mutoscope.app.replay import ReplaySettings, run_replay

    settings = ReplaySettings(
        path=path,
        rate_hz=rate_hz,
        loop=loop,
        colour=colour,
        image=image,
        frames=frames,
        out=out_path(out),
        overwrite=overwrite,
        compression=compression,
        page=_page(headless or without_page, port, public_url),
    )
    display = _display(f"mutoscope replay {path.name}", headless, frames, None)
    return _finish(run_replay(settings, display=display, announce=_announce), json)


@app.command
def run(
    script: Annotated[Path, Parameter(help="Your program. Options before it are Mutoscope's, those after it its own.")],
    /,
    *arguments: Annotated[str, Parameter(help="The program's own arguments.")],
    headless: Headless = False,
    json: Json = False,
    port: Port = None,
    public_url: PublicUrl = None,
    without_page: WithoutPage = False,
) -> int:
    """Run your own program, with the live page and the terminal display around each scope that it starts."""
    from mutoscope.app.program import run_program

    display = _display(f"mutoscope run {script.name}", headless, None, None)
    if callable(signal.getsignal(signal.SIGINT)):
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as Python starts a program: asyncio looks for it
    page = _page(headless or without_page, port, public_url)
    outcome = run_program(script, arguments, display=display, page=page, announce=_announce)
    if outcome.summary is not None:
        _finish(outcome.summary, json)
    elif json:
        print(jsonlib.dumps(None))
    return outcome.exit_code


@app.command
def share(
    scope: Annotated[str | None, Parameter(help="Its name or its page's port, if several scopes of yours have one.")] = None,
    /,
    *,
    view: Annotated[bool, Parameter(negative="", help="A link that only looks: the only kind that there is.")] = True,
    hours: Annotated[float, Parameter(help="How long the link holds.")] = 8.0,
) -> int:
    """Print a link to the page of a running scope that only looks, and expires."""
    from mutoscope.viewers.page.share import share as link_to

    if not hours > 0:
        raise ConfigError(f"a link holds for more than 0 hours, not {hours:g}")
    print(link_to(scope, 3600.0 * hours))
    return 0


@app.command
def info(
    dataset: Annotated[Path, Parameter(help="The data set.")],
    /,
    *,
    json: Json = False,
) -> int:
    """Tell what a data set holds: shape, frames, gaps, times, ledger."""
    from mutoscope.app.report import check_dataset, dataset_lines, describe

    check_dataset(dataset)
    found = describe(dataset)
    print(jsonlib.dumps(found) if json else "\n".join(dataset_lines(found)))
    return 0


@app.command
def report(
    run: Annotated[Path, Parameter(help="The data set, its folder NAME.mutoscope, or the folder that both are in.")],
    /,
    *,
    json: Json = False,
) -> int:
    """Make a run's one-page report again, NAME.mutoscope/report.html: gaps, rates, restarts, losses, clocks, disk."""
    from mutoscope.app.run_report import write_report

    made = write_report(run)
    print(jsonlib.dumps({"report": str(made)}) if json else str(made))
    return 0


@app.command
def recover(
    dataset: Annotated[Path, Parameter(help="The data set.")],
    /,
    *,
    json: Json = False,
) -> int:
    """Repair a data set after a crash or a power cut: trim the unwritten tail; of a plate, find planes that are not whole."""
    import msgspec

    from mutoscope import storage
    from mutoscope.app.report import check_dataset
    from mutoscope.storage.plate import is_plate, repair_plate

    check_dataset(dataset)
    report = repair_plate(dataset) if is_plate(dataset) else storage.recover(dataset)
    print(jsonlib.dumps(msgspec.to_builtins(report)) if json else report.summary())
    return 0


@app.command
def pyramid(
    dataset: Annotated[Path, Parameter(help="The recording, OME-Zarr.")],
    /,
    *,
    levels: Annotated[
        int | None,
        Parameter(converter=whole, help="How many smaller levels; by default until the longer side is at most 256 pixels."),
    ] = None,
    json: Json = False,
) -> int:
    """Add smaller levels to a recording, so that viewers open it at once. Killed in between, it goes on when called again."""
    import msgspec

    from mutoscope import storage
    from mutoscope.app.report import check_dataset

    check_dataset(dataset)
    report = storage.build_pyramid(dataset, levels=levels)
    print(jsonlib.dumps(msgspec.to_builtins(report)) if json else report.summary())
    return 0


@app.command
def doctor(*, json: Json = False) -> int:
    """Tell what this machine has and lacks: versions, native core, limits, extras, readers."""
    from mutoscope.app.doctor import examine, lines

    report = examine()
    print("\n".join(lines(report)))
    if json:
        print(jsonlib.dumps(report))
    return 1 if report["problems"] else 0


@app.command
def bench(
    name: Annotated[
        Literal["ring", "bus", "live", "faults", "storage", "crash", "plate", "page", "viewers"],
        Parameter(help="What to measure."),
    ],
    /,
    *,
    quick: Annotated[
        bool, Parameter(negative="", help="Everything once, seconds instead of minutes; times are not judged.")
    ] = False,
    kills: Annotated[
        int | None,
        Parameter(converter=whole, help="Of faults, crash and viewers: how many to kill, of crash of each kind of writer."),
    ] = None,
    seed: Annotated[
        int | None, Parameter(converter=whole, help="Of faults, crash and viewers: chooses the same victims and moments again.")
    ] = None,
    peers: Annotated[
        bool,
        Parameter(negative="", help="Of storage: against other packages, each that is installed."),
    ] = False,
    only: Annotated[
        str | None,
        Parameter(
            help="Of crash and storage --peers: what has this in its name, as '512² zstd' has. Of viewers: napari or fiji, "
            "on the screen that there is; browser; or hardships."
        ),
    ] = None,
    markdown: Annotated[bool, Parameter(negative="", help="Print the results as Markdown.")] = False,
    json: Json = False,
) -> int:
    """Measure this machine: each figure beside the physical floor of the same run. Exit code 1 if a bound was missed."""
    from rich.console import Console

    options = {"kills": kills, "seed": seed, "only": only, "peers": peers or None}
    chosen = {option: value for option, value in options.items() if value is not None}
    for option in chosen:
        if name not in (benches := _BENCH_OPTIONS[option]):
            raise ConfigError(f"--{option} belongs to the bench {' or '.join(benches)}, not to {name}")
    if only is not None and name == "storage" and not peers:
        raise ConfigError("--only belongs to the bench storage with --peers")
    if kills is not None and kills < 1:
        raise ConfigError(f"the number of kills must be 1 or more, not {kills}")
    module = "storage_peers" if chosen.pop("peers", None) else name
    try:
        report = importlib.import_module(f"mutoscope.bench.{module}").run(quick=quick, **chosen)
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        command = command_for("peers" if module in ("crash", "storage_peers", "plate") else "bench", package)
        raise BackendUnavailableError(f"the bench {name} needs {package}: {command}") from error
    if markdown:
        print(report.to_markdown())
    else:
        report.show(Console())
    if json:
        print(report.to_json())
    return 0 if report.passed else 1


_BENCH_OPTIONS = {
    "kills": ("faults", "crash", "viewers"),
    "seed": ("faults", "crash", "viewers"),
    "only": ("crash", "storage", "viewers"),
    "peers": ("storage",),
}


def _display(title: str, headless: bool, frames: int | None, seconds: float | None) -> ScopeDisplay | None:
    if headless or not sys.stderr.isatty():
        return None
    from mutoscope.app.display import ScopeDisplay

    return ScopeDisplay(title, frames=frames, seconds=seconds)


def _page(without: bool, port: int | None, public_url: str | None) -> PageSettings | None:
    """The page that a command serves unless it is told not to; None, with one line that says so, where it cannot."""
    if without:
        if port is not None or public_url is not None:
            raise ConfigError("--port and --public-url belong to the page, which --headless and --without-page leave out")
        return None
    from mutoscope.viewers.page.settings import PageSettings, check_available

    page = PageSettings(port=port or 0, public_url=public_url)
    try:
        check_available()
    except BackendUnavailableError as error:
        _announce(f"without the live page: {error}")
        return None
    return page


def _announce(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _finish(summary: RunSummary, json: bool) -> int:
    print("\n".join(summary.lines()))
    if json:
        print(jsonlib.dumps(summary.to_dict()))
    sys.stdout.flush()
    return summary.exit_code
