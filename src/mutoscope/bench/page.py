"""The live page at speed: how long a frame takes to the socket and to a client, and what clients cost the recording."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from mutoscope.app.scope import Scope
from mutoscope.bench.harness import Bench, Report, percentile, rest
from mutoscope.bench.page_fuzz import CUT_OFF, fuzz
from mutoscope.cameras import SimulatedCamera
from mutoscope.viewers.page.messages import SUBPROTOCOL

__all__ = ["run"]

SHAPE = (512, 512)
RATE_HZ = 500.0
READERS = 10
SECONDS = 10.0
FUZZED = 20_000
BUFFER = 16
_TIMES = struct.Struct("<qqq")


class _Client:
    """Reads frames as a browser does: a credit back for each."""

    def __init__(self, view: dict[str, Any]) -> None:
        self.view = view
        self.to_socket_ms: list[float] = []
        self.to_client_ms: list[float] = []

    async def run(self, base: str, token: str, stop: asyncio.Event) -> None:
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
            async with session.ws_connect(f"{base}ws", protocols=[SUBPROTOCOL], max_msg_size=0) as ws:
                await ws.send_json({"type": "view", "stream": "camera", **self.view})
                await ws.send_json({"type": "credit", "stream": "camera", "frames": 2})
                credit = json.dumps({"type": "credit", "stream": "camera", "frames": 1})
                while not stop.is_set():
                    try:
                        message = await ws.receive(timeout=0.2)
                    except TimeoutError:
                        continue
                    if message.type is aiohttp.WSMsgType.BINARY:
                        now = time.monotonic_ns()
                        taken, _, sent = _TIMES.unpack_from(message.data, 24)
                        self.to_socket_ms.append((sent - taken) / 1e6)
                        self.to_client_ms.append((now - taken) / 1e6)
                        await ws.send_str(credit)


async def _sleeper(base: str, token: str, stop: asyncio.Event) -> None:
    """Asks for frames and reads none."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
        async with session.ws_connect(f"{base}ws", protocols=[SUBPROTOCOL], max_msg_size=0) as ws:
            await ws.send_json({"type": "view", "stream": "camera"})
            await ws.send_json({"type": "credit", "stream": "camera", "frames": 4})
            await stop.wait()


def _with_clients(scope: Scope, clients: list[_Client], sleepers: int, work: Callable[[], Any]) -> Any:
    """Do `work` while clients look, in a thread of their own."""
    assert scope.page_url is not None
    base, _, token = scope.page_url.partition("?token=")
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    async def look() -> None:
        asleep = [_sleeper(base, token, stop) for _ in range(sleepers)]
        await asyncio.gather(*(client.run(base, token, stop) for client in clients), *asleep)

    thread = threading.Thread(target=loop.run_until_complete, args=(look(),), name="bench-clients")
    thread.start()
    try:
        return work()
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def _cpu_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _bare_ms(nbytes: int, count: int) -> list[float]:
    """How long as many bytes take through a bare connection of this computer."""
    listener = socket.create_server(("127.0.0.1", 0))
    taken: list[float] = []

    def read() -> None:
        connection, _ = listener.accept()
        with connection:
            for _ in range(count):
                left = nbytes
                while left:
                    left -= len(connection.recv(min(left, 1 << 20)))
                connection.send(b"x")

    thread = threading.Thread(target=read)
    thread.start()
    data = bytes(nbytes)
    with listener, socket.create_connection(listener.getsockname()) as connection:
        for _ in range(count):
            began = time.perf_counter()
            connection.sendall(data)
            connection.recv(1)
            taken.append(1e3 * (time.perf_counter() - began))
        thread.join()
    return taken


def run(*, quick: bool = False, folder: str | os.PathLike[str] | None = None) -> Report:
    """Run the bench.

    Parameters
    ----------
    quick : bool
        A shorter run, with a tenth of the wrong messages.
    folder : path, optional
        Where to write; a temporary folder of the working directory otherwise. Everything there is removed at the end.
    """
    bench = Bench("page", timing=not quick)
    seconds = 2.0 if quick else SECONDS
    base = Path(tempfile.mkdtemp(prefix="mutoscope-bench-", dir=folder or os.getcwd()))
    try:
        alone = _run(bench, base, "no client", 0, 0, seconds)
        _run(bench, base, "one client", 1, 0, seconds)
        crowded = _run(bench, base, f"{READERS} clients that read and one that does not", READERS, 1, seconds)
        missed = f"{alone} without clients, {crowded} with {READERS + 1}, which ran on the same computer"
        bench.note(f"exposures missed by the simulated camera: {missed}")
        _fuzzed(bench, FUZZED // 10 if quick else FUZZED)
    finally:
        shutil.rmtree(base)
    return bench.report()


def _run(bench: Bench, base: Path, what: str, readers: int, sleepers: int, seconds: float) -> int:
    rest(base)
    camera = SimulatedCamera(shape=SHAPE, rate_hz=RATE_HZ, pattern="counter", buffer_frames=BUFFER)
    path = base / "run.ome.zarr"
    clients = [_Client({}) for _ in range(readers)]
    with Scope(camera=camera, record=path, reserve_bytes=0, page=True) as scope:
        pid = next(status.pid for status in scope.status() if status.name == "page")
        before = _cpu_s(pid)
        _with_clients(scope, clients, sleepers, lambda: scope.acquire(seconds=seconds))
        cpu = _cpu_s(pid) - before
        account = scope.ledger.cameras["camera"]
    shutil.rmtree(path)
    recorder = account["consumers"]["recorder"]
    lost = account["produced"] - account["stored"] + sum(entry["count"] for entry in recorder["dropped"].values())
    bench.figure(f"{what}: frames not stored of {account['produced']:,}", lost, at_most=0, exact=True)
    bench.figure(f"{what}: cores of the page's process", cpu / seconds)
    if clients:
        shown = [len(client.to_client_ms) / seconds for client in clients]
        bench.figure(f"{what}: frames a second to each", shown, unit="Hz")
        to_socket = [each for client in clients for each in client.to_socket_ms]
        to_client = [each for client in clients for each in client.to_client_ms]
        bench.figure(f"{what}: from camera to socket, median", percentile(to_socket, 50), unit="ms")
        bench.figure(f"{what}: from camera to client, median", percentile(to_client, 50), unit="ms")
        bench.figure(f"{what}: from camera to client, 99 of 100", percentile(to_client, 99), unit="ms")
    if readers == 1:
        bare = _bare_ms(2 * SHAPE[0] * SHAPE[1], 200)
        bench.figure("a frame through a bare connection, median", percentile(bare, 50), unit="ms")
    missed: int = account["camera_overrun"]
    return missed


def _fuzzed(bench: Bench, count: int) -> None:
    with Scope(camera=SimulatedCamera(shape=(16, 24), rate_hz=100), page=True) as scope:
        scope.acquire(frames=3)
        assert scope.page_url is not None
        base, _, token = scope.page_url.partition("?token=")
        _, codes = asyncio.run(fuzz(base, token, "camera", count, seed=3))
        page = next(status for status in scope.status() if status.name == "page")
    bench.figure(f"{count:,} wrong messages: deaths of the page", page.restarts, at_most=0, exact=True)
    strange = len(codes - {CUT_OFF})
    bench.figure(f"{count:,} wrong messages: connections ended in another way than as refused", strange, at_most=0, exact=True)
