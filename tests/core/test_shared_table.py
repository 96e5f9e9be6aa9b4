"""Counters in shared memory: a model, full buckets, many writers, and death at any instruction."""

import ctypes
import os
import random
import signal
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb._core._testing_shared_table import NEVER, OVERFLOW, WAYS, Probe
from fastlb._core.shm import Segment

MAX, MIN = 2**63 - 1, -(2**63)
ONE_BUCKET = WAYS // 2  # a table of so many entries has one bucket
PTRACE_TRACEME, PTRACE_CONT, PTRACE_SINGLESTEP = 0, 7, 9
libc = ctypes.CDLL(None, use_errno=True)


def test_a_new_key_begins_at_nothing(segment: Segment) -> None:
    table = Probe(segment, "t", 100)
    assert table.get(1, 50) is None
    assert table.incr(1, 5, 60, 50) == 5
    assert table.incr(1, -7, 60, 60) == -2
    assert table.get(1, 60) == -2
    assert table.get(2, 60) is None
    assert table.stats(60) == (1, 0)


def test_the_window_is_that_of_the_first_count(segment: Segment) -> None:
    table = Probe(segment, "t", 100)
    table.incr(1, 1, 60, 100)
    table.incr(1, 1, 60, 159)
    assert table.get(1, 159) == 2
    assert table.get(1, 160) is None
    assert table.incr(1, 1, 60, 160) == 1
    assert table.get(1, 219) == 1


def test_set_begins_a_window_of_its_own(segment: Segment) -> None:
    table = Probe(segment, "t", 100)
    table.set(1, 7, 60, 100)
    table.set(1, 8, 60, 150)
    assert table.get(1, 209) == 8
    assert table.get(1, 210) is None
    table.set(1, 9, NEVER, 300)
    assert table.get(1, 2**62) == 9
    assert table.incr(1, 1, 5, 2**62) == 10  # and incr leaves it its end
    assert table.get(1, 2**63) == 10


def test_no_sum_wraps(segment: Segment) -> None:
    table = Probe(segment, "t", 100)
    table.set(1, MAX, NEVER, 1)
    assert table.incr(1, 1, 5, 1) == OVERFLOW
    assert table.get(1, 1) == MAX
    assert table.incr(1, MIN, 5, 1) == -1
    assert table.incr(1, MIN, 5, 1) == OVERFLOW
    table.set(2, MIN, NEVER, 1)
    assert table.incr(2, -1, 5, 1) == OVERFLOW
    assert table.incr(2, 0, 5, 1) == MIN
    assert table.incr(2, MAX, 5, 1) == -1


def test_delete(segment: Segment) -> None:
    table = Probe(segment, "t", 100)
    assert not table.delete(1, 10)
    table.incr(1, 5, 60, 10)
    assert table.delete(1, 20)
    assert not table.delete(1, 20)
    table.incr(1, 5, 60, 20)
    assert not table.delete(1, 80)  # it is over


def test_a_full_bucket_drops_what_ends_first(segment: Segment) -> None:
    table = Probe(segment, "t", ONE_BUCKET)
    for number in range(WAYS):
        table.set(number, number, 1000 - number if number else NEVER, 100)
    table.incr(99, 1, 2000, 100)
    assert table.get(WAYS - 1, 100) is None
    assert table.get(WAYS - 2, 100) == WAYS - 2
    assert table.stats(100) == (WAYS, 1)
    table.incr(98, 1, 2000, 1100)  # what is over makes room, and is no eviction
    assert table.stats(1100)[1] == 1
    for number in range(200, 200 + WAYS):
        table.set(number, 1, NEVER, 100)
    assert table.stats(100)[0] == WAYS  # even when none ever ends
    assert table.get(200 + WAYS - 1, 100) == 1


def test_as_many_as_asked_for_fit(segment: Segment) -> None:
    table = Probe(segment, "t", 20_000)
    for number in range(20_000):
        table.set(number, number, 50, 10)
    entries, evictions = table.stats(10)
    assert entries + evictions == 20_000
    assert evictions < 60


def test_bounds(segment: Segment) -> None:
    assert Probe.bytes_for(0) == 0
    assert Probe.bytes_for(16_777_217) == 0
    for size in (1, 7, 8, 9, 1000, 65536, 16_777_216):
        assert Probe.bytes_for(size) >= size * 64
    Probe(segment, "one", 1).incr(1, 1, 1, 1)


def test_other_memory_is_no_table(segment: Segment) -> None:
    Probe(segment, "t", 100)
    offset, count = segment.find("t") or (0, 0)
    assert Probe.opens(segment, offset, count)
    assert not Probe.opens(segment, offset, count - 1)
    assert not Probe.opens(segment, offset, 10)
    assert not Probe.opens(segment, segment.allocate("zero", 1, count), count)


def test_a_copy_keeps_values_and_ends(segment: Segment) -> None:
    old, new = Probe(segment, "old", 500), Probe(segment, "new", 100)
    for number in range(80):
        old.set(number, number, 60 + number, 100)
    old.set(500, 1, 10, 100)
    new.set(3, 1000, 60, 100)
    old.copy_to(new, 120)
    assert new.get(3, 120) == 1000
    assert new.get(500, 109) is None
    assert new.entries(120) == old.entries(120) | {key_of(new, 3): (1000, 160)}


def key_of(table: Probe, number: int) -> bytes:
    table.set(number, 1000, 60, 100)
    rows: dict[bytes, tuple[int, int]] = table.entries(0)
    return next(key for key, row in rows.items() if row == (1000, 160))


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("incr"),
            st.integers(0, 12),
            st.sampled_from([1, -1, 5, MAX, MIN]) | st.integers(MIN, MAX),
            st.sampled_from([1, 2, 10, NEVER]),
        ),
        st.tuples(
            st.just("set"),
            st.integers(0, 12),
            st.integers(MIN, MAX),
            st.sampled_from([1, 2, 10, NEVER]),
        ),
        st.tuples(st.just("delete"), st.integers(0, 12), st.just(0), st.just(0)),
        st.tuples(st.just("wait"), st.integers(0, 5), st.just(0), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=150)
@given(STEPS, st.sampled_from([ONE_BUCKET, 100]))
def test_as_a_dictionary_with_a_clock(steps: list[tuple[str, int, int, int]], size: int) -> None:
    with Segment.create() as segment:
        table = Probe(segment, "t", size)
        model: dict[int, tuple[int, int]] = {}
        now = 1000
        for what, key, value, life in steps:
            now += key if what == "wait" else 0
            model = {k: row for k, row in model.items() if row[1] > now}
            old = model.get(key)
            if what == "incr":
                total = (old[0] if old else 0) + value
                got = table.incr(key, value, life, now)
                if MIN <= total <= MAX:
                    assert got == total
                    model[key] = (total, old[1] if old else min(now + life, NEVER))
                else:
                    assert got == OVERFLOW
            elif what == "set":
                table.set(key, value, life, now)
                model[key] = (value, min(now + life, NEVER))
            elif what == "delete":
                assert table.delete(key, now) == (old is not None)
                model.pop(key, None)
            for number in range(13):
                row = model.get(number)
                expected = row[0] if row and row[1] > now else None
                assert table.get(number, now) == expected
        assert table.stats(now)[1] == 0  # thirteen keys fit into a bucket


# ---- processes ----


def fork(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


def test_many_processes_lose_no_count(segment: Segment) -> None:
    table = Probe(segment, "t", 100)
    acks = segment.allocate("acks", 1, 64)
    times = 40_000
    children = [fork(lambda n=n: table.hammer(acks, n, 2, times)) for n in range(6)]  # type: ignore[misc]
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0
    assert table.get(0, 1) == table.get(1, 1) == 6 * times // 2


def test_kills_lose_nothing_but_the_count_under_way(segment: Segment) -> None:
    table = Probe(segment, "t", 100)
    kills = 120
    acks = segment.allocate("acks", 1, 8 * (kills + 2))
    draw = random.Random(7)
    children = [fork(lambda n=n: table.hammer(acks, n, 1, 2**40)) for n in range(2)]  # type: ignore[misc]
    try:
        for number in range(kills):
            time.sleep(draw.uniform(0.0005, 0.002))
            os.kill(children[0], signal.SIGKILL)
            _, status = os.waitpid(children.pop(0), 0)
            assert os.WIFSIGNALED(status)
            children.append(fork(lambda n=number: table.hammer(acks, n + 2, 1, 2**40)))  # type: ignore[misc]
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    noted = sum(noted_of(segment, acks, kills + 2))
    counted = table.get(0, 1)
    assert counted is not None
    assert noted <= counted <= noted + kills + 2
    assert noted > 10_000


def noted_of(segment: Segment, offset: int, count: int) -> list[int]:
    at = segment.address(offset)
    return list((ctypes.c_uint64 * count).from_address(at))


def ptrace(request: int, pid: int) -> None:
    if libc.ptrace(request, pid, None, None) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def stopped_by(pid: int) -> int | None:
    _, status = os.waitpid(pid, 0)
    return os.WSTOPSIG(status) if os.WIFSTOPPED(status) else None


def each_state(probe: Probe, operation: str, *arguments: int) -> Iterator[tuple[int, bytes]]:
    """Steps a child through one operation; yields (its pid, memory) at each change."""

    def work() -> None:
        ptrace(PTRACE_TRACEME, 0)
        probe.between_stops(operation, *arguments)

    pid = fork(work)
    assert stopped_by(pid) == signal.SIGSTOP
    last = b""
    while True:
        memory = probe.snapshot()
        if memory != last:
            yield pid, memory
            last = memory
        ptrace(PTRACE_SINGLESTEP, pid)
        if stopped_by(pid) == signal.SIGSTOP:
            break
    yield pid, probe.snapshot()
    ptrace(PTRACE_CONT, pid)
    assert stopped_by(pid) is None


NOW = 100
OPERATIONS = {
    "count-new": (3, ("incr", 7, 5, 60, NOW)),
    "count-more": (3, ("incr", 1, 5, 60, NOW)),
    "count-over-ended": (3, ("incr", 1, 5, 60, 10_000)),
    "count-evicts": (WAYS, ("incr", 77, 5, 60, NOW)),
    "set-new": (3, ("set", 7, 5, 60, NOW)),
    "set-again": (3, ("set", 1, 5, 60, NOW)),
    "delete": (3, ("delete", 1, 0, 0, NOW)),
    "get": (3, ("get", 1, 0, 0, NOW)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_death_at_every_instruction(segment: Segment, name: str) -> None:
    """Each entry has a value from before or after; none is torn, invented or there twice."""
    filled, operation = OPERATIONS[name]
    now = operation[4]
    table, twin = Probe(segment, "t", ONE_BUCKET), Probe(segment, "twin", ONE_BUCKET)
    for number in range(filled):
        table.set(number, number, 1000 + number, NOW)
    before = table.entries(now)
    states = list(each_state(table, *operation))
    after = table.entries(now)
    assert len(states) > 3
    for pid, memory in states:
        twin.overwrite(memory)
        twin.end_process(pid)
        twin.get(1, now)  # waits for ever if the lock is not taken over
        state = twin.entries(now)
        for key in before.keys() & after.keys():
            assert state[key][0] in (before[key][0], after[key][0])
            assert state[key][1] in (before[key][1], after[key][1])
        for key in state.keys() - (before.keys() & after.keys()):
            assert state[key] in (before.get(key), after.get(key))
        for number in range(100, 100 + WAYS):  # as many fit as ever
            twin.set(number, number, NEVER, now)
        assert twin.stats(now)[0] == WAYS
    assert states[-1][1] == table.snapshot()
