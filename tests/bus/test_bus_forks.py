"""A forked child has copies of its parent's sockets: it is refused, and the parent goes on."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
from bus_support import Echo, EndpointThread, HubThread, Poke, Shared, Worker

from mutoscope import bus
from mutoscope.model.errors import ScopeStateError
from polling import until

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def refusals(*calls: Callable[[], Any]) -> int:
    """How many of the calls a forked child is refused, which closes the connection then."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        refused = 0
        try:
            for call in calls:
                try:
                    call()
                except ScopeStateError as error:
                    refused += "cannot be used in its forked child" in str(error)
            os.write(write_end, bytes([refused]))
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    os.close(write_end)
    answer = os.read(read_end, 1)
    os.close(read_end)
    return answer[0]


def test_a_forked_child_of_a_worker_is_refused_and_its_parent_goes_on(hub: HubThread) -> None:
    tracker = EndpointThread(hub, "tracker", Worker("tracker"))
    endpoint = bus.Endpoint(hub.connect("parent"), "parent")
    endpoint.hello()
    endpoint.request(Echo(), to="tracker")
    until(lambda: (endpoint.pump(0.01), endpoint.statistics().lines == 1)[1])
    calls = (
        lambda: endpoint.request(Echo(value="child"), to="tracker"),
        lambda: endpoint.send(Echo()),
        lambda: endpoint.post(Echo()),
        lambda: endpoint.broadcast(Poke()),
        endpoint.flush,
        lambda: endpoint.publish(Shared(n=1)),
        lambda: endpoint.publish_soon(Shared(n=1)),
        lambda: endpoint.subscribe(Shared, print),
        lambda: endpoint.pump(0.0),
    )
    assert refusals(*calls, endpoint.close) == len(calls)
    for value in range(20):
        assert endpoint.request(Echo(value=value), to="tracker", timeout_s=5.0) == value
    assert endpoint.statistics().lines == 1
    endpoint.close()
    tracker.close()


def test_a_forked_child_of_the_program_is_refused_and_its_parent_goes_on(hub: HubThread) -> None:
    tracker = EndpointThread(hub, "tracker", Worker("tracker"))
    with hub.client() as program:
        program.request(Echo())
        until(lambda: program.statistics().lines == 1)
        calls = (
            lambda: program.request(Echo(value="child")),
            lambda: program.post(Echo()),
            lambda: program.broadcast(Poke()),
            program.flush,
            lambda: program.publish(Shared(n=1)),
            lambda: program.subscribe(Shared, print),
        )
        assert refusals(*calls, program.close) == len(calls)
        heard = threading.Event()
        program.subscribe(Shared, lambda event: heard.set())
        program.publish(Shared(n=1))
        assert heard.wait(5.0)
        for value in range(20):
            assert program.request(Echo(value=value), timeout_s=5.0) == value
    tracker.close()
