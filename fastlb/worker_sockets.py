"""The sockets at which a new control process finds the workers of the one before.

STATE_DIR/workers/N.sock is the listening socket of the worker with column N, which heeds it only
while it has no control process. They are bound through the directory's descriptor, so that the
length of its path is no matter. STATE_DIR/workers/N.pid says which process that is, for when it
does not answer.
"""

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fastlb.state_file import open_regular

DIRECTORY = "workers"
SUFFIX = ".sock"
PID_SUFFIX = ".pid"
PID_BYTES_MAX = 64
PROGRAM = b"fastlb.worker_main"  # in the command line of every worker
BACKLOG = 8


def directory(state_dir: Path) -> Path:
    return state_dir / DIRECTORY


def make_directory(state_dir: Path) -> Path:
    """For this user alone. Raises OSError."""
    path = directory(state_dir)
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def listen(state_dir: Path, column: int) -> socket.socket:
    """For a worker to inherit; a file of a worker before is removed. Raises OSError."""
    make_directory(state_dir)
    remove(state_dir, column)
    one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)
    try:
        one.setblocking(False)
        with _near(directory(state_dir)) as near:
            one.bind(f"{near}/{column}{SUFFIX}")
        one.listen(BACKLOG)
    except OSError:
        one.close()
        raise
    finally:
        os.umask(before)
    return one


def remove(state_dir: Path, column: int) -> None:
    """Of a worker that has ended; whom a file that stays leads to nobody answers."""
    for suffix in (SUFFIX, PID_SUFFIX):
        with suppress(OSError):
            os.unlink(directory(state_dir) / f"{column}{suffix}")


def note(state_dir: Path, column: int, pid: int) -> None:
    """Which process it is; where that cannot be written, it is not known later."""
    path = directory(state_dir) / f"{column}{PID_SUFFIX}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(OSError):
        path.unlink(missing_ok=True)
        fd = os.open(path, flags, 0o644)  # root may write what the user of [proxy] reads
        try:
            os.write(fd, f"{pid} {_began(pid)}\n".encode())
        finally:
            os.close(fd)


def noted(state_dir: Path, column: int) -> int | None:
    """The worker's pid; None: it is not known, or it is another process by now."""
    try:
        fd = open_regular(directory(state_dir) / f"{column}{PID_SUFFIX}", os.O_NOFOLLOW)
        try:
            pid, began = map(int, os.read(fd, PID_BYTES_MAX).split())
        finally:
            os.close(fd)
        return pid if _began(pid) == began and is_worker(state_dir, pid) else None
    except (OSError, ValueError):
        return None


def is_worker(state_dir: Path, pid: int, users: Iterable[int] = ()) -> bool:
    """Whether it is a worker, of the user whose directory this is or of one of `users`."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
        owner = directory(state_dir).stat().st_uid
    except OSError:
        return False
    (uids,) = (line.split()[1:] for line in status.splitlines() if line.startswith("Uid:"))
    return PROGRAM in words and int(uids[0]) in (owner, *users)


def _began(pid: int) -> int:
    """When a process was started, in clock ticks since the machine's. Raises OSError."""
    return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19])


def columns(state_dir: Path) -> list[int]:
    """Those of which there is a file."""
    try:
        names = [path.stem for path in directory(state_dir).iterdir() if path.suffix == SUFFIX]
    except OSError:
        return []
    return sorted(int(name) for name in names if name.isdecimal())


def connect(state_dir: Path, column: int, timeout_s: float) -> socket.socket | None:
    """A connection to that worker; None: it has ended, and its file is removed.

    Raises BlockingIOError or TimeoutError where it takes none.
    """
    one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    one.settimeout(timeout_s)
    try:
        with _near(directory(state_dir)) as near:
            one.connect(f"{near}/{column}{SUFFIX}")
    except (ConnectionRefusedError, FileNotFoundError):
        one.close()
        remove(state_dir, column)
        return None
    except (BlockingIOError, TimeoutError):  # others ask already, and it heeds nobody
        one.close()
        raise
    except OSError:
        one.close()
        return None
    return one


@contextmanager
def _near(path: Path) -> Iterator[str]:
    """A short path to a directory, while it is needed."""
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
