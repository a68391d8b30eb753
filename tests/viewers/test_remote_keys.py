"""Who is let in from another computer, and what is said to who is not."""

from __future__ import annotations

import json
import os
import resource
import shlex
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from remote_support import PATIENCE_S, Proxy, Users, users_in
from viewer_senders import image, name

from command_line import MUTOSCOPE
from mutoscope import viewers
from mutoscope.model.errors import ConfigError, ItemsFailedError, ViewerTimeoutError, ViewerUnavailableError
from mutoscope.viewers.core import log_file
from mutoscope.viewers.launch import find
from mutoscope.viewers.remote.address import Address, address_of
from mutoscope.viewers.remote.keys import new_key, own_key, remove_key, trust_key, trusted_key, trusted_keys
from mutoscope.viewers.remote.listening import listen
from polling import halt, until


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Users]:
    with users_in(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Somebody without keys."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "config" / "mutoscope" / "keys"


def run(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run([*MUTOSCOPE, *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    return done.returncode, done.stdout, done.stderr


# -- no room


def test_a_key_for_which_there_is_no_room_is_none_and_the_file_is_named(empty: Path) -> None:
    program = (
        "import resource, sys; from mutoscope.cli import main; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); sys.exit(main(['keys', 'new']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"mutoscope: File too large: {empty / 'own.secret'}\n"
    assert [file.name for file in empty.iterdir()] == ["trusted"]


def test_what_is_no_file_is_no_key_and_keeps_nobody_waiting(empty: Path) -> None:
    new_key("me")
    for place in ("pipe", "folder", "endless"):
        odd = empty / "trusted" / place
        {"pipe": os.mkfifo, "folder": os.mkdir, "endless": lambda path: path.symlink_to("/dev/zero")}[place](odd)
        with pytest.raises(ConfigError, match=f"{place} is no file with a key: remove it"):
            trusted_keys()
        odd.rmdir() if place == "folder" else odd.unlink()


def test_a_key_that_cannot_be_read_now_is_not_said_to_be_damaged(empty: Path) -> None:
    new_key("me")
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, allowed[1]))
    try:
        with pytest.raises(ConfigError, match="Too many open files") as told:
            own_key()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, allowed)
    assert "--replace" not in str(told.value)
    assert own_key().name == "me"


def test_a_viewer_that_has_no_descriptors_to_listen_with_says_so_and_stays(users: Users) -> None:
    users.become("desk")
    sink = viewers.open("model", "model", required=True, timeout_s=PATIENCE_S)
    users.ends("model")
    viewer = find("model")
    assert viewer is not None
    allowed = resource.prlimit(viewer.pid, resource.RLIMIT_NOFILE)
    for left in range(0, 32, 3):
        opened = max(int(fd) for fd in os.listdir(f"/proc/{viewer.pid}/fd")) + 1
        resource.prlimit(viewer.pid, resource.RLIMIT_NOFILE, (opened + left, allowed[1]))
        with pytest.raises(ConfigError, match="Too many open files"):
            listen("model", "tcp://127.0.0.1:0", "model", timeout_s=PATIENCE_S)
    resource.prlimit(viewer.pid, resource.RLIMIT_NOFILE, allowed)
    assert listen("model", "tcp://127.0.0.1:0", "model", timeout_s=PATIENCE_S).name == "desk"
    assert find("model") == viewer
    sink.close()


def test_a_viewer_that_was_started_to_listen_and_cannot_is_closed_again(users: Users) -> None:
    users.become("desk")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(ConfigError, match="nothing can listen at"):
            listen("model", f"tcp://127.0.0.1:{taken.getsockname()[1]}", "model", timeout_s=PATIENCE_S)
        until(lambda: find("model") is None)


# -- wrong keys


def test_a_viewer_that_does_not_know_the_sender(users: Users, caplog: pytest.LogCaptureFixture) -> None:
    address = users.listen()
    users.become("desk")
    remove_key("scope")
    users.become("scope")
    with pytest.raises(ViewerUnavailableError) as caught:
        viewers.open("model", address, required=True, timeout_s=PATIENCE_S)
    told = str(caught.value)
    assert f"the viewer at {address} does not trust your key 'scope'" in told
    command = shlex.split(told.partition("on that computer: mutoscope ")[2])
    sink = viewers.open("model", address, timeout_s=PATIENCE_S)  # not required: counted, and said
    assert "does not trust your key 'scope'" in caplog.text
    sink.save(image(1), name(1))
    assert (sink.progress().images.dropped, sink.progress().state) == (1, "not connected")
    sink.close()
    assert viewers.progress("model").refused >= 2
    assert viewers.progress("model").senders == []
    log = Path(log_file("model")).read_text()
    assert f"one at 127.0.0.1 has a key that is not trusted here: mutoscope keys trust NAME '{command[-1]}'" in log
    users.become("desk")
    assert run(*command)[0] == 0  # what the error says helps, and the viewer need not be started anew
    users.become("scope")
    again = viewers.open("model", address, required=True, timeout_s=PATIENCE_S)
    again.save(image(1), name(1), until="displayed")
    again.close()


def test_a_viewer_that_has_another_key_than_is_trusted(users: Users) -> None:
    address = users.listen()
    right = trusted_keys()["desk"]
    trust_key("desk", own_key().public, replace=True)
    with pytest.raises(ViewerUnavailableError, match="does not hold the key that is trusted here as 'desk'") as caught:
        viewers.open("model", address, required=True, timeout_s=PATIENCE_S)
    assert "mutoscope keys trust --replace desk KEY" in str(caught.value)
    until(lambda: viewers.progress("model").refused >= 3)
    assert run("keys", "trust", "--replace", "desk", right)[0] == 0
    sink = viewers.open("model", address, required=True, timeout_s=PATIENCE_S)
    sink.save(image(1), name(1), until="displayed")
    sink.close()


def test_a_key_that_is_trusted_no_longer(users: Users) -> None:
    """Who is connected stays so; the next connection is refused."""
    address = users.listen()
    sink = viewers.open("model", address, required=True, timeout_s=PATIENCE_S)
    users.become("desk")
    remove_key("scope")
    users.become("scope")
    sink.save(image(1), name(1), until="displayed")
    sink.disconnect()
    with pytest.raises(ViewerUnavailableError, match="does not trust your key"):
        sink.save(image(2), name(2))
    sink.close()


def test_a_lost_connection_of_a_key_that_is_trusted_no_longer(users: Users) -> None:
    """It is an error at once, and not tried for a minute."""
    proxy = Proxy(users.listen())
    sink = viewers.open("model", proxy.address, required=True, timeout_s=PATIENCE_S)
    sink.save(image(1), name(1), until="displayed")
    users.become("desk")
    remove_key("scope")
    users.become("scope")
    entry = find("model")
    assert entry is not None
    halt(entry.pid)
    try:
        sink.save(image(2), name(2))
        proxy.reset()
    finally:
        os.kill(entry.pid, signal.SIGCONT)
    with pytest.raises(ItemsFailedError, match="does not trust your key 'scope'"):
        sink.wait(PATIENCE_S)
    with pytest.raises(ViewerUnavailableError, match="does not trust your key 'scope'"):
        sink.save(image(3), name(3))
    sink.close()
    proxy.close()


def test_who_is_not_there(users: Users) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with pytest.raises(ViewerUnavailableError, match="no viewer listens at"):
        viewers.open("model", f"tcp://127.0.0.1:{port}", required=True, timeout_s=PATIENCE_S)
    with pytest.raises(ViewerUnavailableError, match=r"the computer 'nowhere\.invalid' is not known here"):
        viewers.open("model", f"tcp://nowhere.invalid:{port}", required=True, timeout_s=PATIENCE_S)
    with pytest.raises(ViewerTimeoutError, match=r"was not reached within 0\.45 s"):
        viewers.progress(f"tcp://203.0.113.7:{port}", timeout_s=0.5)


def test_what_listens_and_is_no_viewer(users: Users) -> None:
    server = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                sock, _ = server.accept()
            except OSError:
                return
            sock.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n" * 10)
            sock.close()

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        with pytest.raises(ViewerUnavailableError, match="or is no viewer"):
            viewers.open("model", f"tcp://127.0.0.1:{server.getsockname()[1]}", required=True, timeout_s=PATIENCE_S)
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


def test_another_kind_of_viewer(users: Users) -> None:
    address = users.listen()
    with pytest.raises(ViewerUnavailableError, match="is 'model', not 'fiji': open it as that"):
        viewers.open("fiji", address, required=True, timeout_s=PATIENCE_S)


def test_a_sender_elsewhere_cannot_have_it_listen(users: Users) -> None:
    sink = viewers.open("model", users.listen(), required=True, timeout_s=PATIENCE_S)
    with pytest.raises(ConfigError, match="does not know 'listen'"):
        sink._sender.call("listen", PATIENCE_S, address="tcp://0.0.0.0:0")
    sink.close()


# -- commands


def test_keys_by_command(empty: Path) -> None:
    code, _, told = run("keys", "list")
    assert (code, told) == (2, "mutoscope: there are no keys on this computer yet: mutoscope keys new\n")
    code, said, _ = run("keys", "new", "--name", "microscope-pc")
    own = own_key()
    assert code == 0
    assert shlex.split(said.splitlines()[1]) == ["mutoscope", "keys", "trust", "microscope-pc", own.public]
    assert stat.S_IMODE(empty.stat().st_mode) == 0o700
    assert stat.S_IMODE((empty / "own.secret").stat().st_mode) == 0o600
    assert own.secret not in (empty / "own.public").read_text()
    assert run("keys", "new")[0] == 2
    assert own_key() == own
    assert run("keys", "trust", "itself", str(empty / "own.public"))[0] == 0
    assert trusted_keys() == {"itself": own.public}
    listed = json.loads(run("keys", "list", "--json")[1])
    assert listed == {
        "folder": str(empty),
        "own": {"name": "microscope-pc", "key": own.public},
        "trusted": {"itself": own.public},
    }
    assert run("keys", "list")[1].splitlines() == [f"yours    {own.public}  microscope-pc", f"trusted  {own.public}  itself"]
    assert run("keys", "remove", "itself")[0] == 0
    assert trusted_keys() == {}
    assert run("keys", "new", "--replace")[0] == 0
    assert own_key().public != own.public


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["keys", "trust", "lab", "abc"], "'abc' is no key"),
        (["keys", "trust", "lab", "x" * 39 + "~"], "is no key"),
        (["keys", "trust", "a/b", "x" * 40], "the name of a key"),
        (["keys", "remove", "lab"], "no key is trusted as 'lab'; there are none"),
        (["view", "model", "--listen", "5680"], "there is no key of yours on this computer yet: mutoscope keys new"),
        (["view", "modle", "--listen", "5680"], "there is no viewer 'modle'"),
        (["view", "napari"], "no scope of yours runs on this computer with a page"),
        (["view", "model", "--listen", "5680", "--port", "1"], "no option of the page"),
    ],
)
def test_what_cannot_be(empty: Path, arguments: list[str], words: str) -> None:
    code, said, told = run(*arguments)
    assert (code, said) == (2, "")
    assert words in told
    assert len(told.splitlines()) == 1


def test_keys_that_others_can_read_are_refused(empty: Path) -> None:
    new_key("mine")
    os.chmod(empty / "own.secret", 0o640)
    with pytest.raises(ConfigError, match=r"must be yours alone: chmod go= .*own\.secret"):
        own_key()
    os.chmod(empty / "own.secret", 0o600)
    (empty / "own.secret").write_text("{}")
    with pytest.raises(ConfigError, match="keys new --replace makes another"):
        own_key()
    trust_key("other", new_key("mine", replace=True).public)
    os.chmod(empty / "trusted", 0o777)
    with pytest.raises(ConfigError, match=r"must be yours alone: chmod go= .*trusted"):
        trusted_keys()


def test_which_key_is_meant(users: Users) -> None:
    assert trusted_key(None, "anywhere")[0] == "desk"
    trust_key("own", own_key().public)
    assert trusted_key(None, "desk")[0] == "desk"
    assert trusted_key("own", "desk")[0] == "own"
    with pytest.raises(ConfigError, match=r"say which key the viewer has, as key=….*: there are desk, own"):
        trusted_key(None, "anywhere")
    with pytest.raises(ConfigError, match="no key is trusted as 'dsk'; there are desk, own"):
        viewers.open("model", "tcp://127.0.0.1:5680", key="dsk")
    with pytest.raises(ConfigError, match="this key is trusted as 'desk' already"):
        trust_key("again", trusted_keys()["desk"])
    with pytest.raises(ConfigError, match="another key is trusted as 'own'"):
        trust_key("own", new_key("other", replace=True).public)


def test_a_viewer_that_listens_by_command(users: Users) -> None:
    users.become("desk")
    code, said, told = run("view", "model", "--listen", "127.0.0.1:0", "--name", "wall")
    assert (code, told) == (0, "")
    lines = said.splitlines()
    assert lines[0].startswith("model listens at tcp://127.0.0.1:")
    assert shlex.split(lines[1])[:4] == ["mutoscope", "keys", "trust", "desk"]
    assert lines[3] == "who may send: scope"
    assert run("view", "model", "--listen", "127.0.0.1:0", "--name", "wall")[1] == said  # it goes on as it is
    assert "listens at" in run("view", "model", "--listen", "127.0.0.1:1", "--name", "wall")[2]
    users.become("scope")
    sink = eval(lines[2].strip(), {"viewers": viewers})
    sink.save(image(1), name(1), until="displayed")
    sink.close(leave_open=False)
    until(lambda: find("wall") is None)


def test_an_address_that_cannot_be_listened_at(users: Users) -> None:
    users.become("desk")
    with pytest.raises(ConfigError, match=r"nothing can listen at tcp://203\.0\.113\.7:5680"):
        users.listen(host="203.0.113.7", port=5680)


# -- addresses


@pytest.mark.parametrize(
    ("text", "listens", "found"),
    [
        ("tcp://lab:5680", False, Address("lab", 5680)),
        ("tcp://[::1]:5680", False, Address("::1", 5680)),
        ("5680", True, Address("127.0.0.1", 5680)),
        ("*:0", True, Address("0.0.0.0", 0)),
        ("tcp://10.0.0.1:80/", True, Address("10.0.0.1", 80)),
    ],
)
def test_addresses(text: str, listens: bool, found: Address) -> None:
    assert address_of(text, listens=listens) == found
    assert address_of(str(found), listens=listens) == found


@pytest.mark.parametrize(
    "text", ["tcp://lab", "tcp://lab:0", "tcp://lab:66000", "tcp://:5680", "tcp://a b:1", "lab:5680", "tcp://"]
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="tcp://microscope-pc:5680"):
        address_of(text)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: viewers.open("model", "tcp://lab"), "an address of a viewer is such as"),
        (lambda: viewers.open("model", "here", key="desk"), "key is of a viewer on another computer"),
        (lambda: viewers.open("model", compression="lz4"), "compression is of a viewer on another computer"),
        (lambda: viewers.open("model", "tcp://127.0.0.1:1", compression="gzip"), "compression is 'lz4', 'zstd' or None"),
        (lambda: viewers.open("model", "tcp://127.0.0.1:1", compression=3), "compression is 'lz4', 'zstd' or None"),
    ],
)
def test_options_that_cannot_be(users: Users, make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


def test_without_any_key(empty: Path) -> None:
    with pytest.raises(ConfigError, match="there is no key of yours on this computer yet: mutoscope keys new"):
        viewers.open("model", "tcp://127.0.0.1:1")
    new_key("mine")
    with pytest.raises(ConfigError, match="no viewer's key is trusted here yet"):
        viewers.open("model", "tcp://127.0.0.1:1")
