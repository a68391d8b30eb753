"""What the terminal display draws, and that it ends with its scope."""

from __future__ import annotations

import io
import re
import runpy
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from rich.console import Console

from mutoscope.app.display import Meter, View, draw
from mutoscope.app.scope import WorkerStatus
from mutoscope.app.summary import RunSummary


def worker(name: str, state: str = "running", **changes: Any) -> WorkerStatus:
    plain: dict[str, Any] = dict.fromkeys(WorkerStatus.__dataclass_fields__, 0)
    plain |= {"name": name, "kind": "worker", "pid": 4711, "state": state, "last_error": "", **changes}
    return WorkerStatus(**plain)


def view(**changes: Any) -> View:
    account = {"policy": "every", "done": 900, "dropped": {}, "pending": 12}
    camera = {
        "produced": 1912, "stored": 1900, "missed": 0, "recorder": "recorder", "consumers": {"recorder": account},
        "slots": 200, "slots_in_use": 190,
    }  # fmt: skip
    plain: dict[str, Any] = {
        "title": "a run",
        "path": "run.ome.zarr",
        "elapsed_s": 3725.0,
        "frames": None,
        "seconds": None,
        "cameras": {"camera": camera},
        "camera_rates_hz": {"camera": 99.95},
        "workers": [worker("SpotCounter")],
        "worker_rates_hz": {"SpotCounter": 60.0},
        "missed": 0,
        "dropped": {},
    }
    return View(**(plain | changes))


def text_of(drawn: View) -> str:
    console = Console(file=io.StringIO(), width=140, force_terminal=False)
    console.print(draw(drawn))
    written: str = console.file.getvalue()  # type: ignore[attr-defined]
    return written


def test_rates_ring_fill_and_workers_are_drawn() -> None:
    text = text_of(view())
    for words in (
        "a run",
        "1:02:05",
        "run.ome.zarr",
        "100.0 Hz",
        "1,912",
        "1,900",
        "12",
        "190/200",
        "SpotCounter",
        "4711",
        "missed 0   dropped 0",
    ):
        assert words in text, text


def test_progress_is_drawn_by_frames_or_by_seconds() -> None:
    assert "1,912 of 4,000 frames" in text_of(view(frames=4000))
    assert "of 7200 s" in text_of(view(seconds=7200.0))


def test_losses_and_a_dead_worker_are_named() -> None:
    dead = worker("SpotCounter", "restarting", pid=0, restarts=3, last_error="ZeroDivisionError: division by zero\nmore")
    text = text_of(view(workers=[dead], missed=1234, dropped={"disk_full": 0, "saving_off": 7}))
    assert "missed 1,234   dropped saving_off 7" in text
    assert "disk_full" not in text
    assert "restarting" in text
    assert "ZeroDivisionError: division by zero" in text
    assert "more" not in text


def test_a_counter_that_begins_again_gives_no_negative_rate() -> None:
    meter = Meter()
    assert [meter.rate_hz(count, at_s) for count, at_s in [(0, 0.0), (100, 1.0), (10, 2.0), (30, 3.0)]] == [
        0.0,
        100.0,
        0.0,
        20.0,
    ]


def summary(**changes: Any) -> RunSummary:
    plain: dict[str, Any] = {
        "produced": 100, "stored": 100, "dropped": {}, "pending": 0, "rate_hz": 100.0, "path": "run.ome.zarr", "restarts": 0,
    }  # fmt: skip
    return RunSummary(**(plain | changes))


def test_the_exit_code_follows_from_the_summary() -> None:
    assert summary().exit_code == 0
    assert summary(stored=90, dropped={"saving_off": 10}, missed=3, restarts=2).exit_code == 0
    assert summary(pending=3).exit_code == 1
    assert summary(errors=["no space left on the device"]).exit_code == 1
    assert summary(exact=False).exit_code == 1


def test_an_unknown_rate_is_null_in_json() -> None:
    assert summary(rate_hz=float("nan")).to_dict()["rate_hz"] is None


ROOT = Path(__file__).resolve().parents[2]


def words_of(svg: str) -> set[str]:
    texts = (element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text"))
    return {text.replace("\N{NO-BREAK SPACE}", " ").strip() for text in texts}


def test_the_picture_of_the_docs_is_of_a_real_run_and_can_be_taken_again(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    taken = runpy.run_path(str(ROOT / "tools" / "picture.py"))["picture"](frames=30)
    shown = (ROOT / "docs" / "demo.svg").read_text(encoding="utf-8")
    fixed = {"mutoscope demo", "rate", "produced", "stored", "ring", "restarts", "recorder", "SpotCounter", "running"}
    assert fixed <= words_of(taken)
    assert fixed <= words_of(shown), "the display has changed: python tools/picture.py"
    for svg in (taken, shown):
        assert re.findall(r"https?://[^\s\"']+", svg) == ["http://www.w3.org/2000/svg"], "nothing is fetched from elsewhere"
        assert any(word.startswith("mutoscope-data/") for word in words_of(svg))
