"""ImageJ's life: found, started by a program or by a person's menu, ended; strangers and nonsense at its socket."""

from __future__ import annotations

import contextlib
import os
import random
import select
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from imagej_support import DEADLINE_S, JARS, Probe, compile_probe, installation, running_probe, virtual_screen

from command_line import mutoscope
from mutoscope.model.errors import BackendUnavailableError, ConfigError, PeerDiedError
from mutoscope.viewers.announce import Announced
from mutoscope.viewers.fiji import (
    ImageJ,
    ImageJError,
    WindowShape,
    attach,
    find_installation,
    find_installations,
    install_plugin,
    running,
    start,
)
from mutoscope.viewers.fiji.find import Installation, installation_of
from mutoscope.viewers.fiji.imagej import Place
from mutoscope.viewers.fiji.install import is_installed, packaged_plugin
from mutoscope.viewers.fiji.link import Link
from mutoscope.viewers.fiji.messages import PREFIX, PROTOCOL
from mutoscope.viewers.fiji.pixels import stored_form
from polling import until

U8 = stored_form(np.dtype("uint8"))


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A screen, and a person's folder with the compiled probe."""
    home = tmp_path_factory.mktemp("home")
    with virtual_screen() as display, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISPLAY", display)
        patch.setenv("XDG_RUNTIME_DIR", str(home))
        patch.setenv("JAVA_TOOL_OPTIONS", f"-Duser.home={home} -Xmx500m")
        yield compile_probe(home)


@pytest.fixture(scope="module")
def probe(screen: Path) -> Iterator[Probe]:
    with running_probe("central", screen, screen, owned=False) as made:
        yield made


@pytest.fixture
def private(screen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's folder of this test alone, where nothing runs."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", f"-Duser.home={tmp_path} -Xmx300m")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def fill(imagej: ImageJ, title: str = "image") -> None:
    imagej.open_window("w", title, U8, WindowShape(8, 8, frames=2), composite=False)
    imagej.put_plane("w", Place(), np.full((8, 8), 7, "uint8"), U8, "one")
    imagej.show("w")


# -- start and end


@pytest.mark.parametrize("which", list(JARS))
def test_one_that_was_started_ends_with_code_0_whatever_is_open(private: Path, which: str) -> None:
    from mutoscope.model.roi import Rectangle, Roi
    from mutoscope.model.roi_convert.imagej import to_imagej_roi

    imagej = start(replace(installation(which), folder=private))
    with imagej:
        assert imagej.welcome.owned
        fill(imagej)
        imagej.put_rois("l", {Place(): [to_imagej_roi(Roi("r", Rectangle((4.0, 4.0), 2.0, 2.0)))]}, window="w", whole=True)
        assert imagej.state().rois == {"l": 1}
        (announced,) = running()
        assert announced.pid == imagej.pid
        file = private / "mutoscope" / f"imagej-{announced.pid}.json"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert imagej.quit() == 0
    assert not file.exists()
    assert running() == []
    with pytest.raises(PeerDiedError, match="Live receiver"):
        attach(announced)


def test_it_ends_in_order_on_sigterm_and_is_forgotten_after_sigkill(private: Path) -> None:
    for number, code in ((signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)):
        with start(replace(installation("central"), folder=private)) as imagej:
            assert imagej.process is not None
            fill(imagej)
            file = private / "mutoscope" / f"imagej-{imagej.pid}.json"
            imagej.process.send_signal(number)
            assert imagej.process.wait(DEADLINE_S) == code
            assert file.exists() is (number == signal.SIGKILL)
            with pytest.raises(PeerDiedError, match="has ended"):
                imagej.state()
        assert running() == []
        assert not file.exists(), "removed when somebody looks"
    assert list(private.rglob("hs_err*")) == []


def test_it_stays_when_the_program_that_started_it_has_hung_up(private: Path) -> None:
    imagej = start(replace(installation("central"), folder=private))
    fill(imagej)
    imagej.close()
    with attach(running()[0]) as again:
        assert again.state().images == 1
        assert again.state().windows == [], "a window belongs to the connection that opened it"
        again.quit()
    assert imagej.process is not None
    assert imagej.process.wait(DEADLINE_S) == 0


def test_an_image_that_is_not_saved_keeps_it_open(private: Path, screen: Path) -> None:
    probe = Probe("central", private, screen)
    try:
        with probe.attach() as imagej:
            probe.ask("new", "", "a person's own")
            with pytest.raises(ImageJError) as told:
                imagej.quit()
            assert told.value.code == "unsaved"
            probe.ask("close", "a person's own")
            imagej.quit()
        assert probe.process.wait(DEADLINE_S) == 0
    finally:
        probe.close()


@pytest.mark.parametrize("which", list(JARS))
def test_a_person_starts_it_from_the_menu_and_no_program_ends_it(private: Path, which: str) -> None:
    there = replace(installation(which), folder=private)
    assert not is_installed(there)
    assert install_plugin(there) == private / "plugins" / "Mutoscope_.jar"
    assert is_installed(there)
    command = ["java", "-cp", str(there.program), "ij.ImageJ", "-ijpath", str(private), "-port0", "-run", "Live receiver"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=private)
    try:
        until(lambda: running() or process.poll() is not None, "it is announced")
        assert process.poll() is None
        with attach(running()[0]) as imagej:
            assert not imagej.welcome.owned
            fill(imagej)
            imagej.arrange("w", WindowShape(8, 8, channels=2, frames=2), ([0, -1], [0], [0, 1]))
            assert imagej.read_plane("w", Place(), U8)[0].tolist() == [[7] * 8] * 8
            with pytest.raises(ImageJError, match="only a person ends it"):
                imagej.quit()
            assert imagej.state().images == 1
    finally:
        process.terminate()
        process.wait(DEADLINE_S)
    assert running() == []


# -- strangers


def talk(receiver: Announced, message: dict[str, Any]) -> dict[str, Any] | None:
    """Send one message on a connection of its own; returns the answer, None if there was none."""
    host, port = receiver.address.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port)), DEADLINE_S) as sock:
        data = msgspec.msgpack.encode(message)
        sock.sendall(PREFIX.pack(len(data), 0) + data)
        return received(sock)


def received(sock: socket.socket) -> dict[str, Any] | None:
    """The next answer; notices, which come by themselves, are left out."""
    while True:
        found = received_one(sock)
        if found is None or found["type"] != "notice":
            return found


def received_one(sock: socket.socket) -> dict[str, Any] | None:
    data = b""
    while len(data) < PREFIX.size or len(data) < PREFIX.size + sum(PREFIX.unpack_from(data)):
        try:
            wanted = PREFIX.size if len(data) < PREFIX.size else PREFIX.size + sum(PREFIX.unpack_from(data))
            more = sock.recv(min(65536, wanted - len(data)))
        except ConnectionResetError:
            return None
        if not more:
            return None
        data += more
    length, _ = PREFIX.unpack_from(data)
    return msgspec.msgpack.decode(data[PREFIX.size : PREFIX.size + length])


def test_strangers_get_nothing_and_are_logged(probe: Probe) -> None:
    receiver = probe.receiver()
    with pytest.raises(ConfigError, match="not the token"):
        Link(receiver.address, "0" * 64)
    assert talk(receiver, {"type": "state", "id": 1}) is None
    assert talk(receiver, {"type": "hello", "id": 1, "version": PROTOCOL}) is None
    assert talk(receiver, {"type": "hello", "id": 1, "version": PROTOCOL, "token": receiver.token[:-1]})["code"] == "token"  # type: ignore[index]
    other = talk(receiver, {"type": "hello", "id": 1, "version": PROTOCOL + 1, "token": receiver.token})
    assert other is not None
    assert (other["code"], "mutoscope fiji install" in other["message"]) == ("version", True)
    host, port = receiver.address.removeprefix("tcp://").split(":")
    assert host == "127.0.0.1"
    with socket.create_connection((host, int(port)), DEADLINE_S) as sock:
        sock.sendall(PREFIX.pack(1 << 30, 0) + b"x" * 100)
        assert received(sock) is None, "a stranger cannot have it allocate anything"
    with probe.attach() as imagej:
        assert imagej.state().windows == []
    until(lambda: "was turned away" in probe.errors.read_text())
    assert receiver.token not in probe.errors.read_text()


def test_one_who_greets_ever_so_slowly_is_sent_away(probe: Probe) -> None:
    """A byte at a time: each comes soon, and all of them not in time."""
    host, port = probe.receiver().address.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port)), DEADLINE_S) as sock:
        sock.sendall(PREFIX.pack(4000, 0))
        end = time.monotonic() + DEADLINE_S
        with contextlib.suppress(ConnectionError):
            while not select.select([sock], [], [], 0.5)[0]:
                assert time.monotonic() < end
                sock.sendall(b"x")
            assert sock.recv(1) == b""
    with probe.attach() as imagej:
        assert imagej.state().windows == []


def test_many_who_say_nothing_keep_nobody_out(probe: Probe) -> None:
    host, port = probe.receiver().address.removeprefix("tcp://").split(":")
    silent = [socket.create_connection((host, int(port)), DEADLINE_S) for _ in range(40)]
    try:
        for _ in range(5):
            with probe.attach() as imagej:
                assert imagej.state().windows == []
    finally:
        for sock in silent:
            sock.close()


# -- nonsense

FIELDS: dict[str, list[str]] = {
    "map": ["segment", "path", "size"],
    "unmap": ["segment"],
    "open": ["window", "title", "pixels", "width", "height", "channels", "slices", "frames", "composite", "stored"],
    "arrange": ["window", "width", "height", "channels", "slices", "frames", "from_c", "from_z", "from_t"],
    "plane": ["window", "c", "z", "t", "label", "segment", "at", "size"],
    "forget": ["window", "c", "z", "t"],
    "unread": ["window", "c", "z", "t", "why"],
    "news": [],
    "show": ["window"],
    "style": ["window", "title", "overlay", "scale", "channels"],
    "close": ["window"],
    "rois": ["layer", "whole", "planes", "window", "editable"],
    "marks": ["window", "layer", "points", "sizes"],
    "draw": ["layer"],
    "erase": ["layer", "roi"],
    "say": ["text"],
    "describe": ["window"],
    "read": ["window", "c", "z", "t"],
    "held_rois": ["layer"],
    "lut": ["name"],
    "close_left": [],
    "picture": ["window"],
    "state": [],
    "hello": ["token", "version"],
}


def likely(name: str, rng: random.Random) -> object:
    """A value that a field may have, or nearly."""
    if name == "name":
        return rng.choice(["fire", "none such", "../../etc/passwd", ""])
    if name in ("window", "layer", "title", "label", "path", "token", "why", "roi", "text"):
        return rng.choice(["w", "w", "x", "", "/dev/shm/none", f"/proc/{os.getpid()}/fd/0", "é" * 5000])
    if name == "pixels":
        return rng.choice(["u8", "u16", "i16", "f32", "rgb", "u64"])
    if name in ("width", "height", "channels", "slices", "frames", "c", "z", "t"):
        return rng.choice([1, 1, 1, 2, 3, 8, 0, -1, 1 << 20, 1 << 31, 1 << 62])
    if name.startswith("from_"):
        return [rng.choice([-1, 0, 1, 2, 1 << 40]) for _ in range(rng.choice([0, 1, 1, 2, 3]))]
    if name in ("composite", "stored", "whole", "overlay", "editable", "points"):
        return rng.random() < 0.5
    if name == "planes":
        return [{"c": 1, "z": 0, "t": rng.choice([1, -4]), "sizes": [rng.choice([0, 5, 70, 1 << 33])]}]
    if name == "sizes":
        return [rng.choice([1, 8, 1 << 20, 0]) for _ in range(rng.choice([0, 1, 1, 3]))]
    if name == "scale":
        return [
            {"pixel_size": rng.choice([0.1, 0, -1]), "depth": 1, "unit": "µm", "interval": 0, "time_unit": rng.choice(["s", 3])}
        ]
    if name == "channels":
        return [{"c": 1, "low": rng.choice([0, 1e300]), "high": 5.0, "lut": bytes(rng.choice([768, 5]))}]
    return rng.choice([0, 1, 64, 1 << 40, -1])


def anything(rng: random.Random, depth: int = 0) -> object:
    kinds = [None, True, rng.getrandbits(63), -rng.getrandbits(62), rng.random(), "text", bytes(rng.randrange(40))]
    if depth < 12 and rng.random() < 0.5:
        return [anything(rng, depth + 1)] if rng.random() < 0.5 else {"k": anything(rng, depth + 1)}
    return rng.choice(kinds)


def nonsense(rng: random.Random) -> bytes:
    """A frame that may be well formed, or not."""
    kind = rng.choice(list(FIELDS))
    fields: dict[str, object] = {"type": kind, "id": rng.randrange(1, 1 << 30)}
    for name in FIELDS[kind]:
        draw = rng.random()
        if draw < 0.85:
            fields[name] = likely(name, rng)
        elif draw < 0.95:
            fields[name] = anything(rng)
    data = msgspec.msgpack.encode(fields)
    behind = rng.choice([b"", b"", bytes(64), rng.randbytes(rng.randrange(300))])
    if kind not in ("plane", "rois", "marks", "draw"):
        behind = behind[: rng.choice([0, 64])]
    draw = rng.random()
    if draw < 0.1:
        at = rng.randrange(len(data))
        data = data[:at] + rng.randbytes(1) + data[at + 1 :]
    elif draw < 0.13:
        data = rng.randbytes(rng.randrange(1, 200))
    elif draw < 0.15:
        return rng.randbytes(rng.randrange(1, 60))
    return PREFIX.pack(len(data), len(behind)) + data + behind


def fuzz(receiver: Announced, count: int, seed: int) -> None:
    """Send so many frames, over as many connections as that takes."""
    rng = random.Random(seed)
    host, port = receiver.address.removeprefix("tcp://").split(":")
    hello = msgspec.msgpack.encode({"type": "hello", "id": 1, "version": PROTOCOL, "token": receiver.token})
    sent = 0
    while sent < count:
        with socket.create_connection((host, int(port)), DEADLINE_S) as sock:
            sock.sendall(PREFIX.pack(len(hello), 0) + hello)
            answer = received(sock)
            assert answer is not None
            assert answer["type"] == "welcome"
            for _ in range(rng.randrange(1, 60)):
                frame = nonsense(rng)
                sent += 1
                try:
                    sock.sendall(frame)
                    if len(frame) < PREFIX.size or sum(PREFIX.unpack_from(frame)) != len(frame) - PREFIX.size:
                        break  # an answer may never come
                    told = received(sock)
                except (BrokenPipeError, ConnectionResetError):
                    break
                if told is None or (told["type"], told["id"]) == ("error", 0):
                    break
                assert told.get("code") != "failed", (frame, told)


def strangers(receiver: Announced, count: int, seed: int) -> None:
    """Send so many frames without the token: nonsense, requests, and greetings that are nearly right."""
    rng = random.Random(seed)
    host, port = receiver.address.removeprefix("tcp://").split(":")
    for _ in range(count):
        hello: dict[str, object] = {"type": "hello", "id": 1, "version": PROTOCOL, "token": receiver.token}
        draw = rng.random()
        if draw < 0.5:
            frame = nonsense(rng)
        else:
            hello[rng.choice(["token", "version", "type", "id"])] = rng.choice(
                [anything(rng), receiver.token[:-1], receiver.token + "0", receiver.token.upper() + "x", "0" * 64, ""]
            )
            data = msgspec.msgpack.encode(hello)
            frame = PREFIX.pack(len(data) + rng.choice([0, 0, 0, 1, 4096, 1 << 30]), rng.choice([0, 0, 1 << 20])) + data
        if frame[PREFIX.size :] == msgspec.msgpack.encode({**hello, "token": receiver.token, "version": PROTOCOL}):
            continue  # by chance the right one
        with socket.create_connection((host, int(port)), DEADLINE_S) as sock:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(frame)
                sock.shutdown(socket.SHUT_WR)
            told = received(sock)
            assert told is None or told["type"] == "error", (frame, told)


def test_nonsense_from_strangers_gets_nothing(probe: Probe) -> None:
    receiver = probe.receiver()
    with probe.attach() as imagej:
        fill(imagej, "before")
        strangers(receiver, int(os.environ.get("MUTOSCOPE_FUZZ", "1000")), seed=6)
        assert imagej.read_plane("w", Place(), U8)[0].tolist() == [[7] * 8] * 8
        assert imagej.state().heap_bytes < 500 << 20
        imagej.close_window("w")
    assert probe.process.poll() is None


def test_nonsense_from_one_who_knows_the_token_does_no_harm(probe: Probe) -> None:
    receiver = probe.receiver()
    with probe.attach() as imagej:
        fill(imagej, "before")
        fuzz(receiver, int(os.environ.get("MUTOSCOPE_FUZZ", "3000")), seed=5)
        assert imagej.read_plane("w", Place(), U8)[0].tolist() == [[7] * 8] * 8
        assert imagej.state().heap_bytes < 500 << 20
        imagej.close_window("w")
    assert probe.process.poll() is None


# -- what is installed


def test_installations_are_found_in_order(private: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [each.kind for each in find_installations() if str(private) in str(each.program)] == []
    fiji, plain = private / "Fiji.app", private / "ImageJ"
    for folder, name in ((fiji, "fiji-linux-x64"), (plain, "ij.jar")):
        folder.mkdir()
        (folder / name).write_text("#!/bin/sh\n")
    (fiji / "fiji-linux-x64").chmod(0o755)
    found = find_installations()
    assert found[:2] == [Installation("fiji", fiji / "fiji-linux-x64", fiji), Installation("imagej", plain / "ij.jar", plain)]
    monkeypatch.setenv("FIJI_HOME", str(plain))
    assert find_installation() == found[1]
    monkeypatch.setenv("FIJI_HOME", str(private))
    with pytest.raises(ConfigError, match="is no folder of Fiji or ImageJ"):
        find_installation()
    debian = installation_of(JARS["debian"])
    assert debian is None or debian.folder == private / ".imagej"


def test_what_is_missing_is_said_with_the_next_step(private: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = private / "Fiji"
    folder.mkdir()
    (folder / "fiji").write_text("#!/bin/sh\necho no luck >&2\nexit 3\n")
    (folder / "fiji").chmod(0o755)
    fiji = installation_of(folder)
    assert fiji is not None
    with pytest.raises(BackendUnavailableError, match="mutoscope fiji install"):
        start(fiji)
    install_plugin(fiji)
    with pytest.raises(PeerDiedError, match="ended at once, with code 3: no luck"):
        start(fiji)
    with monkeypatch.context() as patch:
        patch.delenv("DISPLAY")
        with pytest.raises(ConfigError, match="xvfb-run"):
            start(fiji)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(private))
        patch.delenv("JAVA_HOME", raising=False)
        with pytest.raises(BackendUnavailableError, match="default-jre"):
            start(Installation("imagej", JARS["debian"], private))
    (private / "closed").write_text("a file, where a folder would have to be")
    with pytest.raises(ConfigError, match="cannot be put into"):
        install_plugin(Installation("fiji", folder / "fiji", private / "closed"))


def test_the_command_puts_the_plugin_in_place(private: Path) -> None:
    folder = private / "ImageJ"
    folder.mkdir()
    shutil.copyfile(JARS["debian"], folder / "ij.jar")
    done = mutoscope(private, "fiji", "install", str(folder))
    assert done.code == 0, done.describe()
    assert (folder / "plugins/Mutoscope_.jar").read_bytes() == packaged_plugin().read_bytes()
    assert "Plugins > Mutoscope > Live receiver" in done.stdout
    done = mutoscope(private, "fiji", "install", str(private / "none"))
    assert (done.code, "is no folder of Fiji or ImageJ" in done.stderr) == (2, True)


@pytest.mark.opt_in
def test_fiji_shows_a_plane(private: Path) -> None:
    """With a real Fiji: FIJI_HOME names its folder, and nothing of it is changed but for the plug-in."""
    if not os.environ.get("FIJI_HOME"):
        pytest.skip("opt-in: set FIJI_HOME to a folder of Fiji")
    fiji = find_installation()
    install_plugin(fiji)
    with start(fiji) as imagej:
        fill(imagej)
        assert imagej.read_plane("w", Place(), U8)[0].tolist() == [[7] * 8] * 8
        imagej.quit()
