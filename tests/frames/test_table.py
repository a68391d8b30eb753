"""Typed rows in shared memory: fit, order, exact loss, wake-up, and death of either end between any two steps."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from mutoscope.frames import _os
from mutoscope.frames._columns import Columns
from mutoscope.frames.table import Table, TableReader, TableWriter
from mutoscope.model.errors import ClosedError, ConfigError, RingClosedError, ScopeStateError
from polling import until

sys.path.insert(0, str(Path(__file__).parent))
from table_child import check, row, rows_of

DTYPE = [("value", "u8"), ("triple", "u8"), ("half", "f8"), ("tail", "u4")]  # 28 bytes: not a multiple of 8
CHILD = Path(__file__).with_name("table_child.py")
WRITER_POINTS = ["claimed", "filling", "filled", "sequenced", "published", "rung"]
READER_POINTS = ["account_half", "account_written", "account_flipped"]


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a child on handles; whatever is still alive at the end is killed."""
    children: list[subprocess.Popen[str]] = []

    def run(role: str, *handles: tuple[dict[str, Any], list[int]], env: dict[str, str] | None = None, **arguments: Any):
        fds = [fd for _, these in handles for fd in these]
        command = [
            sys.executable,
            str(CHILD),
            role,
            *(json.dumps(x) for x in ([m for m, _ in handles], [f for _, f in handles])),
        ]
        child = subprocess.Popen(
            [*command, json.dumps(arguments)],
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=fds,
            env={**os.environ, **(env or {})},
        )
        children.append(child)
        return child

    yield run
    for child in children:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def said(child: subprocess.Popen[str], *, code: int = 0) -> list[dict[str, Any]]:
    out, _ = child.communicate(timeout=60)
    assert child.returncode == code
    return [json.loads(line) for line in out.splitlines()]


def first_line(child: subprocess.Popen[str]) -> dict[str, Any]:
    assert child.stdout is not None
    answer: dict[str, Any] = json.loads(child.stdout.readline())
    return answer


def sleeps(child: subprocess.Popen[str]) -> bool:
    return Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


# -- what fits in a table


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ((1, 2), "2 values for 4 columns"),
        ((1, 2, 3.0, 4, 5), "5 values for 4 columns"),
        ((1.5, 2, 3.0, 4), "value takes whole numbers, not 1.5"),
        (("7", 2, 3.0, 4), "value takes whole numbers"),
        ((-1, 2, 3.0, 4), "value takes 0 to 18446744073709551615"),
        ((np.int64(-1), 2, 3.0, 4), "value takes 0 to"),
        ((1, 2, 3.0, 2**32), "tail takes 0 to 4294967295"),
        ((1, 2, "3.5", 4), "half takes numbers, not '3.5'"),
        ((1, 2, None, 4), "half takes numbers, not None"),
        (17, "a row is a tuple"),
        ({"value": 1}, "a row is a tuple"),
        (np.arange(4), "the same column names"),
        (np.zeros((2, 2), DTYPE), "a batch is 1-D"),
        (np.zeros(2, [("value", "f8"), *DTYPE[1:]]), "value: Cannot cast"),
        (np.full(2, -1, [("value", "i8"), *DTYPE[1:]]), "value: some values do not fit"),
        (np.zeros(2, DTYPE[:3]), "the same column names"),
    ],
)
def test_a_row_that_does_not_fit_is_one_clear_error_and_nothing_is_appended(bad: Any, why: str) -> None:
    with Table.create("spots", DTYPE, capacity=8) as table, table.writer() as writer:
        with pytest.raises(ConfigError, match="table 'spots'") as caught:
            writer.append(bad)
        assert why in str(caught.value)
        assert writer.row_id == 0


def test_text_is_never_cut_and_nested_columns_come_back() -> None:
    dtype = [("label", "S4"), ("name", "U3"), ("box", [("y", "f4"), ("x", "f4")]), ("counts", "i2", (3,)), ("ok", "?")]
    with Table.create("labels", dtype, capacity=8) as table, table.writer() as writer, table.reader(start="oldest") as reader:
        writer.append((b"abcd", "äöü", (1.5, 2.5), [1, -2, 3], True))
        for bad in [(b"abcde", "a", (0, 0), [0, 0, 0], False), (b"a", "abcd", (0, 0), [0, 0, 0], False)]:
            with pytest.raises(ConfigError, match="text of at most"):
                writer.append(bad)
        (taken,) = reader.read()
        assert (taken["label"], taken["name"], taken["box"].tolist()) == (b"abcd", "äöü", (1.5, 2.5))
        assert (taken["counts"].tolist(), bool(taken["ok"])) == ([1, -2, 3], True)


def test_batches_with_other_column_order_or_padding_are_matched_by_name() -> None:
    with Table.create("spots", DTYPE, capacity=64) as table, table.writer() as writer, table.reader(start="oldest") as reader:
        values = np.arange(1, 5)
        turned = np.zeros(4, np.dtype(DTYPE[::-1], align=True))
        for name in ("value", "triple", "half", "tail"):
            turned[name] = rows_of(values, table.dtype)[name]
        assert writer.append(turned) == 4
        assert writer.append(turned[0]) == 5
        assert writer.append(rows_of(np.arange(6, 26), table.dtype)[::2]) == 15  # not contiguous
        rows = reader.read()
        check(rows)
        assert rows["value"].tolist() == [1, 2, 3, 4, 1, *range(6, 26, 2)]


def test_an_appended_row_is_a_copy() -> None:
    with Table.create("spots", DTYPE, capacity=8) as table, table.writer() as writer, table.reader(start="oldest") as reader:
        source = rows_of(np.arange(1, 3), table.dtype)
        writer.append(source)
        source[:] = 0
        taken = reader.read()
        writer.append(rows_of(np.arange(3, 9), table.dtype))
        writer.append(rows_of(np.arange(9, 15), table.dtype))
        assert taken["value"].tolist() == [1, 2]


@pytest.mark.parametrize(
    "dtype", ["f8", [], [("a", "O")], [("a", [("b", "O")])], [("a", "S")], [("a", "f8"), ("a", "f8")], "what", 3.5]
)
def test_columns_that_cannot_be_shared_are_refused(dtype: Any) -> None:
    with pytest.raises(ConfigError):
        Table.create("bad", dtype)


@pytest.mark.parametrize("capacity", [-1, 0, 1])
def test_a_capacity_below_two_is_refused(capacity: int) -> None:
    with pytest.raises(ConfigError, match="at least 2 rows"):
        Table.create("bad", DTYPE, capacity)


def test_a_table_that_does_not_fit_fails_at_creation_with_the_numbers() -> None:
    with pytest.raises(ConfigError, match=r"bytes of shared memory are needed, [\d,]+ are available"):
        Table.create("big", DTYPE, capacity=1 << 40)


def test_the_columns_travel_as_plain_values() -> None:
    dtype = np.dtype([("a", ">i4"), ("b", [("c", "f8", (2, 3)), ("d", "S5")], (2,)), ("e", "?")], align=True)
    columns = Columns("t", dtype)
    travelled = msgspec.msgpack.decode(msgspec.msgpack.encode(columns.description))
    assert Columns.from_description("t", travelled).dtype == columns.dtype


@pytest.mark.parametrize(
    "described", [[["a", "O", []]], [["a", "what", []]], [[1, "f8", []]], [["a", 8, []]], [["a"]], 5, [], [5]]
)
def test_a_foreign_description_is_refused(described: Any) -> None:
    with pytest.raises(ConfigError):
        Columns.from_description("t", described)


# -- order, loss, ends


def test_rows_come_in_order_and_losses_are_counted_exactly() -> None:
    with Table.create("t", DTYPE, capacity=8) as table, table.writer() as writer:
        early, late = table.reader(start="new", name="early"), None
        for value in range(1, 21):
            assert writer.append(row(value)) == value
            if value == 18:
                late = table.reader(start="oldest", name="late")
        assert late is not None
        rows = early.read()
        assert rows["value"].tolist() == list(range(13, 21))
        assert early.row_ids.tolist() == list(range(13, 21))
        assert (early.lost, early.row_id, early.lag) == (12, 20, 0)
        assert late.read(max_rows=3)["value"].tolist() == [13, 14, 15]
        assert (late.lost, late.lag) == (2, 5)  # rows 11 and 12 were there when it came
        assert late.latest(2)["value"].tolist() == [19, 20]
        assert late.read(max_rows=1)["value"].tolist() == [16]
        assert late.latest(100)["value"].tolist() == list(range(13, 21))
        assert len(early.read()) == 0
        by_name = {reader.name: reader for reader in table.statistics().readers}
        assert (by_name["early"].cursor, by_name["early"].lost, by_name["late"].lag) == (20, 12, 4)
        early.close()
        late.close()


@pytest.mark.parametrize("count", [1, 7, 8, 9, 100])
def test_a_batch_may_be_longer_than_the_table(count: int) -> None:
    with Table.create("t", DTYPE, capacity=8) as table, table.writer() as writer, table.reader() as reader:
        assert writer.append(rows_of(np.arange(1, count + 1), table.dtype)) == count
        rows = reader.read()
        check(rows)
        assert rows["value"].tolist() == list(range(max(1, count - 7), count + 1))
        assert reader.lost == max(0, count - 8)
        assert writer.append(rows_of(np.arange(0), table.dtype)) == count


def test_an_empty_table_gives_empty_arrays() -> None:
    with Table.create("t", DTYPE, capacity=8) as table, table.reader() as reader:
        assert (len(reader.latest(3)), reader.read().dtype, reader.row_id) == (0, table.dtype, 0)
        before = time.monotonic()
        assert len(reader.read(timeout_s=0.05)) == 0
        assert time.monotonic() - before >= 0.05


def test_a_closed_table_gives_what_is_left_then_says_so() -> None:
    table = Table.create("t", DTYPE, capacity=8)
    writer, reader = table.writer(), table.reader()
    writer.append(row(1))
    table.close()
    table.close()
    with pytest.raises(RingClosedError, match="'t' is closed"):
        writer.append(row(2))
    assert reader.read()["value"].tolist() == [1]
    with pytest.raises(RingClosedError):
        reader.read(timeout_s=None)
    for end in (writer, reader):
        end.close()
        end.close()
    with pytest.raises(ClosedError):
        reader.read()
    with pytest.raises(ClosedError):
        table.writer()


def test_only_the_newest_writer_may_append() -> None:
    with Table.create("t", DTYPE, capacity=8) as table, table.writer() as old:
        old.append(row(1))
        with table.writer() as new:
            assert new.append(row(2)) == 2
            with pytest.raises(RingClosedError, match="another writer"):
                old.append(row(3))
            assert new.row_id == 2


def test_sixteen_readers_and_no_more_and_a_closed_one_makes_room() -> None:
    with Table.create("t", DTYPE, capacity=8) as table:
        readers = [table.reader(name=f"r{i}") for i in range(16)]
        with pytest.raises(ConfigError, match=r"16 readers already \(r0, r1"):
            table.reader()
        readers.pop(3).close()
        assert len(table.statistics().readers) == 15
        readers.append(table.reader(name="later"))
        for reader in readers:
            reader.close()


@pytest.mark.parametrize("arguments", [{"start": "middle"}, {"pid": 0}, {"row": 5}, {"pid": -3}])
def test_wrong_arguments_of_a_reader_are_refused(arguments: dict[str, Any]) -> None:
    with Table.create("t", DTYPE, capacity=8) as table, pytest.raises(ConfigError):
        table.assign_reader(**{"pid": os.getpid(), **arguments})


def test_a_handle_of_something_else_is_refused_and_its_descriptors_are_closed() -> None:
    with Table.create("t", DTYPE, capacity=8) as table, Table.create("u", [("a", "u8")], capacity=99) as other:
        meta, fds = table.assign_reader(pid=os.getpid())
        wrong = [(meta, other.assign_reader(pid=os.getpid())[1]), ({**meta, "kind": "ring-reader"}, fds), ({}, fds)]
        before = len(os.listdir("/proc/self/fd"))
        for some_meta, some_fds in wrong:
            with pytest.raises(ConfigError):
                TableReader.from_handle(some_meta, [os.dup(fd) for fd in some_fds])
        assert len(os.listdir("/proc/self/fd")) == before


def test_fifty_tables_leave_nothing() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        with Table.create("t", DTYPE, capacity=8) as table, table.writer() as writer, table.reader() as reader:
            writer.append(row(1))
            assert len(reader.read()) == 1
    assert len(os.listdir("/proc/self/fd")) == before


# -- waiting


def test_a_wait_is_interrupted_runs_the_callback_and_goes_on() -> None:
    with Table.create("t", DTYPE, capacity=8) as table, table.writer() as writer, table.reader() as reader:
        bell, calls = _os.create_bell(), []

        def heard() -> None:
            _os.clear_bell(bell)
            calls.append(1)
            if len(calls) == 2:
                writer.append(row(5))

        reader.interrupt_with(bell, heard)
        _os.ring_bell(bell)
        before = time.monotonic()
        assert len(reader.read(timeout_s=0.05)) == 0
        assert time.monotonic() - before >= 0.05
        _os.ring_bell(bell)
        assert reader.read(timeout_s=20.0)["value"].tolist() == [5]
        assert len(calls) == 2

        def stop() -> None:
            raise KeyboardInterrupt

        reader.interrupt_with(bell, stop)
        _os.ring_bell(bell)
        with pytest.raises(KeyboardInterrupt):
            reader.read(timeout_s=20.0)
        os.close(bell)


def test_no_wake_up_is_lost_between_two_processes(start: Callable[..., subprocess.Popen[str]]) -> None:
    rounds = 5000
    with Table.create("there", DTYPE, capacity=8) as there, Table.create("back", DTYPE, capacity=8) as back:
        child = start("echo", there.assign_reader(pid=os.getpid()), back.assign_writer(pid=os.getpid()), count=rounds)
        with there.writer() as writer, back.reader() as reader:
            assert first_line(child) == {"ready": True}
            for value in range(1, rounds + 1):
                writer.append(row(value))
                answer = reader.read(timeout_s=20.0)
                assert answer["value"].tolist() == [value], "a wake-up was lost"
            assert reader.lost == 0
        said(child)


def test_closing_wakes_a_waiting_reader(start: Callable[..., subprocess.Popen[str]]) -> None:
    table = Table.create("t", DTYPE, capacity=8)
    child = start("read", table.assign_reader(pid=os.getpid()), until=1)
    assert first_line(child) == {"ready": True}
    table.close()
    child.wait(timeout=20)  # with the closed error; it would wait for 20 s otherwise and say another one
    assert child.returncode == 1


# -- many processes


def test_eight_readers_in_processes_of_their_own_account_for_every_row(start: Callable[..., subprocess.Popen[str]]) -> None:
    total = 200_000
    with Table.create("t", DTYPE, capacity=4096) as table:
        readers = [
            start("read", table.assign_reader(pid=os.getpid(), name=f"r{i}"), until=total, pause_reads=i % 3) for i in range(8)
        ]
        for child in readers:
            assert first_line(child) == {"ready": True}
        said(start("flood", table.assign_writer(pid=os.getpid()), first=1, count=total, batch=500))
        for child in readers:
            (answer,) = said(child)
            assert answer["delivered"] + answer["lost"] == total == answer["row_id"]


def test_an_overrun_reader_sees_no_torn_row_and_exact_counts(start: Callable[..., subprocess.Popen[str]]) -> None:
    total = 400_000
    with Table.create("t", DTYPE, capacity=16) as table:
        reader = start("read", table.assign_reader(pid=os.getpid()), until=total, pause_reads=1)
        assert first_line(reader) == {"ready": True}
        said(start("flood", table.assign_writer(pid=os.getpid()), first=1, count=total, batch=1000))
        (answer,) = said(reader)
        assert answer["delivered"] + answer["lost"] == total
        assert answer["lost"] > 0


def test_long_rows_that_are_overwritten_while_read_are_lost_not_torn(
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    total = 60_000
    with Table.create("t", [("fill", "u8", (1000,))], capacity=2) as table:
        reader = start("read_wide", table.assign_reader(pid=os.getpid()), until=total)
        assert first_line(reader) == {"ready": True}
        said(start("flood_wide", table.assign_writer(pid=os.getpid()), count=total))
        (answer,) = said(reader)
        assert answer["delivered"] + answer["lost"] == total
        assert min(answer["delivered"], answer["lost"]) > 0


def _append_ten(writer: TableWriter) -> None:
    for value in range(1, 11):
        writer.append(row(value))


def _sum(reader: TableReader, answer: Any) -> None:
    rows = reader.read(timeout_s=20.0, max_rows=10)
    while reader.row_id < 10:
        rows = np.concatenate([rows, reader.read(timeout_s=20.0)])
    answer.send(int(rows["value"].sum()))


def test_both_ends_can_be_given_to_spawned_children_and_are_theirs_then() -> None:
    context = multiprocessing.get_context("spawn")
    with Table.create("t", DTYPE, capacity=64) as table:
        writer, reader = table.writer(), table.reader()
        mine, theirs = context.Pipe()
        children = [context.Process(target=_append_ten, args=(writer,)), context.Process(target=_sum, args=(reader, theirs))]
        for child in children:
            child.start()
        with pytest.raises(ClosedError, match="given to a child"):
            writer.append(row(1))
        with pytest.raises(ClosedError, match="given to a child"):
            reader.read()
        writer.close()
        reader.close()
        assert mine.poll(60)
        assert mine.recv() == 55
        for child in children:
            child.join(20)
            assert child.exitcode == 0
            child.close()
        mine.close()
        theirs.close()
    resource_tracker._resource_tracker._stop()  # multiprocessing's own helper process, which it keeps for later


def test_a_forked_child_is_refused() -> None:
    with Table.create("t", DTYPE, capacity=8) as table, table.writer() as writer, table.reader() as reader:
        pid = os.fork()
        if pid == 0:
            code = 0
            for use in (lambda: writer.append(row(1)), reader.read, lambda: reader.latest(1)):
                try:
                    use()
                    code = 1
                except ScopeStateError:
                    pass
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert writer.append(row(1)) == 1


# -- death


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("point", WRITER_POINTS)
def test_a_writer_killed_between_any_two_steps_leaves_whole_rows_and_its_successor_goes_on(
    point: str, batch: int, kill_point_core: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    env = {"MUTOSCOPE_CORE_LIBRARY": str(kill_point_core)}
    with Table.create("t", DTYPE, capacity=40) as table, table.reader() as reader:
        sleeper = start("read", table.assign_reader(pid=os.getpid(), name="sleeper"), until=10**9)
        assert first_line(sleeper) == {"ready": True}
        seen, next_value, acknowledged = [], 1, []
        for nth in (1, 1, 1) if point == "rung" else (1, 4, 7):
            until(lambda: sleeps(sleeper) and table.statistics().readers[1].lag == 0)
            killed = start(
                "write",
                table.assign_writer(pid=os.getpid()),
                env={**env, "MUTOSCOPE_KILL_POINT": f"table.{point}:{nth}"},
                first=next_value,
                count=50 * batch,
                batch=batch,
            )
            answers = said(killed, code=-signal.SIGKILL)
            acknowledged += [answer["acknowledged"] for answer in answers]
            table.writer_died()
            rows = reader.read()
            check(rows)
            seen += list(zip(reader.row_ids.tolist(), rows["value"].tolist(), strict=True))
            next_value = seen[-1][1] + 1 if seen else 1
        assert [row_id for row_id, _ in seen] == list(range(1, len(seen) + 1)), "row ids have a gap or came twice"
        values = [value for _, value in seen]
        assert values == list(range(1, len(values) + 1)), "a row is missing, torn or there twice"
        assert set(acknowledged) <= set(values), "an acknowledged row is gone"
        assert reader.lost == 0
        until(lambda: table.statistics().readers[1].lag == 0)  # the sleeping one was woken for the last row


def test_a_row_that_a_dead_writer_began_over_an_old_one_is_counted_as_lost(
    kill_point_core: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    env = {"MUTOSCOPE_CORE_LIBRARY": str(kill_point_core), "MUTOSCOPE_KILL_POINT": "table.filling:28"}
    with Table.create("t", DTYPE, capacity=8) as table, table.reader() as reader:
        child = start("write", table.assign_writer(pid=os.getpid()), env=env, first=1, count=20)
        assert len(said(child, code=-signal.SIGKILL)) == 9  # three words a row: it died in row 10, which lies where row 2 did
        rows = reader.read()
        check(rows)
        assert rows["value"].tolist() == [3, 4, 5, 6, 7, 8, 9]
        assert (reader.lost, reader.row_id) == (2, 9)
        table.writer_died()
        with table.writer() as writer:
            assert writer.append(row(10)) == 10
        assert reader.read()["value"].tolist() == [10]


@pytest.mark.parametrize("point", READER_POINTS)
def test_a_reader_killed_while_it_writes_its_account_leaves_the_old_or_the_new_one(
    point: str, kill_point_core: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    env = {"MUTOSCOPE_CORE_LIBRARY": str(kill_point_core), "MUTOSCOPE_KILL_POINT": f"table.{point}:3"}
    with Table.create("t", DTYPE, capacity=8) as table, table.writer() as writer:
        meta, fds = table.assign_reader(pid=os.getpid(), name="first")
        writer.append(rows_of(np.arange(1, 13), table.dtype))  # four are lost before it begins
        said(start("take", (meta, fds), env=env, max_rows=2, times=5), code=-signal.SIGKILL)
        table.reader_died(meta["row"], keep=True)
        expected = 10 if point == "account_flipped" else 8
        (account,) = table.statistics().readers
        assert (account.cursor, account.lost) == (expected, 4)
        successor = start("take", table.assign_reader(pid=os.getpid(), name="second", row=meta["row"]), max_rows=9, times=1)
        assert said(successor) == [{"values": list(range(expected + 1, 13)), "lost": 4}]


def test_the_row_of_a_dead_reader_is_given_again(start: Callable[..., subprocess.Popen[str]]) -> None:
    with Table.create("t", DTYPE, capacity=8) as table:
        children = [start("read", table.assign_reader(pid=os.getpid(), name=f"r{i}"), until=1) for i in range(2)]
        for child in children:
            assert first_line(child) == {"ready": True}
        others = [table.reader() for _ in range(14)]
        children[0].kill()
        children[0].wait()
        with table.reader(name="freed by itself"):
            children[1].kill()
            children[1].wait()
            (dead,) = [reader.row for reader in table.statistics().readers if reader.name == "r1"]
            table.reader_died(dead)
            with table.reader(name="freed by its owner"), table.writer() as writer:
                assert writer.append(row(1)) == 1
        for reader in others:
            reader.close()


def test_random_kills_of_a_flooding_writer(start: Callable[..., subprocess.Popen[str]]) -> None:
    with Table.create("t", DTYPE, capacity=256) as table, table.reader() as reader:
        last = delivered = 0
        for round_number in range(8):
            child = start("flood", table.assign_writer(pid=os.getpid()), first=1, count=10**9, batch=37)
            before, goal = last, 20_000 + 1000 * round_number
            while last < before + goal:
                rows = reader.read(timeout_s=20.0)
                check(rows)
                assert len(rows)
                assert reader.row_ids[0] > last
                last, delivered = int(reader.row_ids[-1]), delivered + len(rows)
            child.kill()
            child.wait()
            table.writer_died()
            rows = reader.read()
            check(rows)
            delivered, last = delivered + len(rows), reader.row_id
            assert delivered + reader.lost == last == table.statistics().appended
