"""The bytes on the sockets: what they are, and what anything else leads to."""

from __future__ import annotations

import builtins
import contextlib
import os
import socket
import threading
from typing import Any

import msgspec
import pytest
from bus_support import Echo, EndpointThread, HubThread, Worker
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mutoscope import bus
from mutoscope.bus import payload, wire
from mutoscope.bus.audit import AuditReader, AuditWriter
from mutoscope.bus.connection import MAX_FDS, Connection
from mutoscope.bus.wire import MalformedError
from mutoscope.model import errors
from mutoscope.model.errors import BadPayloadError, ErrorRecord, PeerDiedError
from polling import until

PAYLOAD = msgspec.Raw(bytes.fromhex("81a576616c7565cb3ff8000000000000"))
RECORD = ErrorRecord("KeyError", ("x", 1, None), "'x'", "Traceback")
SPEC = bus.HandlerSpec("Move", "lab:Move", "broadcast", True, False)
DONE = bus.CallRecord("a", "b", "Move", wire.REQUEST, 0.5, "ok", b"\x80", 7)
GOLDEN: list[tuple[Any, str]] = [
    (
        wire.Hello(1, "cam", 42, 1024, bus.Manifest("lab:Cam", (SPEC,), (bus.SendSpec("Go", "lab:Go", "a"),))),
        "00000093970101a363616d2acd040083a56f776e6572a76c61623a43616da768616e646c65739186a7636f6d6d616e64a44d6f7665"
        "a86964656e74697479a86c61623a4d6f7665a864656c6976657279a962726f616463617374a6736372697074c3a470616765c2a466"
        "6f726dc0a573656e64739183a7636f6d6d616e64a2476fa86964656e74697479a66c61623a476fa2746fa161c2",
    ),
    (
        wire.Call(7, wire.REQUEST, "Move", None, 10.0, PAYLOAD),
        "00000024980207 01a44d6f7665c0cb4024000000000000 81a576616c7565cb3ff8000000000000 c2",
    ),
    (wire.Return(7, wire.NIL), "00000004930307c0"),
    (
        wire.Fail(7, RECORD),
        "00000046930407 84a9747970655f6e616d65a84b65794572726f72a9617267756d656e747393a17801c0a76d657373616765a3277827"
        "a974726163656261636ba954726163656261636b",
    ),
    (wire.Publish("Moved", wire.NIL), "000000099305a54d6f766564c0"),
    (wire.Subscribe("Moved"), "000000089206a54d6f766564"),
    (wire.Credit(1_000_000), "000000079207ce000f4240"),
    (wire.Goodbye("done"), "00000007920aa4646f6e65"),
    (wire.Welcome(1, "cam"), "00000007931401a363616d"),
    (wire.Refusal("no"), "000000059215a26e6f"),
    (
        wire.Deliver(7, wire.SEND, "cam", "Move", PAYLOAD),
        "0000001d961607 00a363616da44d6f7665 81a576616c7565cb3ff8000000000000",
    ),
    (wire.Answer(7, "cam", wire.NIL, 2), "00000009951707a363616dc002"),
    (wire.Targets(7, ("a", "b")), "0000000893190792a161a162"),
    (wire.Happened("Moved", "cam", wire.NIL, 3), "0000000e951aa54d6f766564a363616dc003"),
    (wire.LineTaken(3), "00000003920b03"),
    (wire.LineEnded(3), "00000003920c03"),
    (wire.Done(DONE), "0000001d920d 98a161a162a44d6f766501cb3fe0000000000000a26f6bc4018007"),
    (wire.Line(3, "b", 4096, ("Move", "Go"), ("Go",), True), "00000016971b03a162cd100092a44d6f7665a2476f91a2476fc3"),
    (wire.Accept("a", 4096, ("Move",), True, 2), "0000000f961ca161cd100091a44d6f7665c302"),
    (wire.Routes(3, ("Go",)), "00000007931d0391a2476f"),
    (wire.Cut(3, "gone"), "00000008931e03a4676f6e65"),
    (
        wire.Ask(7, wire.REQUEST, "Move", 10.0, PAYLOAD),
        "0000002296280701a44d6f7665cb402400000000000081a576616c7565cb3ff8000000000000",
    ),
]


@pytest.mark.parametrize(("message", "expected"), GOLDEN, ids=lambda value: type(value).__name__)
def test_golden_bytes(message: Any, expected: str) -> None:
    packed = wire.pack(message)
    assert packed.hex() == expected.replace(" ", "")
    decode = next(
        decode
        for kinds, decode in (
            (wire.Upward, wire.decode_upward),
            (wire.Downward, wire.decode_downward),
            (wire.Ask, wire.asked),
        )
        if isinstance(message, kinds)
    )
    decoded = decode(packed[wire.HEADER_BYTES :])
    assert type(decoded) is type(message)
    assert wire.pack(decoded) == packed


def test_a_newer_field_at_the_end_is_passed_over() -> None:
    longer = msgspec.msgpack.encode([7, 5000, "a field of a later version"])
    assert wire.decode_upward(longer) == wire.Credit(5000)
    assert wire.opening_version(msgspec.msgpack.encode([1, 99, {"all": "different"}]), 1) == 99
    assert wire.opening_version(msgspec.msgpack.encode([2, 1]), 1) is None
    assert wire.opening_version(b"\xc1", 1) is None


@pytest.fixture
def pair():
    one, other = socket.socketpair()
    connections = Connection(one), Connection(other)
    yield connections
    for connection in connections:
        connection.close()
        connection.close()


def receive_all(connection: Connection, sender: Connection, count: int, *, with_fds: bool = False) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < count:
        sender.flush()
        found += [bytes(body) for body in connection.receive(with_fds=with_fds)]
        assert connection.ended is None
    return found


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bodies=st.lists(st.binary(max_size=300) | st.integers(0, 200_000).map(bytes), min_size=1, max_size=12),
    cuts=st.lists(st.integers(1, 9) | st.integers(1, 100_000), min_size=1, max_size=20),
)
def test_messages_arrive_however_the_stream_is_cut(bodies: list[bytes], cuts: list[int]) -> None:
    one, other = socket.socketpair()
    connection = Connection(other)
    found: list[bytes] = []
    with one:
        stream, turn = b"".join(frame(body) for body in bodies), 0
        while stream:
            cut = cuts[turn % len(cuts)] if turn < 500 else 100_000
            with contextlib.suppress(BlockingIOError):  # a read takes less than may be written at once
                stream = stream[one.send(stream[:cut], socket.MSG_DONTWAIT) :]
            turn += 1
            found += [bytes(body) for body in connection.receive()]
    while connection.ended is None:
        found += [bytes(body) for body in connection.receive()]
    connection.close()
    assert found == bodies
    assert connection.ended == "the stream ended"


def test_large_and_small_messages_with_descriptors_in_order(pair: tuple[Connection, Connection]) -> None:
    sender, receiver = pair
    files = [os.memfd_create(f"test-{i}") for i in range(4)]
    for index, fd in enumerate(files):
        os.write(fd, b"%d" % index)
    messages = [(b"a", [0]), (bytes(3_000_000), [1, 2]), (b"", []), (b"last", [3])]
    for body, which in messages:
        sender.queue(frame(body), [files[i] for i in which])
    for fd in files:
        os.close(fd)
    assert receive_all(receiver, sender, 4, with_fds=True) == [body for body, _ in messages]
    taken = receiver.take_fds(1) + receiver.take_fds(3)
    assert [os.pread(fd, 10, 0) for fd in taken] == [b"0", b"1", b"2", b"3"]
    for fd in taken:
        os.close(fd)
    with pytest.raises(MalformedError, match="announces 1 descriptors, 0 came"):
        receiver.take_fds(1)
    with pytest.raises(ValueError, match="at most 250"):
        sender.queue(frame(b""), [0] * (MAX_FDS + 1))


def test_descriptors_nobody_announced(pair: tuple[Connection, Connection]) -> None:
    sender, receiver = pair
    sender.queue(frame(b"x"), [0])
    sender.flush()
    assert receiver.receive(with_fds=True) == [b"x"]
    with pytest.raises(MalformedError, match="without a message that announces them"):
        receiver.check_loose_fds()


def test_descriptors_for_who_does_not_want_them_are_closed_by_the_kernel(pair: tuple[Connection, Connection]) -> None:
    sender, receiver = pair
    read, write = os.pipe()
    sender.queue(frame(b"x"), [write])
    sender.flush()
    os.close(write)
    assert receiver.receive() == [b"x"]
    assert os.read(read, 1) == b""
    os.close(read)


def test_a_message_beyond_the_limit_is_refused_at_its_first_bytes(pair: tuple[Connection, Connection]) -> None:
    sender, receiver = pair
    sender.sock.sendall((wire.MAX_MESSAGE_BYTES + 1).to_bytes(4, "big"))
    with pytest.raises(MalformedError, match="at most 67,174,400 are taken"):
        receiver.receive()


def test_the_end_in_the_middle_of_a_message_is_told(pair: tuple[Connection, Connection]) -> None:
    sender, receiver = pair
    sender.sock.sendall(b"\x00\x00\x00\x09half")
    sender.close()
    assert receiver.receive() == []
    assert receiver.receive() == []
    assert receiver.ended == "the stream ended in the middle of a message"
    receiver.queue(frame(b"into the void"))
    assert receiver.flush()
    assert receiver.broken


# -- bytes that are no messages

MANIFEST = bus.manifest(Worker)


def upward(number: int) -> st.SearchStrategy[bytes]:
    """Bytes that begin like a message of each kind."""
    value = st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=8) | st.binary(max_size=8),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=6,
    )
    return st.tuples(st.integers(1, number), st.lists(value, max_size=7)).map(
        lambda parts: msgspec.msgpack.encode([parts[0], *parts[1]])
    )


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(introduced=st.booleans(), bodies=st.lists(st.binary(max_size=60) | upward(40), min_size=1, max_size=4))
def test_no_bytes_hurt_the_hub_or_anybody_else(
    shared: tuple[HubThread, bus.ThreadedEndpoint], introduced: bool, bodies: list[bytes]
) -> None:
    hub, program = shared
    with hub.connect("vandal") as vandal:
        try:
            if introduced:
                vandal.sendall(wire.pack(wire.hello("vandal", 1000, bus.Manifest())))
            for body in bodies:
                vandal.sendall(frame(body))
        except ConnectionError:
            pass
        assert program.request(Echo(value=1), timeout_s=5.0) == 1
    until(lambda: "vandal" not in hub.do(lambda: hub.hub.peers))


@pytest.fixture(scope="module")
def shared():
    hub = HubThread()
    worker = EndpointThread(hub, "tracker", Worker("tracker"))
    program = hub.client()
    yield hub, program
    program.close()
    worker.close()
    hub.close()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(bodies=st.lists(st.binary(max_size=60) | upward(40), min_size=1, max_size=4))
def test_no_bytes_hurt_a_worker_beyond_losing_its_supervisor(bodies: list[bytes]) -> None:
    mine, theirs = socket.socketpair()
    with mine, bus.Endpoint(theirs, "tracker") as endpoint:
        worker = Worker("tracker")
        worker.endpoint = endpoint
        endpoint.serve(worker)
        mine.sendall(wire.pack(wire.Welcome(wire.WIRE_VERSION, "tracker")))
        endpoint.hello()
        for body in bodies:
            mine.sendall(frame(body))
        mine.shutdown(socket.SHUT_WR)
        while not endpoint.peer_closed:
            endpoint.pump(0.01)
        with pytest.raises(PeerDiedError):
            endpoint.request(Echo())


@pytest.mark.parametrize(
    "content",
    [
        [["<u2", [3], b"12345"]],
        [["<u2", [-1], b""]],
        [["|O", [1], b"12345678"]],
        [["(2,)f4", [1], b"12345678"]],
        [[[["a", "|O8", []]], [1], b"12345678"]],
        [["<u2", [1 << 40], b""]],
        [["<U0", [5], b""]],
        ["nonsense"],
    ],
)
def test_arrays_that_are_none_are_refused(content: Any) -> None:
    packed = msgspec.msgpack.encode(msgspec.msgpack.Ext(1, msgspec.msgpack.encode(content[0])))
    with pytest.raises(BadPayloadError):
        payload.decode(packed, Any, "test")
    with pytest.raises(BadPayloadError, match="unknown extension type 9"):
        payload.decode(msgspec.msgpack.encode(msgspec.msgpack.Ext(9, b"")), Any, "test")


def test_deep_nesting_is_refused_not_followed() -> None:
    deep = b"\x91" * 100_000
    with pytest.raises(MalformedError):
        wire.decode_upward(deep)
    with pytest.raises(MalformedError):
        wire.decode_upward(b"\x93\x03\x01" + deep)
    with pytest.raises(BadPayloadError):
        payload.decode(deep, Any, "test")


# -- the memory of the audit


def test_records_go_round_the_memory_and_stop_when_it_is_full() -> None:
    reader = AuditReader()
    fd = reader.detach()
    writer = AuditWriter(fd)
    record = bus.CallRecord("a", "b", "Move", wire.SEND, 0.5, "ok", bytes(1000), 7)
    written, read = 0, 0
    for turn in range(1000):
        while writer.append(msgspec.structs.replace(record, utc_ns=written)):
            written += 1
            if turn % 3 and written % 7 == 0:
                break
        for taken in reader.take():
            assert taken == msgspec.structs.replace(record, utc_ns=read)
            read += 1
    assert read == written > 10_000
    for each in (reader, writer):
        each.close()
        each.close()
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    os.close(fd)


@settings(max_examples=100, deadline=None)
@given(counter=st.integers(0, 400_000) | st.integers(0, 2**64 - 1), content=st.binary(max_size=200))
def test_no_bytes_in_the_memory_of_the_audit_hurt_the_hub(counter: int, content: bytes) -> None:
    reader = AuditReader()
    fd = reader.detach()
    writer = AuditWriter(fd)
    writer._map[64 : 64 + len(content)] = content
    writer._counters[0] = counter
    with contextlib.suppress(MalformedError):
        reader.take()
    reader.close()
    writer.close()
    os.close(fd)


# -- well-formed messages whose content nobody expects

PLAIN = st.text(max_size=6) | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.booleans() | st.none()
NAMES = sorted({*errors.__all__, *(name for name in dir(builtins) if isinstance(getattr(builtins, name), type))})


@settings(max_examples=400, deadline=None)
@given(name=st.sampled_from(NAMES), arguments=st.lists(PLAIN, max_size=5))
def test_every_record_of_an_error_gives_an_exception(name: str, arguments: list[Any]) -> None:
    error = errors.from_record(errors.ErrorRecord(name, tuple(arguments), "said", "Traceback"))
    assert isinstance(error, Exception)
    assert isinstance(str(error), str)
    assert error.remote_traceback == "Traceback"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "record", [errors.ErrorRecord("ExceptionGroup", ("m", ""), "m"), errors.ErrorRecord("UnicodeDecodeError", (), "")]
)
def test_an_error_that_cannot_be_made_again_ends_nobody(shared: tuple[HubThread, bus.ThreadedEndpoint], record: Any) -> None:
    hub, program = shared
    with hub.connect("vandal") as vandal:
        vandal.sendall(wire.pack(wire.hello("vandal", 1000, bus.Manifest())))
        before = len(hub.problems)
        vandal.sendall(wire.pack(wire.Problem("program", "X", record)) + wire.pack(wire.CrashReport(record)))
        until(lambda: len(hub.problems) > before)
        assert isinstance(hub.problems[-1][3], errors.RemoteError)
        assert program.request(Echo(value=1), timeout_s=5.0) == 1
    until(lambda: "vandal" not in hub.do(lambda: hub.hub.peers))


def test_a_message_whose_handling_fails_cuts_its_sender_off_and_nobody_else(
    shared: tuple[HubThread, bus.ThreadedEndpoint], caplog: pytest.LogCaptureFixture
) -> None:
    hub, program = shared
    hub.do(lambda: setattr(hub.hub, "on_problem", lambda *_: {}["a fault of the supervisor"]))
    with hub.connect("faulty") as vandal:
        vandal.sendall(wire.pack(wire.hello("faulty", 1000, bus.Manifest())))
        vandal.sendall(wire.pack(wire.Problem("program", "X", errors.ErrorRecord("ValueError", (), ""))))
        until(lambda: "faulty" in hub.lost)
    assert "handling what it sent failed: KeyError: 'a fault of the supervisor'" in hub.lost.pop("faulty")
    assert "Traceback" in caplog.text
    assert program.request(Echo(value=1), timeout_s=5.0) == 1


def test_a_message_of_the_supervisor_whose_handling_fails_ends_the_waiting(caplog: pytest.LogCaptureFixture) -> None:
    for kind in (bus.Endpoint, bus.ThreadedEndpoint):
        mine, theirs = socket.socketpair()
        with mine, kind(theirs, "tracker") as endpoint:
            mine.sendall(wire.pack(wire.Welcome(wire.WIRE_VERSION, "tracker")))
            endpoint.hello()
            endpoint._session._actions[wire.Problem] = lambda *_: {}["a fault of the reader"]
            fault = wire.pack(wire.Problem("x", "X", errors.ErrorRecord("ValueError", (), "")))
            sending = threading.Timer(0.2, lambda mine=mine, fault=fault: mine.sendall(fault))
            sending.start()
            with pytest.raises(PeerDiedError, match="handling what it sent failed: KeyError: 'a fault of the reader'"):
                endpoint.request(Echo(), timeout_s=60.0)
            sending.join()
    assert caplog.text.count("leaves the bus") == 2


class Picky(bus.Command):
    value: int = 0

    def __post_init__(self) -> None:
        if self.value:
            raise RuntimeError(f"{self.value} is not for me")


def test_a_command_that_its_class_refuses_in_any_way_is_refused(hub: HubThread) -> None:
    class Owner:
        @bus.handles(Picky)
        def picky(self, command: Picky) -> int:
            return command.value

    picky = Picky()
    msgspec.structs.force_setattr(picky, "value", 7)
    thread, other = EndpointThread(hub, "owner", Owner()), bus.Endpoint(hub.connect("other"), "other")
    other.hello()
    for _ in range(3):  # the later ones go over a line
        with pytest.raises(errors.BadPayloadError, match="7 is not for me"):
            other.request(picky, timeout_s=5.0)
    assert other.request(Picky(), timeout_s=5.0) == 0
    other.close()
    thread.close()
