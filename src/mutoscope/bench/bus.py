"""The bus against a bare relay: the same processes, the same kind of sockets, the same number of bytes, no meaning.

Floor: a process asks through a relay that only copies bytes from one Unix stream socket to another. Test: the same question
as a typed command, from worker to worker and from the user's program to a worker, whom the hub introduces to each other, and
from a web page, which goes through the hub each time. One more process computes without a pause all the while, as a user's
program does; where a whole scope is measured, that is the main thread of the program itself.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import select
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
from rich.console import Console

from mutoscope.app.scope import Scope
from mutoscope.bench.bare import bare_ask, bare_echo, bare_relay, bare_stream_relay, latencies
from mutoscope.bench.harness import MIN_ROUNDS, Bench, Measures, Report
from mutoscope.bench.peers import Control, Peer, Peers, busy, memory_bytes
from mutoscope.bus import Command, Endpoint, Hub, ThreadedEndpoint, handles, manifest, message_name, wire
from mutoscope.bus.flow import INBOX_BYTES, WINDOW_BYTES
from mutoscope.runtime import Worker as ScopeWorker

__all__ = ["run"]

CALLS = 1500
BROADCASTS = 300
BURST = 20_000
LONG = 10_000
WORKERS = 8
TEXT = "x" * 100
PROGRAM, PAGE = "program", "page"
MEMORY_MIB = (WINDOW_BYTES + INBOX_BYTES) / 2**20 * 1.5
"""What a process or the hub may grow by: a window on its way, a full inbox, and half as much again for Python."""

_TIMEOUT_S = 50.0
ORDERS_S = 0.05


class Ask(Command, name="bench.ask"):
    """A question of a usual size."""

    value: float
    text: str


class AskAll(Command, name="bench.ask_all"):
    """A question to everybody."""

    value: float
    text: str


class AskMany(Command, name="bench.ask_many"):
    """Ask so many questions and say how long they took."""

    calls: int


class Asker(ScopeWorker):
    """A worker of a scope that asks another."""

    @handles(AskMany)
    def ask_many(self, command: AskMany) -> dict[str, float]:
        """Ask so many times; return the median and the 99th percentile in µs."""
        return latencies(lambda number: _check(self.request(Ask(float(number), TEXT)), number), command.calls)


class Answerer(ScopeWorker):
    """A worker of a scope that answers."""

    @handles(Ask)
    def ask(self, command: Ask) -> float:
        """Answer with the value."""
        return command.value


class Worker:
    """Answers, and counts."""

    def __init__(self) -> None:
        self.asked = 0
        self.expected = 0

    @handles(Ask, page=True)
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


# -- the test


def hub_process(control: Control, peers: dict[str, int]) -> None:
    """Route, as the supervisor does, and keep count of every command."""
    selector = selectors.DefaultSelector()
    concluded: collections.Counter[str] = collections.Counter()
    hub = Hub(selector, on_call=lambda record: concluded.update([record.outcome]))
    for name, fd in peers.items():
        hub.add_peer(name, socket.socket(fileno=fd), {PROGRAM: "client", PAGE: "page"}.get(name, "worker"))
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
    orders = select.poll()
    orders.register(control, select.POLLIN)
    while not endpoint.peer_closed:
        if endpoint.pump(ORDERS_S):  # waits as a worker without frames does
            endpoint.dispatch()
        elif orders.poll(0):
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

        return latencies(ask_all, order["broadcasts"])

    return latencies(lambda number: _check(endpoint.request(Ask(float(number), TEXT), "b", _TIMEOUT_S), number), order["calls"])


def program_end(control: Control, name: str, fd: int) -> None:
    """The user's program, or the scope's web page, on the bus: asks when told."""
    with ThreadedEndpoint(socket.socket(fileno=fd), name) as endpoint:
        endpoint.hello()
        control.say("ready")

        def ask(number: int) -> None:
            _check(endpoint.request(Ask(float(number), TEXT), "b", _TIMEOUT_S), number)

        for order in control.orders():
            control.say(latencies(ask, order["calls"]))


def _check(answer: float, asked: float) -> None:
    if answer != asked:
        raise RuntimeError(f"asked for {asked}, {answer} was the answer")


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
        far = {name: there for name, (_, there) in zip(names, pairs, strict=True)}
        roles = {name: program_end if name in (PROGRAM, PAGE) else bus_end for name in names}
        return hub, [peers.launch(roles[name], fds=[fd], name=name, fd=fd) for name, fd in far.items()]


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
    peers.launch(busy)
    bare, direct = _start_bare(peers, 1), _start_direct(peers)
    _, (asker, _, program, page) = _start_bus(peers, ["a", "b", PROGRAM, PAGE])
    peers.wait_ready()
    order = {"calls": calls}
    cases = {
        "bare relay": _ask(bare, order),
        "worker": _ask(asker, order),
        "program": _ask(program, order),
        "page": _ask(page, order),
        "two processes, one socket": _ask(direct, order),
    }
    rounds = bench.alternate(cases, label="requests")
    note = f"{calls} requests a round, {message_bytes()} bytes each, one process at 100 % beside them"
    name = "request from worker to worker"
    bench.ratio(f"{name}, p50", rounds, of="worker", to="bare relay", measure="p50", unit="µs", at_most=1.5, note=note)
    bench.ratio(f"{name}, p99", rounds, of="worker", to="bare relay", measure="p99", unit="µs")
    name = "request from the program to a worker, p50"
    bench.ratio(name, rounds, of="program", to="bare relay", measure="p50", unit="µs", at_most=1.5)
    name = "request of a page, through the hub, p50"
    bench.ratio(name, rounds, of="page", to="bare relay", measure="p50", unit="µs")
    bench.figure("one bare socket, no relay, p50", rounds.of("two processes, one socket", "p50"), unit="µs")


def _in_a_scope(bench: Bench, peers: Peers, calls: int) -> None:
    bare = _start_bare(peers, 1)
    peers.wait_ready()
    with Scope(workers=[Asker, Answerer]) as scope:
        cases = {
            "bare relay": _while_computing(_ask(bare, {"calls": calls})),
            "scope": _while_computing(lambda: scope.request(AskMany(calls), timeout_s=_TIMEOUT_S)),
        }
        rounds = bench.alternate(cases, label="requests in a scope")
    note = f"{calls} requests a round, {message_bytes()} bytes each, the program's main thread computes"
    name = "request from worker to worker of a running scope"
    bench.ratio(f"{name}, p50", rounds, of="scope", to="bare relay", measure="p50", unit="µs", at_most=1.5, note=note)
    bench.ratio(f"{name}, p99", rounds, of="scope", to="bare relay", measure="p99", unit="µs")


def _while_computing(case: Callable[[], Measures]) -> Callable[[], Measures]:
    """Have the case run in a thread while this one computes."""

    def run() -> Measures:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            future = pool.submit(case)
            number = 1
            while not future.done():
                number = number * 1103515245 + 12345 & 0x7FFFFFFF
            return future.result()

    return run


def _broadcasts(bench: Bench, peers: Peers, calls: int) -> None:
    peers.launch(busy)
    bare = _start_bare(peers, WORKERS)
    _, (asker, *_) = _start_bus(peers, ["a", *(f"w{i}" for i in range(WORKERS))])
    peers.wait_ready()
    order = {"broadcasts": calls, "answers": WORKERS}
    rounds = bench.alternate({"bare relay": _ask(bare, {"calls": calls}), "hub": _ask(asker, order)}, label="broadcasts")
    name = f"broadcast acknowledged by {WORKERS}"
    for measure in ("p50", "p99"):
        bench.ratio(f"{name}, {measure}", rounds, of="hub", to="bare relay", measure=measure, unit="µs")


def _bursts(bench: Bench, peers: Peers, count: int) -> None:
    peers.launch(busy)
    hub, ends = _start_bus(peers, ["a", "b"])
    streams = _start_streams(peers)
    peers.wait_ready()
    started = {peer.pid: memory_bytes(peer.pid) for peer in (hub, *ends)}

    def both(pair: list[Peer], orders: list[dict[str, Any]]) -> list[dict[str, float]]:
        for peer, order in zip(pair, orders, strict=True):
            peer.tell(order)
        return [peer.answer() for peer in pair]

    for length, some in ((len(TEXT), None), (LONG, 3)):
        order = {"burst": count, "length": length, "bytes": count * message_bytes(length)}

        def bare(order: dict[str, Any] = order) -> Measures:
            return {"seconds": max(answer["seconds"] for answer in both(streams, [order] * 2))}

        def bus(order: dict[str, Any] = order) -> Measures:
            answers = both(ends, [{**order, "to": "b"}, {**order, "to": "a"}])
            return {
                "seconds": max(answer["seconds"] for answer in answers),
                "missing": sum(answer["missing"] for answer in answers),
            }

        rounds = bench.alternate({"bare relay": bare, "bus": bus}, label="bursts", rounds=some)
        size = message_bytes(length)
        name = f"{count:,} commands of {size:,} bytes both ways at once"
        note = f"{2 * count * size / 2**20:,.0f} MiB in all; every command received, acknowledged and handled"
        bench.ratio(name, rounds, of="bus", to="bare relay", measure="seconds", unit="s", note=note)
        bench.figure(f"{name}: rate", [2 * count / s for s in rounds.of("bus", "seconds")], unit="1/s")
        bench.figure(f"{name}: missing", sum(rounds.of("bus", "missing")), at_most=0, exact=True)
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
    parts = ((_requests, CALLS, 20), (_in_a_scope, CALLS, 20), (_broadcasts, BROADCASTS, 5), (_bursts, BURST, 200))
    for part, count, few in parts:
        with Peers() as peers:
            part(bench, peers, few if quick else count)
    return bench.report()
