"""Commands, handlers, manifests and routes, without any socket."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from mutoscope import bus
from mutoscope.bus.commands import reply_type
from mutoscope.bus.routes import check_routes
from mutoscope.model.errors import ConfigError


class SetThreshold(bus.Command):
    value: float


class Renamed(bus.Command, name="lab.renamed"):
    z_um: float = 0.0


class Moved(bus.Event):
    x: float


class Base:
    @bus.handles(SetThreshold)
    def set_threshold(self, command) -> float:
        return 1.0


class Derived(Base):
    def set_threshold(self, command) -> float:
        return 2.0

    @bus.handles(Renamed, page=True, script=False)
    def renamed(self, command) -> None: ...


def test_names_and_immutability() -> None:
    assert bus.message_name(SetThreshold) == "SetThreshold"
    assert bus.message_name(Renamed) == "lab.renamed"
    with pytest.raises(AttributeError):
        SetThreshold(value=1.0).value = 2.0  # type: ignore[misc]
    assert SetThreshold(value=1.0) == SetThreshold(value=1.0)
    for wrong in (bus.Command, bus.Event, int, msgspec.Struct):
        with pytest.raises(ConfigError, match="is not a subclass of Command or Event"):
            bus.message_name(wrong)


def test_handlers_are_inherited_and_may_be_overridden() -> None:
    table = bus.collect_handlers(Derived())
    assert sorted(table) == ["SetThreshold", "lab.renamed"]
    assert table["SetThreshold"].call(None) == 2.0
    field = bus.FormField(name="z_um", type="float", required=False, default=0.0, unit="µm")
    form = bus.Form(title="Renamed", fields=(field,))
    assert table["lab.renamed"].spec == bus.HandlerSpec("lab.renamed", f"{__name__}:Renamed", "direct", False, True, form)
    assert bus.manifest(Derived) == bus.manifest(Derived())


def test_what_handles_takes() -> None:
    with pytest.raises(ConfigError, match=r"takes commands, and Moved is an Event: say self.subscribe\(Moved, callback\)"):
        bus.handles(Moved)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="takes subclasses of Command, got <class 'int'>"):
        bus.handles(int)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="delivery is 'everywhere'"):
        bus.handles(SetThreshold, delivery="everywhere")  # type: ignore[arg-type]

    class Twice:
        @bus.handles(SetThreshold)
        def one(self, command): ...

        @bus.handles(SetThreshold)
        def two(self, command): ...

    with pytest.raises(ConfigError, match=r"SetThreshold is handled twice in one worker: by .*one and .*two"):
        bus.manifest(Twice)

    class Both:
        @bus.handles(SetThreshold, Renamed)
        def both(self, command): ...

    assert sorted(bus.collect_handlers(Both())) == ["SetThreshold", "lab.renamed"]


def test_the_reply_type_is_the_handlers_annotation_unless_two_disagree() -> None:
    class Ask(bus.Command):
        pass

    assert reply_type(Ask) is Any

    class One:
        @bus.handles(Ask)
        def ask(self, command) -> int:
            return 1

    assert reply_type(Ask) is int

    class Two:
        @bus.handles(Ask)
        def ask(self, command) -> str:
            return ""

    assert reply_type(Ask) is Any


class Lens:
    pass


def test_fields_without_an_encoding_are_found_before_anything_runs() -> None:
    class Nested(msgspec.Struct):
        lenses: list[Lens]

    class Bad(bus.Command):
        inner: dict[str, Nested | None]

    class Good(bus.Command):
        image: np.ndarray
        typed: npt.NDArray[np.float64]
        scalar: np.float32
        anything: Any

    class Handler:
        @bus.handles(Bad)
        def bad(self, command): ...

    class Fine:
        @bus.handles(Good)
        def good(self, command): ...

    Bad.__annotations__["inner"] = dict[str, Nested | None]
    with pytest.raises(ConfigError, match=r"Bad cannot be sent: .* is of type Lens, which has no encoding"):
        bus.manifest(Handler)
    assert [spec.command for spec in bus.manifest(Fine).handles] == ["Good"]


def make(owner: str, *handles: bus.HandlerSpec, sends: tuple[bus.SendSpec, ...] = ()) -> bus.Manifest:
    return bus.Manifest(owner, handles, sends)


MOVE = bus.HandlerSpec("Move", "lab:Move")
SHOW = bus.HandlerSpec("Show", "lab:Show", "broadcast")


def test_good_routes_pass() -> None:
    check_routes(
        {
            "a": make("lab:Stage", MOVE, SHOW),
            "b": make("lab:Stage", MOVE, SHOW),
            "c": make(
                "lab:Viewer",
                SHOW,
                bus.HandlerSpec("Setup", "runtime:Setup", "supervisor"),
                sends=(
                    bus.SendSpec("Move", "lab:Move", "a"),
                    bus.SendSpec("Show", "lab:Show"),
                    bus.SendSpec("Quit", "rt:Quit"),
                ),
            ),
            "d": make("lab:Other", bus.HandlerSpec("Setup", "runtime:Setup", "supervisor")),
        },
        {"Quit": "rt:Quit"},
    )


@pytest.mark.parametrize(
    ("manifests", "text"),
    [
        (
            {"a": make("lab:Stage", MOVE), "b": make("lab:Piezo", MOVE)},
            r"Move is a direct command with two owners: a \(lab:Stage\) and b \(lab:Piezo\)",
        ),
        (
            {"a": make("lab:Stage", MOVE), "b": make("x:Y", bus.HandlerSpec("Move", "other:Move"))},
            'two commands are called "Move": lab:Move (of a) and other:Move (of b)'.replace("(", r"\(").replace(")", r"\)"),
        ),
        (
            {"a": make("lab:Stage", MOVE), "b": make("x:Y", sends=(bus.SendSpec("Move", "other:Move"),))},
            'two commands are called "Move"',
        ),
        ({"a": make("lab:Stage", sends=(bus.SendSpec("Go", "lab:Go"),))}, "a sends Go, but nobody handles Go"),
        (
            {"a": make("lab:Stage", MOVE, sends=(bus.SendSpec("Move", "lab:Move", "stage"),))},
            'a sends Move, but nobody is called "stage"; there are a',
        ),
        (
            {"a": make("lab:S", MOVE), "b": make("lab:V", sends=(bus.SendSpec("Move", "lab:Move", "b"),))},
            "b sends Move, but b does not handle Move; it is handled by a",
        ),
        (
            {"a": make("l:S", MOVE), "b": make("l:S", MOVE), "c": make("l:V", sends=(bus.SendSpec("Move", "lab:Move"),))},
            "c sends Move without a target, but Move is handled by a, b: say which",
        ),
        (
            {"a": make("l:S", sends=(bus.SendSpec("Go", "lab:Go", "supervisor"),))},
            "a sends Go, but the supervisor does not handle Go",
        ),
        (
            {"a": make("l:S", bus.HandlerSpec("Quit", "rt:Quit"))},
            "Quit is the supervisor's own command, a cannot handle it too",
        ),
        (
            {"a": make("l:S", SHOW), "b": make("l:S", bus.HandlerSpec("Show", "lab:Show"))},
            "Show is broadcast in a and direct in b",
        ),
    ],
)
def test_bad_routes_are_named(manifests: dict[str, bus.Manifest], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        check_routes(manifests, {"Quit": "rt:Quit"})


def test_two_command_classes_of_one_name_in_different_modules() -> None:
    source = "from mutoscope import bus\nclass SetThreshold(bus.Command):\n    value: float\n"
    elsewhere: dict[str, Any] = {"__name__": "elsewhere"}
    exec(source, elsewhere)

    class Other:
        @bus.handles(elsewhere["SetThreshold"])
        def set_threshold(self, command): ...

    with pytest.raises(ConfigError, match=r"elsewhere:SetThreshold \(of other\).*name=\.\.\."):
        bus.check_routes({"mine": bus.manifest(Base), "other": bus.manifest(Other)})


def test_sends_of_a_class_are_announced() -> None:
    class Sender:
        sends = (SetThreshold, (Renamed, "stage"))

    assert bus.manifest(Sender).sends == (
        bus.SendSpec("SetThreshold", f"{__name__}:SetThreshold"),
        bus.SendSpec("lab.renamed", f"{__name__}:Renamed", "stage"),
    )


SCRIPT = """
    from __future__ import annotations
    import subprocess, sys
    import msgspec, numpy as np
    from mutoscope import bus

    class Inner(msgspec.Struct, frozen=True):
        names: list[str] = msgspec.field(default_factory=lambda: ["a"])

    class Base(bus.Command):
        k: int

    class SetThreshold(Base, name="my.threshold"):
        value: float
        image: np.ndarray | None = None
        inner: Inner = Inner()
        def twice(self): return SetThreshold(k=0, value=self.value * 2)

    class Plain(bus.Command):
        pass

    class Moved(bus.Event, frozen=True):
        x: float

    class Worker:
        @bus.handles(SetThreshold)
        def handle(self, command: SetThreshold) -> float:
            return command.twice().value + command.k

        def more(self):
            return Moved(x=1.0), Plain(), Inner()

    if __name__ == "__main__":
        code = (
            "import sys, pickle; W, c = pickle.load(sys.stdin.buffer); from mutoscope import bus; w = W();"
            "t = bus.collect_handlers(w); h = t['my.threshold'];"
            "from mutoscope.bus import payload;"
            "c = payload.decode(payload.encode(c, ''), h.kind, '');"
            "print(h.call(c), w.more(), h.spec.identity, type(c) is h.kind)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=bus.dumps((Worker, SetThreshold(k=3, value=2.0))),
            stdout=subprocess.PIPE,
            check=True,
        )
        print(done.stdout.decode())
"""


def test_commands_of_a_script_travel_with_its_worker_class(tmp_path) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "7.0 (Moved(x=1.0), Plain(), Inner(names=['a'])) __main__:SetThreshold True", done.stderr


META = [
    msgspec.Meta(gt=0.5, le=300, multiple_of=0.5, title="z", description="Above the glass.", extra={"axis": "z"}),
    msgspec.Meta(ge=1, lt=9, examples=[1, 2], extra_json_schema={"format": "int32"}),
    msgspec.Meta(pattern="^[a-z]+$", min_length=1, max_length=8),
    msgspec.Meta(tz=True),
]


def test_bounds_and_descriptions_of_fields_travel_with_the_class() -> None:
    assert pickle.loads(bus.dumps(META)) == META
    told = {name for meta in META for name, _ in meta.__rich_repr__()}
    assert told == {name for name in dir(msgspec.Meta) if not name.startswith("_")}, "each thing that Meta can tell is tried"


def test_importable_classes_travel_by_name() -> None:
    assert pickle.loads(bus.dumps(Derived)) is Derived
    assert pickle.loads(bus.dumps(SetThreshold(value=3.0))) == SetThreshold(value=3.0)


def test_a_message_is_sent_as_an_instance() -> None:
    class Bare(bus.Command):
        pass

    class Event(bus.Event):
        level: int

    bus.commands.check_instance(Bare(), bus.Command)
    bus.commands.check_instance(Event(1), bus.Event)
    for message, base, words in (
        (Bare, bus.Command, r"Bare is a class of messages: give an instance: Bare\(\)"),
        (SetThreshold, bus.Command, r"give an instance: SetThreshold\(value=…\)"),
        (Event, bus.Event, r"give an instance: Event\(level=…\)"),
        (Event(1), bus.Command, "Event is an event: publish it"),
        (Bare(), bus.Event, "Bare is a command: send or request it"),
        (3, bus.Command, "a command is an instance of a subclass of mutoscope.Command, not 3"),
        (None, bus.Event, "an event is an instance of a subclass of mutoscope.Event, not None"),
    ):
        with pytest.raises(ConfigError, match=words):
            bus.commands.check_instance(message, base)
