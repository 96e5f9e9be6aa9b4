"""The sockets at which a new control process finds the workers of the one before.

STATE_DIR/workers/N.sock is the listening socket of the worker with column N, which heeds it only
while it has no control process. They are bound through the directory's descriptor, so that the
length of its path is no matter.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

DIRECTORY = "workers"
SUFFIX = ".sock"
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
    with suppress(OSError):
        os.unlink(directory(state_dir) / f"{column}{SUFFIX}")


def columns(state_dir: Path) -> list[int]:
    """Those of which there is a file."""
    try:
        names = [path.stem for path in directory(state_dir).iterdir() if path.suffix == SUFFIX]
    except OSError:
        return []
    return sorted(int(name) for name in names if name.isdecimal())


def connect(state_dir: Path, column: int, timeout_s: float) -> socket.socket | None:
    """A connection to that worker; None: it has ended, and its file is removed."""
    one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    one.settimeout(timeout_s)
    try:
        with _near(directory(state_dir)) as near:
            one.connect(f"{near}/{column}{SUFFIX}")
    except (ConnectionRefusedError, FileNotFoundError):
        one.close()
        remove(state_dir, column)
        return None
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
