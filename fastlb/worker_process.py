"""One worker process as the control process knows it: its own child, or one taken over.

A worker taken over may be the child of another process; then only that it has ended is known.
"""

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field

from fastlb.channel import Entry

SILENT_S = 5.0  # without an answer, after which nobody waits for a worker


@dataclass
class Worker:
    """One running worker process."""

    column: int
    pid: int
    pidfd: int
    channel: socket.socket
    process: subprocess.Popen[bytes] | None = None  # None: taken over
    foreign: bool = False  # of another version, with a segment of its own
    sockets: set[Entry] = field(default_factory=set)  # that it has
    sent: int = 0  # generation
    offered: set[Entry] = field(default_factory=set)  # with that plan: not taken, if refused
    acknowledged: int = 0
    refused: int = 0  # generation that it cannot use
    released: int = 0  # oldest generation that its requests may still use
    stopping: bool = False
    findable: bool = True  # by the next control process: it has a socket for that
    heard: float = field(default_factory=time.monotonic)
    asked: bool = False  # by a PING that is not answered yet
    silent_s: float = 0.0  # since it has last said something (silence.py)
    aborted: bool = False  # for its silence
    started: float = field(default_factory=time.monotonic)

    @property
    def index(self) -> int:
        """How it is named in messages."""
        return self.column

    @property
    def answers(self) -> bool:
        """Whether its loop turns, as far as is known."""
        return self.silent_s < SILENT_S

    def signal(self, number: signal.Signals) -> None:
        """Sent to this process, never to another one that got its number.

        One that was taken over may be another user's, whom this process may not end.
        """
        with suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(self.pidfd, number)

    def reap(self) -> int | None:
        """How it has ended, as subprocess tells it; None: that is not known."""
        if self.process is not None:
            return self.process.wait()
        with suppress(ChildProcessError):
            found = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
            if found is not None:
                exited = found.si_code == os.CLD_EXITED
                return found.si_status if exited else -found.si_status
        return None


def how_it_ended(status: int | None) -> str:
    """`was killed by SIGSEGV` or `ended with exit status 1`."""
    if status is None:
        return "has ended"
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
