"""`mutoscope run`: the user's own program, as Python would run it."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import mutoscope

SCOPE = """
import sys
import mutoscope as ms

if __name__ == "__main__":
    with ms.Scope(camera=ms.cameras.SimulatedCamera(shape=(32, 32), rate_hz=200.0), record=sys.argv[1]) as scope:
        scope.acquire(frames=int(sys.argv[2]))
"""


def program(folder: Path, text: str) -> str:
    (folder / "scope.py").write_text(text, encoding="utf-8")
    return "scope.py"


def test_its_scope_is_summarized(tmp_path: Path) -> None:
    done = mutoscope(tmp_path, "run", "--headless", "--json", program(tmp_path, SCOPE), "mine.ome.zarr", "20")
    assert done.code == 0, done.describe()
    assert done.last_json["stored"] == 20
    assert done.last_json["path"] == str(tmp_path / "mine.ome.zarr")


def test_a_file_that_is_no_program_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "frames.raw").open("wb") as file:
        file.truncate(1 << 42)  # 4 TiB of holes
    done = mutoscope(tmp_path, "run", "--headless", "frames.raw")
    assert done.code == 2, done.describe()
    assert "frames.raw is no Python program" in done.stderr, done.describe()


def test_options_after_its_name_are_its_own(tmp_path: Path) -> None:
    text = "import sys\nprint(sys.argv, __name__, sys.path[0])\n"
    text += "import signal\nassert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
    done = mutoscope(tmp_path, "run", program(tmp_path, text), "--headless", "-n", "5", "--", "--json")
    assert done.code == 0, done.describe()
    assert done.stdout.strip() == f"['scope.py', '--headless', '-n', '5', '--', '--json'] __main__ {tmp_path}"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("import sys\nsys.exit(7)\n", 7),
        ("raise SystemExit\n", 0),
        ("raise SystemExit('that is all')\n", 1),
        ("raise KeyboardInterrupt\n", 130),
        ("import mutoscope.errors\n", 1),
        ("from mutoscope.model.errors import CameraError\nraise CameraError('it smokes')\n", 1),
        ("from mutoscope.model.errors import ConfigError\nraise ConfigError('it does not fit')\n", 2),
        ("x = 1 +\n", 1),
    ],
)
def test_its_end_is_the_end(tmp_path: Path, text: str, code: int) -> None:
    done = mutoscope(tmp_path, "run", program(tmp_path, text))
    assert done.code == code, done.describe()


def test_its_own_error_has_its_own_traceback(tmp_path: Path) -> None:
    done = mutoscope(tmp_path, "run", program(tmp_path, "def boil():\n    return 1 / 0\n\nboil()\n"))
    assert done.code == 1
    assert "ZeroDivisionError" in done.stderr
    assert "line 2, in boil" in done.stderr
    assert "runpy" not in done.stderr
    assert "mutoscope/app" not in done.stderr


def test_a_scope_that_it_forgot_to_close_is_closed(tmp_path: Path) -> None:
    text = SCOPE.replace("with ", "scope = ").replace(" as scope:", ".start()").partition("        scope.acquire")[0]
    done = mutoscope(tmp_path, "run", "--json", program(tmp_path, text), "forgotten.ome.zarr")
    assert done.code == 0, done.describe()
    assert done.last_json["exact"]


def test_a_program_without_a_scope_has_no_summary(tmp_path: Path) -> None:
    done = mutoscope(tmp_path, "run", "--json", program(tmp_path, "print('hello')\n"))
    assert done.stdout.splitlines() == ["hello", "null"]


EVENT = """
import mutoscope as ms

class Found(ms.Event):
    peak: int

class Watcher(ms.Worker):
    @ms.handles(Found)
    def found(self, event):
        pass
"""


def test_what_was_asked_for_in_vain_is_told_with_its_line(tmp_path: Path) -> None:
    done = mutoscope(tmp_path, "run", program(tmp_path, EVENT))
    assert done.code == 2, done.describe()
    first, *_, last = done.stderr.splitlines()
    assert first == '  File "scope.py", line 7, in <module>'
    assert last.startswith("mutoscope: handles() takes commands, and Found is an Event: say self.subscribe(Found, callback)")
    assert "in Watcher" in done.stderr
    assert "mutoscope/" not in done.stderr


def test_a_workers_error_is_told_with_its_line_too(tmp_path: Path) -> None:
    text = EVENT.replace(
        "    @ms.handles(Found)\n    def found(self, event):\n        pass", "    def setup(self):\n        self.reader('left')"
    )
    text += "\nif __name__ == '__main__':\n    with ms.Scope(workers=[Watcher]):\n        pass\n"
    done = mutoscope(tmp_path, "run", program(tmp_path, text))
    assert done.code == 2, done.describe()
    assert "line 9, in setup" in done.stderr, done.describe()
    assert "line 12, in <module>" in done.stderr, done.describe()
    assert "mutoscope/" not in done.stderr, done.describe()


def test_a_syntax_error_is_that_of_the_program_alone(tmp_path: Path) -> None:
    done = mutoscope(tmp_path, "run", program(tmp_path, "x = 1 +\n"))
    assert done.code == 1
    assert done.stderr.splitlines()[0] == '  File "scope.py", line 1', done.describe()
    assert "SyntaxError" in done.stderr
