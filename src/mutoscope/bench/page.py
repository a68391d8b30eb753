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
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp

from mutoscope.app.scope import Scope
from mutoscope.bench.harness import Bench, Report, percentile, rest
from mutoscope.bench.page_fuzz import CUT_OFF, fuzz
from mutoscope.cameras import SimulatedCamera
from mutoscope.frames import _os
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

    async def run(self, base: str, token: str) -> None:
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
            async with session.ws_connect(f"{base}ws", protocols=[SUBPROTOCOL], max_msg_size=0) as ws:
                await ws.send_json({"type": "view", "stream": "camera", **self.view})
                await ws.send_json({"type": "credit", "stream": "camera", "frames": 2})
                credit = json.dumps({"type": "credit", "stream": "camera", "frames": 1})
                async for message in ws:
                    if message.type is aiohttp.WSMsgType.BINARY:
                        now = time.monotonic_ns()
                        taken, _, sent = _TIMES.unpack_from(message.data, 24)
                        self.to_socket_ms.append((sent - taken) / 1e6)
                        self.to_client_ms.append((now - taken) / 1e6)
                        await ws.send_str(credit)


async def _sleeper(base: str, token: str) -> None:
    """Asks for frames and reads none."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
        async with session.ws_connect(f"{base}ws", protocols=[SUBPROTOCOL], max_msg_size=0) as ws:
            await ws.send_json({"type": "view", "stream": "camera"})
            await ws.send_json({"type": "credit", "stream": "camera", "frames": 4})
            await asyncio.Event().wait()


def _with_clients(scope: Scope, clients: list[_Client], sleepers: int, work: Callable[[], Any]) -> Any:
    """Do `work` while clients look, in a thread of their own; what ends one of them early is raised here."""
    assert scope.page_url is not None
    base, _, token = scope.page_url.partition("?token=")
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def look() -> None:
        stop = asyncio.Event()
        begun.set_result((asyncio.get_running_loop(), stop))
        async with asyncio.TaskGroup() as group:
            looks = [group.create_task(client.run(base, token)) for client in clients]
            looks += [group.create_task(_sleeper(base, token)) for _ in range(sleepers)]
            await stop.wait()
            for task in looks:
                if task.done():
                    raise AssertionError("a client was hung up on")
                task.cancel()

    with ThreadPoolExecutor(1, "bench-clients") as pool:
        looking = pool.submit(asyncio.run, look())
        loop, stop = begun.result()
        try:
            return work()
        finally:
            if not looking.done():
                loop.call_soon_threadsafe(stop.set)
            looking.result()


def _cpu_s(pid: int) -> float:
    facts = _os.process_facts(pid)
    return 0.0 if facts is None else facts.processor_s


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
        pid = next(status.pid for status in scope.status() if status.name == "page" and status.pid is not None)
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
    missed: int = account["missed"]
    return missed


def _fuzzed(bench: Bench, count: int) -> None:
    with Scope(camera=SimulatedCamera(shape=(16, 24), rate_hz=100), page=True) as scope:
        scope.acquire(frames=3)
        assert scope.page_url is not None
        base, _, token = scope.page_url.partition("?token=")
        _, codes = asyncio.run(fuzz(base, token, "camera", count, seed=3))
        page = next(status for status in scope.status() if status.name == "page")
    bench.figure(f"{count:,} wrong messages: deaths of the page", page.restarts, at_most=0, exact=True)
    refused = int(CUT_OFF in codes)
    bench.figure(f"{count:,} wrong messages: whether connections ended as refused", refused, at_least=1, exact=True)
    strange = len(codes - {CUT_OFF})  # such as 1006: what was still being sent reset the connection before its end was read
    bench.figure(f"{count:,} wrong messages: other codes with which connections ended", strange)
