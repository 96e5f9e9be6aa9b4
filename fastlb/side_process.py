"""Processes beside this one whose end a thread waits for: each ends in time, or when nobody needs
its result any more, with all that it has started and left behind.
"""

import contextlib
import os
import select
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from typing import Any

RESULT_BYTES_MAX = 16 << 20

_running: set[subprocess.Popen[bytes]] = set()  # none of them reaped yet
_lock = threading.Lock()


def run(command: Sequence[str], seconds: float, **options: Any) -> int | None:
    """Its exit status; None: it did not end in time. `options` are those of Popen, and OSError is
    what that raises."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0, **options)
    with _lock:
        _running.add(process)
    try:
        in_time = _wait(process, seconds)
    finally:
        with _lock:
            _running.discard(process)
            _kill(process)
            status = process.wait()
    return status if in_time else None


def abort() -> None:
    """Ends those that run: nobody waits for their results any more."""
    with _lock:
        for process in _running:
            _kill(process)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether it has ended in time; it is not reaped, so that its number stays its own."""
    pidfd = os.pidfd_open(process.pid)
    try:
        return ends_within(pidfd, seconds)
    finally:
        os.close(pidfd)


def ends_within(pidfd: int, seconds: float) -> bool:
    """Whether that process ends in time; it is not reaped. Any descriptor will do, as it would not
    for select(2)."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Also what it has started and left behind."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def memory(name: str) -> Iterator[int]:
    """For its result: unlike a pipe, what others hold open keeps nobody waiting."""
    fd = os.memfd_create(f"fastlb-{name}", os.MFD_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def read(fd: int) -> str:
    return os.pread(fd, RESULT_BYTES_MAX, 0).decode(errors="replace")
