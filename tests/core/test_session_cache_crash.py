"""A worker may die at any instruction: no map is lost, no lock stays held, no list breaks.

Two ways to show it. Exhaustively: an operation is executed one machine instruction at a
time, and after each one the shared memory is copied to a second cache where the locks are
marked as the kernel marks a dead holder's; then that cache is repaired, checked and used.
And for real: processes that hammer one cache are killed at random moments.
"""

import ctypes
import os
import random
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from fastlb._core._testing_session_cache import Probe
from fastlb._core.session_store import Cache
from fastlb._core.shm import Segment

PTRACE_TRACEME, PTRACE_CONT, PTRACE_SINGLESTEP = 0, 7, 9
Maps = dict[bytes, bytes]
libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def segment() -> Iterator[Segment]:
    with Segment.create() as made:
        yield made


def fork(work: Callable[[], None]) -> int:
    """A child that does `work` and ends: 0 when it returned."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


def ptrace(request: int, pid: int) -> None:
    if libc.ptrace(request, pid, None, None) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def stopped_by(pid: int) -> int | None:
    """The signal that stopped a traced child; None once it has ended."""
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
        stop = stopped_by(pid)
        if stop == signal.SIGSTOP:  # the operation has returned
            break
        assert stop == signal.SIGTRAP
    yield pid, probe.snapshot()
    ptrace(PTRACE_CONT, pid)
    assert stopped_by(pid) is None


class Twin:
    """A second cache of the same size, in which a state of the first is continued."""

    def __init__(self, segment: Segment, size: int, name: str = "twin") -> None:
        self.probe = Probe(segment, name, size)
        self.cache = Cache.open(segment, name)

    def after_death(self, pid: int, memory: bytes) -> Maps:
        """The maps of the repaired cache; its structure was found right."""
        self.probe.overwrite(memory)
        self.probe.end_process(pid)
        self.cache.verify()
        return self.probe.maps()


SIZE = 4
NOW = 100
# what happens first, the operation (name, key, node, now, expiry)
OPERATIONS = {
    "store-in-empty": ([], ("store", 1, 9, NOW, 0)),
    "store-beside-others": ([1, 2], ("store", 3, 9, NOW, 0)),
    "store-in-freed": ([1, 2, 3, 4, -2], ("store", 5, 9, NOW, 0)),
    "store-evicts": ([1, 2, 3, 4], ("store", 5, 9, NOW, 0)),
    "store-moves-address": ([1, 2, 3], ("store", 2, 9, NOW, 0)),
    "store-same": ([1, 2, 3], ("store", 1, 1, NOW, 0)),
    "claim-new": ([1, 2], ("claim", 3, 9, NOW, 50)),
    "claim-lost": ([1, 2, 3], ("claim", 1, 9, NOW, 500)),
    "claim-over-expired": ([1, 2, 3], ("claim", 1, 9, NOW, 50)),
    "hit-tail": ([1, 2, 3], ("lookup", 1, 0, NOW, 0)),
    "hit-middle": ([1, 2, 3], ("lookup", 2, 0, NOW, 0)),
    "hit-head": ([1, 2, 3], ("lookup", 3, 0, NOW, 0)),
    "miss": ([1, 2, 3], ("lookup", 7, 0, NOW, 0)),
    "expired-head": ([1, 2, 3], ("lookup", 3, 0, NOW, 10)),
    "expired-only-one": ([1], ("lookup", 1, 0, NOW, 10)),
    "delete-middle": ([1, 2, 3], ("delete", 2, 0, NOW, 0)),
    "flush": ([1, 2, 3, 4], ("flush", 0, 0, NOW, 0)),
}


def prepare(probe: Probe, steps: list[int]) -> None:
    for step in steps:
        if step > 0:
            probe.store(step, step, abs(step))
        else:
            probe.delete(-step)


def check_state(before: Maps, after: Maps, state: Maps) -> None:
    """Each map is as before the operation or as after it; none is lost, torn or invented."""
    for key in before.keys() & after.keys():
        assert state[key] in (before[key], after[key])
    for key, address in state.items():
        assert address in (before.get(key), after.get(key))


@pytest.mark.parametrize("name", OPERATIONS)
def test_death_at_every_instruction(segment: Segment, name: str) -> None:
    steps, operation = OPERATIONS[name]
    probe = Probe(segment, "c", SIZE)
    twin = Twin(segment, SIZE)
    prepare(probe, steps)
    before = probe.maps()
    states = list(each_state(probe, *operation))
    after = probe.maps()
    assert len(states) > 5
    for pid, memory in states:
        check_state(before, after, twin.after_death(pid, memory))
        twin.probe.flush()
        twin.probe.fill(100, SIZE, NOW)  # no entry was leaked: as many maps fit as ever
        assert twin.cache.stats(NOW).entries == SIZE
    assert twin.after_death(*states[-1]) == after


def test_death_at_every_instruction_of_the_repair(segment: Segment) -> None:
    """The process that repairs may die as well, at any instruction of the repair."""
    for name in ("store-evicts", "expired-head", "store-moves-address", "store-in-freed"):
        steps, operation = OPERATIONS[name]
        probe = Probe(segment, name, SIZE)
        second = Probe(segment, name + "/2", SIZE)
        twin = Twin(segment, SIZE, name + "/3")
        prepare(probe, steps)
        before = probe.maps()
        states = list(each_state(probe, *operation))
        after = probe.maps()
        for pid, memory in random.Random(name).sample(states, 12):
            second.overwrite(memory)
            second.end_process(pid)
            for repairer, again in each_state(second, "repair", 0, 0, 0, 0):
                check_state(before, after, twin.after_death(repairer, again))


def test_death_between_two_shards(segment: Segment) -> None:
    """An entry changes hands under two locks; wherever that stops, it has one owner."""
    size = 4097
    probe = Probe(segment, "c", size)
    twin = Twin(segment, size)
    probe.fill(0, size, 50)
    stranger = next(n for n in range(10_000, 99_999) if probe.shard_of(n) == 1)
    for number in range(size):  # the new map's shard is in use, all others are old
        if probe.shard_of(number) == 1:
            probe.lookup(number, NOW)
    before = probe.maps()
    own = sum(probe.shard_of(n) == 1 for n in range(size))
    states = list(each_state(probe, "store", stranger, 9, NOW, 0))
    after = probe.maps()
    assert len(probe.order(1)) == own + 1  # it did take another shard's entry
    assert len(after) == size
    for pid, memory in states:
        state = twin.after_death(pid, memory)
        check_state(before, after, state)
        assert len(state) >= size - 1
    assert twin.after_death(*states[-1]) == after


def test_a_zombie_holds_no_lock(segment: Segment) -> None:
    """The holder need not be reaped, nor its parent alive, for the lock to be had."""
    probe = Probe(segment, "c", SIZE)
    probe.store(1, 1, 1)

    def work() -> None:
        ptrace(PTRACE_TRACEME, 0)
        probe.between_stops("store", 2, 2, 2, 0)

    pid = fork(work)
    assert stopped_by(pid) == signal.SIGSTOP
    for _ in range(2000):
        ptrace(PTRACE_SINGLESTEP, pid)
        assert stopped_by(pid) == signal.SIGTRAP
        if int.from_bytes(probe.snapshot()[128 + 320 : 128 + 324], "little") == pid:
            break
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert probe.dead_locks() == 1
    assert probe.lookup(1, 3) == ("hit", 1)
    assert probe.dead_locks() == 0
    os.waitpid(pid, 0)


# ---- real kills ----

WORKERS = 2
KEYS = 96
SHARED_KEYS = 200
ROUNDS = 20_000_000  # a child that nobody kills ends by itself


def kill_again_and_again(start: Callable[[int, int], int], kills: int, seed: int) -> None:
    """Keeps WORKERS children running and kills one of them every few milliseconds."""
    draw = random.Random(seed)
    children = {worker: start(worker, worker) for worker in range(WORKERS)}
    try:
        for number in range(kills):
            time.sleep(draw.uniform(0.0005, 0.003))
            worker = draw.randrange(WORKERS)
            os.kill(children[worker], signal.SIGKILL)
            _, status = os.waitpid(children[worker], 0)
            assert os.WIFSIGNALED(status), "a child saw a wrong answer"
            children[worker] = start(worker, WORKERS + number)
    finally:
        for pid in children.values():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def hammer_durable(segment: Segment, size: int, kills: int) -> None:
    probe = Probe(segment, "c", size)
    acks = segment.allocate("acks", 1, WORKERS * KEYS * 4)

    def start(worker: int, seed: int) -> int:
        def work() -> None:
            assert not probe.hammer_durable(segment, acks, worker, KEYS, SHARED_KEYS, seed, ROUNDS)

        return fork(work)

    kill_again_and_again(start, kills, size)
    assert probe.check_durable(segment, acks, WORKERS, KEYS) == []
    Cache.open(segment, "c").verify()
    assert Cache.open(segment, "c").stats(0).evictions == 0


def hammer_evicting(segment: Segment, size: int, kills: int) -> None:
    probe = Probe(segment, "c", size)

    def start(worker: int, seed: int) -> int:
        def work() -> None:
            assert not probe.hammer_evicting(3 * size, seed, ROUNDS)

        return fork(work)

    kill_again_and_again(start, kills, size)
    cache = Cache.open(segment, "c")
    cache.verify()
    probe.fill(1_000_000, size, 0)
    assert cache.stats(0).entries == size
    cache.verify()


@pytest.mark.parametrize("size", [WORKERS * KEYS + SHARED_KEYS, 4097])
def test_no_stored_map_is_lost(segment: Segment, size: int) -> None:
    hammer_durable(segment, size, 100)


@pytest.mark.parametrize("size", [50, 4097])
def test_full_caches_stay_whole(segment: Segment, size: int) -> None:
    hammer_evicting(segment, size, 60)


def test_kills_do_hit_holders_of_locks(segment: Segment) -> None:
    """Otherwise the tests above would show nothing."""
    probe = Probe(segment, "c", 50)
    dead = 0
    for seed in range(60):
        pid = fork(lambda seed=seed: probe.hammer_evicting(150, seed, ROUNDS))  # type: ignore[misc]
        time.sleep(0.002 + seed / 50_000)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        dead += probe.dead_locks()
        Cache.open(segment, "c").verify()
    assert dead >= 5


@pytest.mark.deep
@pytest.mark.parametrize("size", [WORKERS * KEYS + SHARED_KEYS, 4097, 20_000])
def test_no_stored_map_is_lost_in_thousands_of_kills(segment: Segment, size: int) -> None:
    hammer_durable(segment, size, 4000)


@pytest.mark.deep
@pytest.mark.parametrize("size", [10, 50, 4097, 20_000])
def test_full_caches_stay_whole_in_thousands_of_kills(segment: Segment, size: int) -> None:
    hammer_evicting(segment, size, 3000)
