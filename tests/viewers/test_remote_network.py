"""Several computers, as network namespaces of the kernel: a slow network, one that is cut, and many senders at once."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from remote_senders import SHAPE
from remote_support import PATIENCE_S, Users, environment, users_in

from mutoscope import viewers
from mutoscope.viewers.suite import plane_of
from polling import until

LONG_S = 240.0
_numbers = itertools.count()


def ip(*words: str, tool: str = "ip") -> None:
    subprocess.run([tool, *words], check=True, capture_output=True, text=True)


class Network:
    """A desk and some microscopes, each with an address of its own, on one switch."""

    def __init__(self, users: Users, runtime: Path, hosts: int) -> None:
        self._users = users
        self._runtime = runtime
        mark = f"mu{os.getpid()}n{next(_numbers)}"
        self.desk = f"{mark}d"
        self.hosts = [f"{mark}s{number}" for number in range(hosts)]
        self._made: list[str] = []
        self._running: list[subprocess.Popen[str]] = []
        self.address = "tcp://10.77.0.1:5680"

    def build(self) -> None:
        """Make it; `remove` takes away what there is of it."""
        for namespace in (self.desk, *self.hosts):
            ip("netns", "add", namespace)
            self._made.append(namespace)
            ip("-n", namespace, "link", "set", "lo", "up")
        ip("-n", self.desk, "link", "add", "switch", "type", "bridge")
        ip("-n", self.desk, "addr", "add", "10.77.0.1/24", "dev", "switch")
        ip("-n", self.desk, "link", "set", "switch", "up")
        for number, host in enumerate(self.hosts):
            ip("-n", host, "link", "add", "eth0", "type", "veth", "peer", "name", f"port{number}", "netns", self.desk)
            ip("-n", host, "addr", "add", f"10.77.0.{number + 2}/24", "dev", "eth0")
            ip("-n", host, "link", "set", "eth0", "up")
            ip("-n", self.desk, "link", "set", f"port{number}", "master", "switch", "up")

    def remove(self) -> None:
        """Take it away, with what runs in it."""
        for process in self._running:
            if process.poll() is None:
                process.kill()
            process.communicate()
        for namespace in self._made:
            ip("netns", "del", namespace)

    def slow(self, host: str, rate: str) -> None:
        """Limit what a microscope sends."""
        ip("netns", "exec", host, "tc", *f"qdisc replace dev eth0 root tbf rate {rate} burst 16k latency 500ms".split())

    def link(self, host: str, state: str) -> None:
        """Plug the cable of a microscope in, or out: ``"up"``, ``"down"``."""
        ip("-n", self.desk, "link", "set", f"port{self.hosts.index(host)}", state)

    def listen(self) -> None:
        """Have a viewer listen at the desk, as a person would."""
        command = [sys.executable, "-m", "mutoscope", "view", "model", "--listen", "tcp://0.0.0.0:5680"]
        done = subprocess.run(
            ["ip", "netns", "exec", self.desk, *command],
            env=environment(self._users.config("desk"), self._runtime),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        self._users.ends("model")

    def send(self, host: str, role: str, source: str, count: int) -> subprocess.Popen[str]:
        """Start a program at a microscope that sends."""
        command = [sys.executable, "-W", "error", "-m", "remote_senders", role, self.address, source, str(count)]
        process = subprocess.Popen(
            ["ip", "netns", "exec", host, *command],
            env=environment(self._users.config("scope"), self._runtime / host),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._running.append(process)
        return process


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    """A desk where a viewer listens, and three microscopes."""
    if os.geteuid() != 0:
        pytest.skip("only root can make network namespaces")
    missing = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"network namespaces need {' and '.join(missing)}, of the package iproute2")
    trial = f"mu{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", trial], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"network namespaces cannot be made here: {made.stderr.strip()}")
    ip("netns", "del", trial)
    with users_in(tmp_path, monkeypatch) as users:
        network = Network(users, tmp_path, 3)
        try:
            network.build()
            network.listen()
            yield network
        finally:
            network.remove()


def done(process: subprocess.Popen[str]) -> str:
    out, errors = process.communicate(timeout=LONG_S)
    assert process.returncode == 0, errors
    return out.removeprefix("open\n")


def check_shown(wanted: dict[str, int]) -> None:
    """See in the viewer itself that all of each source was shown once, and is what was sent."""
    total = sum(wanted.values())
    account = until(lambda: (found := viewers.progress("model")).images.displayed >= total and found)
    assert (account.images.sent, account.images.displayed, account.images.failed) == (total, total, 0)
    looks = viewers.open("model", "model", timeout_s=PATIENCE_S)
    layers = {layer.name: layer for layer in looks.layers()}
    assert set(layers) == set(wanted)
    for source, count in wanted.items():
        layer = layers[source]
        t = layer.axis_names.index("t")
        assert (layer.missing, layer.shape[t]) == (0, count)
        for number in range(count):
            index = [number if axis == t else 0 for axis in range(len(layer.shape) - 2)]
            assert np.array_equal(looks.plane(layer, index), plane_of(number, SHAPE)), (source, number)
    looks.close()


def test_a_slow_network(network: Network) -> None:
    network.slow(network.hosts[0], "20mbit")
    assert json.loads(done(network.send(network.hosts[0], "batch", "slow", 60))) == [60, 60, 0, 0]
    check_shown({"slow": 60})


def test_a_network_that_is_cut_for_a_while(network: Network) -> None:
    """The cable is out for three seconds, twice."""
    host = network.hosts[0]
    network.slow(host, "20mbit")
    sender = network.send(host, "batch", "cut", 100)
    for displayed in (10, 40):
        until(lambda displayed=displayed: viewers.progress("model").images.displayed >= displayed)
        assert viewers.progress("model").images.displayed < 100
        network.link(host, "down")
        time.sleep(3.0)
        network.link(host, "up")
    assert json.loads(done(sender)) == [100, 100, 0, 0]
    check_shown({"cut": 100})


def test_three_computers_and_a_pool_send_at_once(network: Network) -> None:
    first, second, third = network.hosts
    senders = [
        network.send(first, "batch", "first", 100),
        network.send(second, "batch", "second", 100),
        network.send(third, "pool", "third", 100),
    ]
    for sender in senders:
        done(sender)
    check_shown({"first": 100, "second": 100, "third": 100})
    account = viewers.progress("model")
    assert {sender.peer for sender in account.senders} >= {f"scope at 10.77.0.{number}" for number in (2, 3, 4)}
    assert sum(sender.peer == "scope at 10.77.0.4" and sender.images.sent > 0 for sender in account.senders) == 8
