"""Segments: regions that come, go and are found by other processes; locks whose holders die."""

import fcntl
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb._core import shm
from fastlb._core._testing_shm import LockProbe, read, write
from fastlb._core.shm import Segment, SharedMemoryError

GIB = 1 << 30


@pytest.fixture
def segment() -> Iterator[Segment]:
    with Segment.create() as made:
        yield made


def test_regions_are_zero_aligned_and_found(segment: Segment) -> None:
    small = segment.allocate("small", 1, 100)
    large = segment.allocate("large", 2, 10_000)
    assert small % 64 == 0
    assert large % 4096 == 0
    assert read(segment, large, 10_000) == bytes(10_000)
    assert segment.find("large") == (large, 10_000)
    assert segment.find("absent") is None
    assert segment.regions() == [("small", 1, small, 100), ("large", 2, large, 10_000)]


def test_another_mapping_sees_the_same_bytes_also_after_growth(segment: Segment) -> None:
    with Segment.attach(segment.fd) as other:
        offset = segment.allocate("later", 1, 5_000_000)
        assert other.find("later") == (offset, 5_000_000)
        write(segment, offset + 4_999_990, b"0123456789")
        assert read(other, offset + 4_999_990, 10) == b"0123456789"


def test_freed_space_is_used_again_and_clean(segment: Segment) -> None:
    segment.allocate("first", 1, 6000)
    middle = segment.allocate("middle", 1, 200_000)
    segment.allocate("last", 1, 6000)
    size = os.fstat(segment.fd).st_size
    write(segment, middle, b"x" * 200_000)
    segment.remove("middle")
    assert segment.find("middle") is None
    assert segment.allocate("again", 1, 150_000) == middle
    assert read(segment, middle, 150_000) == bytes(150_000)
    assert os.fstat(segment.fd).st_size == size


def test_removed_pages_go_back_to_the_system(segment: Segment) -> None:
    segment.allocate("big", 1, 8_000_000)
    held = os.fstat(segment.fd).st_blocks * 512
    segment.remove("big")
    assert os.fstat(segment.fd).st_blocks * 512 <= held - 7_900_000


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 7), st.sampled_from([1, 63, 64, 65, 4095, 4096, 4097, 20_000])),
        max_size=30,
    )
)
@settings(max_examples=30, deadline=None)
def test_regions_never_overlap(steps: list[tuple[int, int]]) -> None:
    with Segment.create() as segment:
        held: dict[str, bytes] = {}
        for number, (which, count) in enumerate(steps):
            name = f"r{which}"
            if name in held:
                segment.remove(name)
                del held[name]
            else:
                offset = segment.allocate(name, 1, count)
                assert read(segment, offset, count) == bytes(count)
                held[name] = bytes([number + 1]) * count
                write(segment, offset, held[name])
            for other, content in held.items():
                place = segment.find(other)
                assert place is not None
                assert read(segment, *place) == content


@pytest.mark.parametrize("name", ["", "x" * 64, "a\0b"])
def test_bad_names(segment: Segment, name: str) -> None:
    with pytest.raises(SharedMemoryError, match="name has 1 to 63 bytes"):
        segment.allocate(name, 1, 10)


def test_refusals_name_their_reason(segment: Segment, monkeypatch: pytest.MonkeyPatch) -> None:
    segment.allocate("x" * 63, 1, 10)
    with pytest.raises(SharedMemoryError, match="exists"):
        segment.allocate("x" * 63, 1, 10)
    with pytest.raises(SharedMemoryError, match="would be empty"):
        segment.allocate("y", 1, 0)
    with pytest.raises(SharedMemoryError, match="no region 'y'"):
        segment.remove("y")
    with pytest.raises(SharedMemoryError, match="no room"):
        segment.allocate("y", 1, 65 * GIB)
    monkeypatch.setattr(shm, "_available_bytes", lambda: 1000)
    with pytest.raises(SharedMemoryError, match=r"only 1000 bytes.* Lower the sizes"):
        segment.allocate("y", 1, 1001)


def test_the_directory_is_bounded(segment: Segment) -> None:
    for number in range(512):
        segment.allocate(f"r{number}", 1, 1)
    with pytest.raises(SharedMemoryError, match="no more than 512"):
        segment.allocate("one-more", 1, 1)
    segment.remove("r100")
    segment.allocate("one-more", 1, 1)


def test_a_closed_segment_says_so() -> None:
    segment = Segment.create()
    segment.close()
    segment.close()
    with pytest.raises(SharedMemoryError, match="closed"):
        segment.find("x")
    with pytest.raises(SharedMemoryError, match="closed"):
        segment.allocate("x", 1, 1)


def test_attach_refuses_what_is_no_segment(segment: Segment) -> None:
    with tempfile.TemporaryFile() as file:
        with pytest.raises(SharedMemoryError, match="too short"):
            Segment.attach(file.fileno())
        file.write(bytes(100_000))
        file.flush()
        with pytest.raises(SharedMemoryError, match="wrong magic"):
            Segment.attach(file.fileno())
    write(segment, 8, b"\xff")
    with pytest.raises(SharedMemoryError, match="layout 255"):
        Segment.attach(segment.fd)


def test_descriptors_are_closed() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Segment.create() as segment, Segment.attach(segment.fd):
        pass
    with tempfile.TemporaryFile() as file, pytest.raises(SharedMemoryError):
        Segment.attach(file.fileno())
    del segment
    assert len(os.listdir("/proc/self/fd")) == before


def test_nobody_can_take_its_pages_away() -> None:
    with Segment.create() as segment:
        size = os.fstat(segment.fd).st_size
        for less in (0, size - 1):
            with pytest.raises(PermissionError):
                os.ftruncate(segment.fd, less)
        for more in (fcntl.F_SEAL_GROW, fcntl.F_SEAL_WRITE):  # nor make it stay as it is
            with pytest.raises(PermissionError):
                fcntl.fcntl(segment.fd, fcntl.F_ADD_SEALS, more)
        segment.allocate("a", 1, 1 << 20)
        segment.remove("a")
        assert os.fstat(segment.fd).st_size > size


def test_a_file_in_a_directory_where_there_is_no_memfd() -> None:
    with Segment.create(directory="/dev/shm") as segment, Segment.attach(segment.fd) as other:
        segment.allocate("x", 1, 10_000)
        assert other.find("x") is not None
    with pytest.raises(SharedMemoryError, match="no shared memory: /absent"):
        Segment.create(directory="/absent")


def test_memory_that_cannot_be_had_is_an_error_not_a_signal() -> None:
    program = """
import resource
from fastlb._core.shm import Segment, SharedMemoryError
segment = Segment.create()
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    segment.allocate("x", 1, 4 << 20)
except SharedMemoryError as error:
    print(error)
print(segment.regions())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "cannot reserve 4194304 bytes" in done.stdout
    assert "ulimit -f" in done.stdout
    assert done.stdout.endswith("[]\n")
    assert done.returncode == 0


def test_a_full_file_system_is_an_error_not_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the whole tmpfs, which the kernel refuses at once."""
    disk = os.statvfs("/dev/shm")
    assert disk.f_blocks
    monkeypatch.setattr(shm, "_available_bytes", lambda: None)
    with Segment.create(directory="/dev/shm", window=1024 * GIB) as segment:
        with pytest.raises(SharedMemoryError, match=r"No space left.*shared memory is full"):
            segment.allocate("x", 1, disk.f_blocks * disk.f_frsize + GIB)
        assert segment.regions() == []


def test_little_address_space() -> None:
    program = """
import resource
from fastlb._core.shm import Segment, SharedMemoryError
with open("/proc/self/statm") as numbers:
    allowed = int(numbers.read().split()[0]) * resource.getpagesize() + MORE
resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))
try:
    print(Segment.create().allocate("x", 1, 100))
except SharedMemoryError as error:
    print(error)
"""
    for more, expected in ((8 * GIB, "45"), (GIB // 2, "ulimit -v")):
        done = subprocess.run(
            [sys.executable, "-c", program.replace("MORE", str(more))],
            capture_output=True,
            text=True,
        )
        assert expected in done.stdout, done.stderr
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


# ---- locks ----


@pytest.fixture
def lock(segment: Segment) -> LockProbe:
    probe = LockProbe(segment, segment.allocate("lock", 1, 48))
    assert probe.init() == 0
    return probe


def child(segment: Segment, work: str) -> int:
    """Forks; the child gets the lock by a mapping of its own, does `work`, and waits."""
    pid = os.fork()
    if pid:
        return pid
    try:
        other = Segment.attach(segment.fd)
        place = other.find("lock")
        assert place is not None
        probe = LockProbe(other, place[0])
        probe.acquire()
        if work == "release":
            probe.release()
        write(other, other.find("ready")[0], b"1")
        time.sleep(30)
    finally:
        os._exit(1)


def started(segment: Segment, work: str) -> int:
    ready = segment.allocate("ready", 1, 1)
    pid = child(segment, work)
    deadline = time.monotonic() + 20
    while read(segment, ready, 1) != b"1":
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return pid


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_held_lock_is_busy(segment: Segment, lock: LockProbe) -> None:
    assert lock.acquire() == "ok"
    assert lock.try_it() == "busy"
    lock.release()
    assert lock.try_it() == "ok"
    lock.release()


def test_the_death_of_a_holder_is_told_once(segment: Segment, lock: LockProbe) -> None:
    pid = started(segment, "hold")
    assert lock.try_it() == "busy"
    end(pid)
    assert lock.acquire() == "owner-died"
    lock.repaired()
    lock.release()
    assert lock.acquire() == "ok"
    lock.release()


def test_the_death_of_one_who_released_is_not_told(segment: Segment, lock: LockProbe) -> None:
    end(started(segment, "release"))
    assert lock.try_it() == "ok"
    lock.release()


def test_a_waiter_is_woken_by_the_holders_death(segment: Segment, lock: LockProbe) -> None:
    pid = started(segment, "hold")
    waiter = os.fork()
    if not waiter:
        os._exit(0 if lock.acquire() == "owner-died" else 1)
    time.sleep(0.05)
    end(pid)
    assert os.waitpid(waiter, 0)[1] == 0
    # The waiter ended without lock_repaired: the next one is told again.
    assert lock.try_it() == "owner-died"
    lock.repaired()
    lock.release()


def test_a_lock_excludes(segment: Segment, lock: LockProbe) -> None:
    counter = segment.allocate("counter", 1, 8)
    children = []
    for _ in range(2):
        pid = os.fork()
        if not pid:
            lock.add_many(counter, 200_000)
            os._exit(0)
        children.append(pid)
    lock.add_many(counter, 200_000)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
    assert int.from_bytes(read(segment, counter, 8), "little") == 600_000


def test_the_directory_survives_the_death_of_its_writer(segment: Segment) -> None:
    for delay in range(10):
        pid = os.fork()
        if not pid:
            number = 0
            while True:
                number += 1
                segment.allocate(f"p{os.getpid()}-{number}", 1, 3000)
                if number > 5:
                    segment.remove(f"p{os.getpid()}-{number - 5}")
                if number > 100_000:
                    os._exit(0)
        time.sleep(0.003 + delay / 2000)
        end(pid)
        for name, *_ in segment.regions():
            segment.remove(name)
        assert segment.regions() == []
