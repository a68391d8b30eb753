"""The commands for keys, by which viewers and senders on several computers know each other: ``mutoscope keys``."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated

from cyclopts import App, Parameter

__all__ = ["keys", "listen_as"]

keys = App(
    name="keys", help="Keys, by which viewers and senders on several computers know each other.", result_action="return_value"
)

Replace = Annotated[bool, Parameter(negative="", help="Put it in the place of one that is there.")]
Json = Annotated[bool, Parameter(negative="", help="Print the result as one JSON object.")]


@keys.command
def new(
    *,
    name: Annotated[str | None, Parameter(help="How others may call it; by default this computer's name.")] = None,
    replace: Replace = False,
) -> int:
    """Make your key, once on each computer, and print what to type on the others."""
    from mutoscope.viewers.remote.keys import key_folder, new_key

    key = new_key(name, replace=replace)
    print(f"your key is in {key_folder()}; on each computer that it is to be known on, type")
    print(f"  {key.trust_command()}")
    return 0


@keys.command
def trust(
    name: Annotated[str, Parameter(help="How it is called here.")],
    key: Annotated[str, Parameter(help="The key of somebody else, between '…', or the file own.public with it.")],
    /,
    *,
    replace: Replace = False,
) -> int:
    """Trust a key: its owner may send to your viewers that listen, and you to theirs."""
    from mutoscope.viewers.remote.keys import trust_key

    print(f"{name} is trusted: {trust_key(name, key, replace=replace)}")
    return 0


@keys.command(name="list")
def list_(*, json: Json = False) -> int:
    """Print your key, and those that you trust."""
    from mutoscope.model.errors import ConfigError
    from mutoscope.viewers.remote.keys import key_folder, own_key, trusted_keys

    trusted = trusted_keys()
    own = own_key() if (key_folder() / "own.secret").exists() else None
    if json:
        mine = None if own is None else {"name": own.name, "key": own.public}
        print(jsonlib.dumps({"folder": str(key_folder()), "own": mine, "trusted": trusted}))
        return 0
    if own is None and not trusted:
        raise ConfigError("there are no keys on this computer yet: mutoscope keys new")
    print(f"yours    {own.public}  {own.name}" if own is not None else "yours    none yet: mutoscope keys new")
    for name, key in trusted.items():
        print(f"trusted  {key}  {name}")
    return 0


@keys.command
def remove(name: Annotated[str, Parameter(help="As it is called here.")], /) -> int:
    """Trust a key no longer; who is connected stays so until the connection ends."""
    from mutoscope.viewers.remote.keys import remove_key

    remove_key(name)
    print(f"{name} is trusted no longer")
    return 0


def listen_as(kind: str, address: str, name: str | None) -> int:
    """Have a viewer listen, and print what the other computer needs."""
    import socket

    from mutoscope.viewers.launch import find
    from mutoscope.viewers.remote.keys import trusted_keys
    from mutoscope.viewers.remote.listening import listen

    found = listen(kind, address, name)
    host, _, port = found.address.removeprefix("tcp://").rpartition(":")
    host = socket.gethostname() if host in ("0.0.0.0", "[::]") else host
    print(f"{kind} listens at {found.address}; on the other computer")
    print(f"  mutoscope keys trust {found.name} '{found.key}'")
    print(f"  viewers.open({kind!r}, 'tcp://{host}:{port}', key={found.name!r})")
    viewer = find(kind if name is None else name, kind)
    if viewer is not None and viewer.link:
        print(f"what comes is looked at at {viewer.link}")
    trusted = trusted_keys()
    if trusted:
        print(f"who may send: {', '.join(trusted)}")
    else:
        print("nobody may send yet: mutoscope keys trust NAME KEY, with what `mutoscope keys new` prints there")
    return 0
