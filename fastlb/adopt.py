"""Finding the workers of a control process that is gone, and what they have.

Each is asked at its socket in the state directory. It answers with the shared memory, the plan
that it runs by and its listening sockets; the connection is its channel from then on. Closed
without a word it is as if nobody had asked.
"""

import os
import signal
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fastlb import channel, errors, log, manifest, worker_sockets
from fastlb._core.shm import Segment, SharedMemoryError
from fastlb._core.stats import read_worker
from fastlb.channel import Entry, Hello
from fastlb.errors import StartError
from fastlb.in_force import InForce
from fastlb.manifest import Manifest
from fastlb.segment import SharedSegment
from fastlb.side_process import ends_within
from fastlb.worker_process import Worker

ANSWER_S = 5.0  # for all workers together
KILLED_S = 5.0  # for a process to end that is killed


@dataclass
class Found:
    """A worker without a control process, and what it has shown."""

    hello: Hello
    pidfd: int
    channel: socket.socket
    sockets: list[tuple[Entry, socket.socket]] = field(default_factory=list)

    @property
    def wrote(self) -> Manifest | None:
        """What the control process wrote down with its plan."""
        return manifest.read(self.hello.plan) if self.hello.plan is not None else None

    def as_worker(self, foreign: bool) -> Worker:
        """For `Workers`, which from then on owns its channel."""
        os.close(self.hello.segment)
        self.close_plan()
        self.channel.setblocking(False)
        return Worker(
            self.hello.column,
            self.hello.pid,
            self.pidfd,
            self.channel,
            foreign=foreign,
            sockets=set() if foreign else {entry for entry, _ in self.sockets},
            acknowledged=0 if foreign else self.hello.generation,
            stopping=self.hello.stopping,
        )

    def close_plan(self) -> None:
        if self.hello.plan is not None:
            os.close(self.hello.plan)

    def close(self) -> None:
        """Leaves it alone again."""
        self.channel.close()
        os.close(self.pidfd)
        os.close(self.hello.segment)
        self.close_plan()
        for _, one in self.sockets:
            one.close()


def find(state_dir: Path, patience_s: float = ANSWER_S) -> tuple[list[Found], list[int]]:
    """All that answer, and the columns of those that do not; files of those that ended are
    removed. Where nobody answers, all have more time: with the last one their memory is lost.
    """
    began = time.monotonic()
    found: list[Found] = []
    silent: dict[int, socket.socket | None] = {}
    for column in worker_sockets.columns(state_dir):
        left = began + ANSWER_S - time.monotonic()
        try:
            one = worker_sockets.connect(state_dir, column, max(left, 0.1))
        except (BlockingIOError, TimeoutError):
            silent[column] = None
            continue
        if one is not None:
            silent[column] = one
    _hear(state_dir, silent, found, began + ANSWER_S)
    if silent and not found and patience_s > ANSWER_S:
        log.info(f"workers serve already and do not answer; they have {patience_s:g} s for it")
        _hear(state_dir, silent, found, began + patience_s)
    for one in silent.values():
        if one is not None:
            one.close()
    return found, sorted(silent)


def _hear(
    state_dir: Path, silent: dict[int, socket.socket | None], found: list[Found], end: float
) -> None:
    """Those that answer are found."""
    for column, one in list(silent.items()):
        answer = _listen_to(state_dir, one, end) if one is not None else None
        if answer is not None:
            del silent[column]
            found.append(answer)


def end_silent(
    state_dir: Path, segment: SharedSegment | None, columns: list[int], seconds: float = ANSWER_S
) -> None:
    """Ends workers that have not answered for so long: they cannot be told anything, and have
    listening sockets.

    Raises StartError when it is not known which processes they are.
    """
    for column, pid in pids_of(state_dir, segment, columns).items():
        log.warn(errors.WORKER_SILENT.line(index=column, pid=pid, seconds=f"{seconds:g}"))
        with suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            try:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                ends_within(pidfd, KILLED_S)
            finally:
                os.close(pidfd)


def pids_of(
    state_dir: Path, segment: SharedSegment | None, columns: Iterable[int]
) -> dict[int, int]:
    """Of workers that do not answer. Raises StartError when they are not known."""
    known: dict[int, int] = {}
    for column in columns:
        pid = worker_sockets.noted(state_dir, column)
        if pid is None and segment is not None:
            pid = _pid_of(state_dir, segment, column)
        if pid is None:
            raise StartError(errors.WORKERS_SILENT, seconds=f"{ANSWER_S:g}")
        known[column] = pid
    return known


def _pid_of(state_dir: Path, segment: SharedSegment, column: int) -> int | None:
    """As it has written into shared memory, if that is a worker still."""
    if column >= segment.columns:
        return None
    pid = int(read_worker(segment.address(segment.counters[column]))["pid"])
    return pid if worker_sockets.is_worker(state_dir, pid) else None


def _listen_to(state_dir: Path, one: socket.socket, end: float) -> Found | None:
    """What a worker shows; None: it does not answer in time, or not as a worker does."""
    try:
        one.settimeout(max(end - time.monotonic(), 0.1))
        hello = channel.receive_hello(one)
    except OSError:
        return None
    if hello is None:
        return None
    try:
        pidfd = os.pidfd_open(hello.pid)
    except (OSError, OverflowError):
        pidfd = -1
    if pidfd < 0 or not worker_sockets.is_worker(state_dir, hello.pid, (0, os.geteuid())):
        for fd in (hello.segment, hello.plan, pidfd):
            if fd is not None and fd >= 0:
                os.close(fd)
        return None
    found = Found(hello, pidfd, one)
    with suppress(OSError):
        while len(found.sockets) < hello.sockets:
            some = channel.receive_held(one)
            if not some:
                break
            found.sockets += some
    if len(found.sockets) == hello.sockets:
        return found
    found.close()
    return None


def newest(found: Iterable[Found]) -> Manifest | None:
    """What the control process wrote down last; for workers that stay before all for others."""
    read = [(not each.hello.stopping, each.wrote) for each in found]
    return max(
        ((stays, one) for stays, one in read if one is not None),
        key=lambda pair: (pair[0], pair[1].generation),
        default=(False, None),
    )[1]


def generation(found: Iterable[Found]) -> int:
    """The highest that any worker has seen; those to come are above it."""
    return max((one.hello.generation for one in found), default=0)


def drain_s(found: Iterable[Found]) -> float:
    """The drain time of the configuration that they run by."""
    wrote = newest(found)
    return wrote.drain_ms / 1000 if wrote is not None else 0.0


def by_memory(found: Iterable[Found]) -> list[list[Found]]:
    """Those that use the same shared memory, together; first of all those that stay.

    There are several memories while workers leave whose own could not be gone on with.
    """
    groups: dict[tuple[int, int], list[Found]] = {}
    for one in found:
        status = os.fstat(one.hello.segment)
        groups.setdefault((status.st_dev, status.st_ino), []).append(one)
    return sorted(
        groups.values(),
        key=lambda group: (any(not one.hello.stopping for one in group), generation(group)),
        reverse=True,
    )


def resumed(
    found: Iterable[Found], workers: int, scratch: Path
) -> tuple[InForce, list[Found]] | None:
    """Everything as workers have it, and whose it is; None: all are of a version with another
    memory. The others are foreign, and leave."""
    for group in by_memory(found):
        wrote = newest(group)
        if wrote is None or wrote.layout != manifest.layout():
            continue
        try:
            attached = Segment.attach(group[0].hello.segment)
            segment = SharedSegment(workers, attached, wrote.epoch_ms)
            force = InForce(workers, scratch, segment)
            force.resume(wrote)
        except (SharedMemoryError, ValueError, LookupError) as error:
            log.warn(errors.NOT_RESUMED.line(reason=error))
            continue
        return force, group
    return None


def sockets_of(
    found: Iterable[Found], inherited: Iterable[tuple[int, int]]
) -> list[tuple[int, socket.socket]]:
    """All listening sockets, by their numbers; they are the caller's from now on."""
    shown = [(entry.number, one) for each in found for entry, one in each.sockets]
    return [*((number, socket.socket(fileno=fd)) for number, fd in inherited), *shown]


def columns_to_leave(
    found: Iterable[Found], resumed: list[Found], places: Iterable[int]
) -> set[int]:
    """Columns of workers that have no place, or leave it."""
    stay = {one.hello.column for one in resumed if not one.hello.stopping}
    return {one.hello.column for one in found} - (stay & set(places))
