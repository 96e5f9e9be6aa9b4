"""Where the access log's lines go: the descriptor that each worker writes to.

A worker never waits for a log. A descriptor that is not this process's alone is opened again,
so that O_NONBLOCK does not show at its other holders.

Root opens a file for a user who may own the directory, and is led nowhere by what that user has put
there: a link counts only where nobody but root can have made it.
"""

import errno
import os
import socket
import stat
from contextlib import suppress
from typing import NamedTuple

from fastlb import errors
from fastlb.errors import StartError

SYSLOG = "/dev/log"
APPEND = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
HERE = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
ROOT = frozenset({0})
LINKS_MAX = 40  # as Linux follows


class AccessLog(NamedTuple):
    """An open log; `fd` -1: none."""

    fd: int
    is_syslog: bool  # a datagram socket, one syslog message (RFC 3164) per line
    is_ours: bool = False  # a file that nobody else can have put there: it may be given away

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


def open_access_log(target: str) -> AccessLog:
    """Opens what `proxy.access_log` says. Raises StartError."""
    if target == "off":
        return AccessLog(-1, False)
    if target == "syslog":
        return AccessLog(_syslog(), True)
    try:
        if target == "stdout":
            return AccessLog(_stdout(), False)
        if os.geteuid() == 0:
            return open_as_root(target)
        return AccessLog(os.open(target, APPEND | os.O_CREAT, 0o640), False)
    except OSError as error:
        reason = error.strerror or error
        raise StartError(errors.LOG_FILE, path=target, reason=reason) from None


def open_as_root(target: str, trusted: frozenset[int] = ROOT) -> AccessLog:
    """A file at a path of which some directories may be other people's than `trusted`."""
    directory, name, is_safe = _walk(target, trusted)
    try:
        if is_safe and _is_proc(directory):
            # A descriptor that this process has; what reads as a link there is none.
            return AccessLog(os.open(name, APPEND, dir_fd=directory), False)
        flags = APPEND | os.O_NOFOLLOW
        with suppress(FileExistsError):
            fd = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o640, dir_fd=directory)
            return AccessLog(fd, False, is_ours=True)
        fd = os.open(name, flags, dir_fd=directory)
        status = os.fstat(fd)
        if not is_safe and status.st_nlink != 1:
            os.close(fd)
            raise OSError(errno.EMLINK, "has another name elsewhere (a hard link); remove it")
        return AccessLog(fd, False, is_ours=is_safe and stat.S_ISREG(status.st_mode))
    finally:
        os.close(directory)


def _walk(path: str, trusted: frozenset[int]) -> tuple[int, str, bool]:
    """The directory that a path leads to, the name in it, and whether all that led there, and what
    bears that name, can have been made by `trusted` alone. Raises OSError at a link of others."""
    left = _names(os.path.abspath(path))
    directory, is_safe, links = os.open("/", HERE), True, 0
    try:
        while True:
            name = left.pop(0)
            is_safe = is_safe and _is_safe(directory, name, trusted)
            link = _link_of(directory, name)
            if link is not None:
                links += 1
                if not is_safe or links > LINKS_MAX:
                    raise OSError(
                        errno.ELOOP,
                        f"{name} is a link where not only root could have put it; "
                        "name the file that it leads to",
                    )
                left = [*_names(link), *left]
                following = os.open("/" if link.startswith("/") else ".", HERE, dir_fd=directory)
            elif left:
                following = os.open(name, HERE, dir_fd=directory)
            else:
                return directory, name, is_safe
            os.close(directory)
            directory = following
    except BaseException:
        os.close(directory)
        raise


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")] or ["."]


def _is_safe(directory: int, name: str, trusted: frozenset[int]) -> bool:
    """Whether only `trusted` can say what bears that name."""
    status = os.fstat(directory)
    if status.st_uid not in trusted:
        return False
    if not status.st_mode & 0o022:
        return True
    with suppress(FileNotFoundError):  # of a sticky directory, what is theirs stays theirs
        owner = os.stat(name, dir_fd=directory, follow_symlinks=False).st_uid
        return bool(status.st_mode & stat.S_ISVTX) and owner in trusted
    return False


def _is_proc(directory: int) -> bool:
    with suppress(OSError):  # there may be none
        return os.fstat(directory).st_dev == os.stat("/proc").st_dev
    return False


def _link_of(directory: int, name: str) -> str | None:
    """Where a link leads; None: it is none, or one of the kernel to an open descriptor."""
    if name.isdecimal() and _is_proc(directory):
        return None
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise


def _stdout() -> int:
    mode = os.fstat(1).st_mode
    if stat.S_ISREG(mode):  # never blocks, and its position is standard error's too
        return os.dup(1)
    if stat.S_ISSOCK(mode):  # cannot be opened again
        fd = os.dup(1)
        os.set_blocking(fd, False)
        return fd
    try:
        return os.open("/proc/self/fd/1", APPEND)
    except OSError:
        return os.dup(1)  # another user's terminal


def _syslog() -> int:
    with socket.socket(
        socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    ) as one:
        try:
            one.connect(SYSLOG)
        except OSError as error:
            reason = error.strerror or error
            raise StartError(errors.NO_SYSLOG, path=SYSLOG, reason=reason) from None
        return one.detach()
