"""Where the access log's lines go: the descriptor that each worker writes to.

A worker never waits for a log. A descriptor that is not this process's alone is opened again,
so that O_NONBLOCK does not show at its other holders.
"""

import os
import socket
import stat
from typing import NamedTuple

from fastlb import errors
from fastlb.errors import StartError

SYSLOG = "/dev/log"
APPEND = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC


class AccessLog(NamedTuple):
    """An open log; `fd` -1: none."""

    fd: int
    is_syslog: bool  # a datagram socket, one syslog message (RFC 3164) per line

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
        return AccessLog(os.open(target, APPEND | os.O_CREAT, 0o640), False)
    except OSError as error:
        reason = error.strerror or error
        raise StartError(errors.LOG_FILE, path=target, reason=reason) from None


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
