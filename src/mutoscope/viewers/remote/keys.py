"""The keys of this user: one of their own, and those of others whom they trust. CURVE, written as ZeroMQ writes them (Z85).

They lie in ``$XDG_CONFIG_HOME/mutoscope/keys``, by default ``~/.config/mutoscope/keys``, which only the user can look into:
``own.secret`` with the secret half, ``own.public`` to give away, and a file for each trusted key.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
from pathlib import Path

import msgspec

from mutoscope.model import arguments
from mutoscope.model.errors import ConfigError
from mutoscope.viewers.remote.address import load_zmq

__all__ = ["KEY_LENGTH", "OwnKey", "key_folder", "new_key", "own_key", "remove_key", "trust_key", "trusted_key", "trusted_keys"]

KEY_LENGTH = 40
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_MOST_BYTES = 4096


class OwnKey(msgspec.Struct, frozen=True):
    """The key of this user.

    Parameters
    ----------
    name : str
        How others may call it.
    public, secret : str
        Its halves, of 40 characters each.
    """

    name: str
    public: str
    secret: str

    def trust_command(self) -> str:
        """Return what others type to trust it."""
        return f"mutoscope keys trust {self.name} '{self.public}'"


def key_folder() -> Path:
    """Return the folder of the keys, which may not be there yet."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "mutoscope" / "keys"


def _own_folder() -> Path:
    """Return the folder, made if need be, and nobody else's."""
    folder = key_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "trusted").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error.strerror}") from error
    _check_private(folder)
    return folder


def _check_private(path: Path) -> None:
    facts = path.stat()
    if facts.st_uid != os.getuid() or stat.S_IMODE(facts.st_mode) & 0o077:
        raise ConfigError(f"{path} must be yours alone: chmod go= {path}")


def _checked(name: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"the name of a key is 1 to 64 of A-Z a-z 0-9 _ . -, not {arguments.shown(name)}")
    return name


def _checked_key(text: str, where: str) -> str:
    from zmq.utils import z85

    try:
        whole = len(text) == KEY_LENGTH and len(z85.decode(text)) == 32
    except (KeyError, ValueError, OverflowError, msgspec.MsgspecError):
        whole = False
    if not whole:
        raise ConfigError(
            f"{where} is no key: one has {KEY_LENGTH} characters, as `mutoscope keys list` prints it; "
            "in a shell it is written between '…'"
        )
    return text


def new_key(name: str | None = None, *, replace: bool = False) -> OwnKey:
    """Make the key of this user.

    Parameters
    ----------
    name : str, optional
        How others may call it; the computer's name if not given.
    replace : bool
        Whether it takes the place of one that is there; whoever trusted that has to be given the new one.

    Raises
    ------
    ConfigError
        If there is one already, or the name cannot be.
    BackendUnavailableError
        If pyzmq is not installed.
    """
    zmq = load_zmq()
    chosen = _checked(re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname()).strip("-.") or "key" if name is None else name)
    folder = _own_folder()
    public, secret = (half.decode("ascii") for half in zmq.curve_keypair())
    while public.startswith("-"):  # which a command line would take for an option
        public, secret = (half.decode("ascii") for half in zmq.curve_keypair())
    key = OwnKey(chosen, public, secret)
    if not replace and (folder / "own.secret").exists():
        raise ConfigError(f"there is a key already, {folder / 'own.secret'}: --replace makes another in its place")
    _write(folder / "own.secret", msgspec.json.encode(key))
    _write(folder / "own.public", f"{key.name} {key.public}\n".encode())
    return key


def _write(file: Path, data: bytes) -> None:
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(partial, file)
    except OSError as error:  # of a full disk it says no more than that
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
        raise OSError(error.errno, error.strerror, str(file)) from error


def _read(file: Path) -> bytes:
    """Return what is in a file; of anything else, which may never end, ConfigError."""
    fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ConfigError(f"{file} is no file with a key: remove it")
        return os.read(fd, _MOST_BYTES)
    finally:
        os.close(fd)


def own_key() -> OwnKey:
    """Return the key of this user.

    Raises
    ------
    ConfigError
        If there is none, it is damaged, or others can read it.
    """
    file = key_folder() / "own.secret"
    try:
        _check_private(file)
        key = msgspec.json.decode(_read(file), type=OwnKey)
    except FileNotFoundError:
        raise ConfigError("there is no key of yours on this computer yet: mutoscope keys new") from None
    except OSError as error:  # it may be whole: no advice to replace it
        raise ConfigError(f"{file} cannot be read at this moment ({error.strerror})") from error
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{file} is damaged ({error}); mutoscope keys new --replace makes another") from error
    _checked_key(key.public, f"what is in {file}")
    _checked_key(key.secret, f"what is in {file}")
    return key


def trust_key(name: str, key_or_file: str, *, replace: bool = False) -> str:
    """Trust somebody's key; returns it.

    Parameters
    ----------
    name : str
        How it is called here.
    key_or_file : str
        The key, or a file with it, as ``own.public`` is.
    replace : bool
        Whether it takes the place of another of this name.

    Raises
    ------
    ConfigError
        If it is no key, or another is called so.
    """
    load_zmq()
    _checked(name)
    key = key_or_file.strip()
    if os.path.isfile(key):
        try:
            with open(key, encoding="ascii") as file:
                key = (file.read(_MOST_BYTES).split() or [""])[-1]
        except (OSError, ValueError) as error:
            raise ConfigError(f"{key_or_file} cannot be read: {error}") from error
    _checked_key(key, arguments.shown(key_or_file))
    folder = _own_folder()
    known = trusted_keys()
    if not replace and known.get(name, key) != key:
        raise ConfigError(f"another key is trusted as {name!r}: --replace puts this one in its place")
    twice = [other for other, value in known.items() if value == key and other != name]
    if twice:
        raise ConfigError(f"this key is trusted as {twice[0]!r} already: mutoscope keys remove {twice[0]}")
    _write(folder / "trusted" / name, f"{key}\n".encode())
    return key


def trusted_keys() -> dict[str, str]:
    """Return the keys that are trusted, by name.

    Raises
    ------
    ConfigError
        If one of them is damaged, or others can change them.
    """
    folder = key_folder() / "trusted"
    found: dict[str, str] = {}
    if not folder.is_dir():
        return found
    _check_private(folder)
    for file in sorted(folder.iterdir()):
        if _NAME.fullmatch(file.name):
            found[file.name] = _checked_key(_read(file).decode("ascii", "replace").strip(), str(file))
    return found


def trusted_key(name: str | None, host: str) -> tuple[str, str]:
    """Return the name and the key of a viewer: the one of this name; else the one named as its computer; else the only one.

    Raises
    ------
    ConfigError
        If it is not clear which; lists those that there are.
    """
    known = trusted_keys()
    chosen = name if name is not None else host if host in known else next(iter(known)) if len(known) == 1 else None
    if chosen is not None and chosen in known:
        return chosen, known[chosen]
    if not known:
        raise ConfigError(
            "no viewer's key is trusted here yet; `mutoscope view VIEWER --listen …` prints it there, "
            "and here: mutoscope keys trust NAME KEY"
        )
    names = ", ".join(known)
    if name is not None:
        raise ConfigError(f"no key is trusted as {arguments.shown(name)}; there are {names}")
    raise ConfigError(f"say which key the viewer has, as key=…: there are {names}")


def remove_key(name: str) -> None:
    """Trust a key no longer: from the next connection on.

    Raises
    ------
    ConfigError
        If none is called so.
    """
    try:
        (key_folder() / "trusted" / _checked(name)).unlink()
    except FileNotFoundError:
        raise ConfigError(f"no key is trusted as {name!r}; there are {', '.join(trusted_keys()) or 'none'}") from None
