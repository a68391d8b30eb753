"""The floor of the bench of the bus: processes that send, copy and echo bytes over Unix stream sockets, without meaning."""

from __future__ import annotations

import collections
import contextlib
import select
import socket
import time
from collections.abc import Callable

from mutoscope.bench.harness import percentile
from mutoscope.bench.peers import Control

__all__ = ["bare_ask", "bare_echo", "bare_relay", "bare_stream_relay", "latencies"]

_CHUNK = 65536
_BACKLOG = 1 << 20


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
            control.say(_exchange(sock, order["bytes"]))
        else:
            control.say(latencies(call, order["calls"]))
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


def latencies(call: Callable[[int], None], count: int) -> dict[str, float]:
    """Make so many calls, one after the other; return the median and the 99th percentile in µs."""
    taken = []
    for number in range(count):
        begin = time.perf_counter_ns()
        call(number)
        taken.append((time.perf_counter_ns() - begin) / 1e3)
    return {"p50": percentile(taken, 50), "p99": percentile(taken, 99)}
