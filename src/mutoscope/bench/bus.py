"""The bus against a bare relay: the same processes, the same kind of sockets, the same number of bytes, no meaning.

Floor: a process asks through a relay that only copies bytes from one Unix stream socket to another. Test: the same question
as a typed command through the hub. One more process computes without a pause all the while, as a user's program does.
"""

from __future__ import annotations

import collections
import contextlib
import select
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
from rich.console import Console

from mutoscope.bench.harness import MIN_ROUNDS, Bench, Measures, Report, percentile
from mutoscope.bench.peers import Control, Peer, Peers, busy, memory_bytes
from mutoscope.bus import Command, Endpoint, Hub, handles, manifest, message_name, wire
from mutoscope.bus.flow import INBOX_BYTES, WINDOW_BYTES

__all__ = ["run"]

CALLS = 1500
BROADCASTS = 300
BURST = 20_000
LONG = 10_000
WORKERS = 8
TEXT = "x" * 100
MEMORY_MIB = (WINDOW_BYTES + INBOX_BYTES) / 2**20 * 1.5
"""What a process or the hub may grow by: a window on its way, a full inbox, and half as much again for Python."""

_CHUNK = 65536
_BACKLOG = 1 << 20
_TIMEOUT_S = 50.0


class Ask(Command, name="bench.ask"):
    """A question of a usual size."""

    value: float
    text: str


class AskAll(Command, name="bench.ask_all"):
    """A question to everybody."""

    value: float
    text: str


class Worker:
    """Answers, and counts."""

    def __init__(self) -> None:
        self.asked = 0
        self.expected = 0

    @handles(Ask)
    def ask(self, command: Ask) -> float:
        """Answer with the value."""
        self.asked += 1
        return command.value

    @handles(AskAll, delivery="broadcast")
    def ask_all(self, command: AskAll) -> float:
        """Answer with the value."""
        return command.value


def message_bytes(length: int = len(TEXT)) -> int:
    """Return the size of the command with a text of `length` on the wire, which the bare messages have too."""
    packed = msgspec.Raw(msgspec.msgpack.encode(Ask(1.5, "x" * length)))
    return len(wire.pack(wire.Call(1, wire.REQUEST, message_name(Ask), "b", 10.0, packed)))


# -- the floor


def bare_ask(control: Control, fd: int, size: int, answers: int) -> None:
    """Ask through a bare socket and wait for so many answers."""
    sock, message = socket.socket(fileno=fd), b"x" * size
    control.say("ready")

    def call(_: int) -> None:
        sock.send(message)
        left = size * answers
        while left:
            left -= len(sock.recv(_CHUNK))

    for order in control.orders():
        if "burst" in order:
            control.say(_exchange(sock, message_bytes(order["length"]) * order["burst"]))
        else:
            control.say(_latencies(call, order["calls"]))
    sock.close()


def bare_echo(control: Control, fd: int) -> None:
    """Send back whatever comes."""
    sock = socket.socket(fileno=fd)
    control.say("ready")
    while data := sock.recv(_CHUNK):
        sock.sendall(data)
    sock.close()


def bare_relay(control: Control, fd: int, others: list[int]) -> None:
    """Copy from the first socket to all others and from the others to the first."""
    first, rest = socket.socket(fileno=fd), [socket.socket(fileno=other) for other in others]
    targets = {first.fileno(): rest} | {sock.fileno(): [first] for sock in rest}
    sources = {sock.fileno(): sock for sock in (first, *rest)}
    poller = select.poll()
    for number in sources:
        poller.register(number, select.POLLIN)
    control.say("ready")
    while True:
        for number, _ in poller.poll():
            data = sources[number].recv(_CHUNK)
            if not data:
                return
            for target in targets[number]:
                target.sendall(data)


def bare_stream_relay(control: Control, fd: int, other: int) -> None:
    """Copy both ways with a bounded backlog: it never waits for one side."""
    socks = {number: socket.socket(fileno=number) for number in (fd, other)}
    across = {fd: other, other: fd}
    backlog = {number: collections.deque[bytes]() for number in socks}  # what is to go to that socket
    poller = select.poll()
    for sock in socks.values():
        sock.setblocking(False)
        poller.register(sock, select.POLLIN)
    control.say("ready")
    while True:
        for number, events in poller.poll():
            if events & select.POLLIN and sum(map(len, backlog[across[number]])) < _BACKLOG:
                data = socks[number].recv(_CHUNK)
                if not data:
                    return
                backlog[across[number]].append(data)
            elif events & (select.POLLHUP | select.POLLERR):
                return
            for target, waiting in backlog.items():
                _send_some(socks[target], waiting)
        for number, waiting in backlog.items():
            full = sum(map(len, backlog[across[number]])) >= _BACKLOG
            poller.modify(socks[number], (0 if full else select.POLLIN) | (select.POLLOUT if waiting else 0))


def _send_some(sock: socket.socket, waiting: collections.deque[bytes]) -> None:
    while waiting:
        try:
            sent = sock.send(waiting[0])
        except BlockingIOError:
            return
        if sent < len(waiting[0]):
            waiting[0] = waiting[0][sent:]
            return
        waiting.popleft()


def _exchange(sock: socket.socket, size: int) -> dict[str, float]:
    """Send and receive `size` bytes at once."""
    sock.setblocking(False)
    block, to_send, to_receive = b"x" * _CHUNK, size, size
    poller = select.poll()
    poller.register(sock, select.POLLIN | select.POLLOUT)
    begin = time.perf_counter()
    while to_send or to_receive:
        for _, events in poller.poll():
            if events & select.POLLIN and to_receive:
                to_receive -= len(sock.recv(min(_CHUNK, to_receive)))
            if events & select.POLLOUT and to_send:
                with contextlib.suppress(BlockingIOError):
                    to_send -= sock.send(block[: min(_CHUNK, to_send)])
            if not to_send:
                poller.modify(sock, select.POLLIN)
    sock.setblocking(True)
    return {"seconds": time.perf_counter() - begin}


# -- the test


def hub_process(control: Control, peers: dict[str, int]) -> None:
    """Route, as the supervisor does."""
    selector = selectors.DefaultSelector()
    hub = Hub(selector)
    for name, fd in peers.items():
        hub.add_peer(name, socket.socket(fileno=fd))
    selector.register(control, selectors.EVENT_READ)
    control.say("ready")
    while True:
        deadline = hub.next_deadline()
        for key, mask in selector.select(None if deadline is None else max(0.0, deadline - time.monotonic())):
            if key.fileobj is not control:
                key.data(mask)
                continue
            hub.close()  # nothing is said on this line but that it ends
            selector.close()
            return
        hub.tick()


def bus_end(control: Control, name: str, fd: int) -> None:
    """A process on the bus: answers, and asks or bursts when told."""
    worker, endpoint = Worker(), Endpoint(socket.socket(fileno=fd), name)
    endpoint.serve(worker)
    endpoint.hello(manifest(worker))
    control.say("ready")
    poller = select.poll()
    for source in (endpoint, control):
        poller.register(source, select.POLLIN)
    while not endpoint.peer_closed:
        for ready, _ in poller.poll():
            if ready == endpoint.fileno():
                endpoint.pump(0.0)
                endpoint.dispatch()
                continue
            try:
                order = control.hear()
            except EOFError:
                endpoint.close()
                return
            control.say(_obey(endpoint, worker, order))


def _obey(endpoint: Endpoint, worker: Worker, order: dict[str, Any]) -> dict[str, float]:
    if "burst" in order:
        return _burst(endpoint, worker, order["burst"], order["length"], order["to"])
    if "broadcasts" in order:
        wanted = order["answers"]

        def ask_all(number: int) -> None:
            answers = endpoint.broadcast(AskAll(float(number), TEXT), _TIMEOUT_S)
            if list(answers.values()) != [number] * wanted:
                raise RuntimeError(f"{wanted} answers of {number} were expected, there came {answers}")

        return _latencies(ask_all, order["broadcasts"])

    def ask(number: int) -> None:
        if endpoint.request(Ask(float(number), TEXT), "b", _TIMEOUT_S) != number:
            raise RuntimeError("another answer came than was asked for")

    return _latencies(ask, order["calls"])


def _burst(endpoint: Endpoint, worker: Worker, count: int, length: int, to: str) -> dict[str, float]:
    """Send `count` commands while as many come; all must be received and handled."""
    worker.expected += count  # some may have come before this process was told
    text = "x" * length
    begin, end = time.perf_counter(), time.monotonic() + _TIMEOUT_S
    for number in range(count):
        endpoint.post(Ask(float(number), text), to, _TIMEOUT_S)
    endpoint.flush(_TIMEOUT_S)
    while worker.asked < worker.expected and time.monotonic() < end:
        endpoint.pump(0.1)
        endpoint.dispatch()
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "missing": worker.expected - worker.asked}


def _latencies(call: Callable[[int], None], count: int) -> dict[str, float]:
    taken = []
    for number in range(count):
        begin = time.perf_counter_ns()
        call(number)
        taken.append((time.perf_counter_ns() - begin) / 1e3)
    return {"p50": percentile(taken, 50), "p99": percentile(taken, 99)}


# -- the bench


@contextlib.contextmanager
def _handed_over(count: int) -> Iterator[list[tuple[int, int]]]:
    """Yield socket pairs as descriptors; both ends are closed here when the processes have theirs."""
    pairs = [socket.socketpair() for _ in range(count)]
    try:
        yield [(a.fileno(), b.fileno()) for a, b in pairs]
    finally:
        for a, b in pairs:
            a.close()
            b.close()


def _start_bare(peers: Peers, echoes: int) -> Peer:
    with _handed_over(1 + echoes) as ((asker, near), *others):
        far = [there for there, _ in others]
        peers.launch(bare_relay, fds=[near, *far], fd=near, others=far)
        for _, echo in others:
            peers.launch(bare_echo, fds=[echo], fd=echo)
        return peers.launch(bare_ask, fds=[asker], fd=asker, size=message_bytes(), answers=echoes)


def _start_direct(peers: Peers) -> Peer:
    with _handed_over(1) as ((asker, echo),):
        peers.launch(bare_echo, fds=[echo], fd=echo)
        return peers.launch(bare_ask, fds=[asker], fd=asker, size=message_bytes(), answers=1)


def _start_bus(peers: Peers, names: Sequence[str]) -> tuple[Peer, list[Peer]]:
    with _handed_over(len(names)) as pairs:
        near = {name: here for name, (here, _) in zip(names, pairs, strict=True)}
        hub = peers.launch(hub_process, fds=list(near.values()), peers=near)
        return hub, [peers.launch(bus_end, fds=[fd], name=name, fd=fd) for name, (_, fd) in zip(names, pairs, strict=True)]


def _start_streams(peers: Peers) -> list[Peer]:
    with _handed_over(2) as ((left, near), (far, right)):
        peers.launch(bare_stream_relay, fds=[near, far], fd=near, other=far)
        return [peers.launch(bare_ask, fds=[fd], fd=fd, size=message_bytes(), answers=1) for fd in (left, right)]


def _ask(peer: Peer, order: dict[str, Any]) -> Callable[[], Measures]:
    def ask() -> Measures:
        answer: dict[str, float] = peer.ask(order)
        return answer

    return ask


def _requests(bench: Bench, peers: Peers, calls: int) -> None:
    bare, direct = _start_bare(peers, 1), _start_direct(peers)
    _, (asker, _) = _start_bus(peers, ["a", "b"])
    peers.wait_ready()
    order = {"calls": calls}
    cases = {"bare relay": _ask(bare, order), "hub": _ask(asker, order), "two processes, one socket": _ask(direct, order)}
    rounds = bench.alternate(cases, label="requests")
    note = f"{calls} requests a round, {message_bytes()} bytes each, one process at 100 % beside them"
    bench.ratio(
        "request through the hub, p50", rounds, of="hub", to="bare relay", measure="p50", unit="µs", at_most=1.5, note=note
    )
    bench.ratio("request through the hub, p99", rounds, of="hub", to="bare relay", measure="p99", unit="µs")
    bench.figure("one bare socket, no relay, p50", rounds.of("two processes, one socket", "p50"), unit="µs")


def _broadcasts(bench: Bench, peers: Peers, calls: int) -> None:
    bare = _start_bare(peers, WORKERS)
    _, (asker, *_) = _start_bus(peers, ["a", *(f"w{i}" for i in range(WORKERS))])
    peers.wait_ready()
    order = {"broadcasts": calls, "answers": WORKERS}
    rounds = bench.alternate({"bare relay": _ask(bare, {"calls": calls}), "hub": _ask(asker, order)}, label="broadcasts")
    name = f"broadcast acknowledged by {WORKERS}"
    for measure in ("p50", "p99"):
        bench.ratio(f"{name}, {measure}", rounds, of="hub", to="bare relay", measure=measure, unit="µs")


def _bursts(bench: Bench, peers: Peers, count: int) -> None:
    hub, ends = _start_bus(peers, ["a", "b"])
    streams = _start_streams(peers)
    peers.wait_ready()
    started = {peer.pid: memory_bytes(peer.pid) for peer in (hub, *ends)}

    def both(pair: list[Peer], orders: list[dict[str, Any]]) -> list[dict[str, float]]:
        for peer, order in zip(pair, orders, strict=True):
            peer.tell(order)
        return [peer.answer() for peer in pair]

    for length, some in ((len(TEXT), None), (LONG, 3)):
        order = {"burst": count, "length": length}

        def bare(order: dict[str, Any] = order) -> Measures:
            return {"seconds": max(answer["seconds"] for answer in both(streams, [order] * 2))}

        def bus(order: dict[str, Any] = order) -> Measures:
            answers = both(ends, [{**order, "to": "b"}, {**order, "to": "a"}])
            return {
                "seconds": max(answer["seconds"] for answer in answers),
                "missing": sum(answer["missing"] for answer in answers),
            }

        rounds = bench.alternate({"bare relay": bare, "hub": bus}, label="bursts", rounds=some)
        size = message_bytes(length)
        name = f"{count:,} commands of {size:,} bytes both ways at once"
        note = f"{2 * count * size / 2**20:,.0f} MiB in all; every command received, acknowledged and handled"
        bench.ratio(name, rounds, of="hub", to="bare relay", measure="seconds", unit="s", note=note)
        bench.figure(f"{name}: rate", [2 * count / s for s in rounds.of("hub", "seconds")], unit="1/s")
        bench.figure(f"{name}: missing", sum(rounds.of("hub", "missing")), at_most=0, exact=True)
        for who, some_peers in (("the hub", [hub]), ("a process", ends)):
            growth = max(memory_bytes(peer.pid, "VmHWM") - started[peer.pid] for peer in some_peers) / 2**20
            bench.figure(f"{name}: {who} grew by at most", growth, unit="MiB", at_most=MEMORY_MIB, exact=True)


def run(*, quick: bool = False, rounds: int = MIN_ROUNDS, console: Console | None = None) -> Report:
    """Measure requests, broadcasts and bursts.

    Parameters
    ----------
    quick : bool
        Everything once with few messages; only what must never fail is judged.
    rounds : int
        How often floor and test alternate; ratios are judged from 7 on.
    console : rich.console.Console, optional
        Where the progress goes; to standard error when None.
    """
    bench = Bench("bus", rounds=rounds, timing=not quick, console=console)
    for part, count, few in ((_requests, CALLS, 20), (_broadcasts, BROADCASTS, 5), (_bursts, BURST, 200)):
        with Peers() as peers:
            peers.launch(busy)
            part(bench, peers, few if quick else count)
    return bench.report()
