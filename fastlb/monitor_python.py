"""Type "python": functions of the operator, which run in a process of their own (monitor_worker).

What that process does, or fails to do, is no node's fault: it may crash, block or be killed, and
the checks that it had are not done. It ends with this one.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from fastlb import errors, log
from fastlb.config import Config
from fastlb.monitor_link import Failed, NotDone, Target

GRACE_S = 5.0  # beyond a check's own time, for the process to say what became of it
DELAY_MIN_S, DELAY_MAX_S = 0.5, 30.0
LONG_LIFE_S = 10.0  # after which an end is no reason to wait
LINE_BYTES_MAX = 64 << 10
COMMAND = (sys.executable, "-m", "fastlb.monitor_worker")

Said = dict[str, Any]


class Functions:
    """The process and its checks under way."""

    def __init__(self) -> None:
        self._directory = ""
        self._names: list[str] = []
        self._process: Process | None = None
        self._delay_s = 0.0
        self._not_before = 0.0

    def use(self, cfg: Config) -> None:
        """Another configuration; the process stays if its modules read as before."""
        used = {name for pool in cfg.pools.values() for name in pool.monitors}
        names = sorted(
            {f for name, m in cfg.monitors.items() if name in used and (f := m.function)}
        )
        directory = str(cfg.file.absolute().parent)
        if (directory, names) != (self._directory, self._names):
            self.close()
            self._directory, self._names = directory, names
        elif self._process is not None:
            self._process.send({"look": True})
        self._delay_s = self._not_before = 0.0

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.end("its configuration is not in force any more")
            self._process = None

    async def check(self, target: Target) -> str:
        """Raises Failed and NotDone."""
        process = self._running()
        limit = target.monitor.timeout_ms / 1000
        wanted = {
            "function": target.monitor.function,
            "timeout": limit,
            "node": {
                "address": target.key.ip,
                "port": target.key.port,
                "pool": target.key.pool,
                "name": target.name,
            },
        }
        try:
            async with asyncio.timeout(limit + GRACE_S):
                said = await process.ask(wanted)
        except TimeoutError:
            if process.end(how := "does not answer"):
                self._ended(process, how)
            raise NotDone(f"the process of the functions {how}") from None
        if "void" in said:
            raise NotDone(str(said["void"]))
        if not said.get("good"):
            raise Failed(str(said.get("reason")))
        return str(said.get("reason"))

    def _running(self) -> "Process":
        if self._process is not None and self._process.ended is None:
            return self._process
        if time.monotonic() < self._not_before:
            raise NotDone("the process of the functions has ended and waits to be started again")
        try:
            self._process = Process(self._directory, self._names, self._ended)
        except OSError as error:
            raise NotDone(f"no process for the functions: {error.strerror or error}") from None
        return self._process

    def _ended(self, process: "Process", how: str) -> None:
        if process is not self._process:
            return
        self._process = None
        lived_s = time.monotonic() - process.begun
        self._delay_s = min(max(self._delay_s * 2, DELAY_MIN_S), DELAY_MAX_S)
        if lived_s > LONG_LIFE_S:
            self._delay_s = DELAY_MIN_S
        if process.changed:
            self._delay_s = 0.0
        else:
            log.warn(errors.CHECKS_END.line(how=how, delay=self._delay_s))
        self._not_before = time.monotonic() + self._delay_s


class Process:
    """One process; `told` is called at its end, unless that was wanted."""

    def __init__(self, directory: str, names: list[str], told: Any) -> None:
        self.begun = time.monotonic()
        self.told = told
        self.ended: str | None = None  # how
        self.changed = False  # its modules read differently now
        self._calls: dict[int, asyncio.Future[Said]] = {}
        self._number = 0
        self._received = b""
        self._unsent = b""
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [*COMMAND, directory, str(theirs.fileno()), *names],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # as workers have it
                pass_fds=(theirs.fileno(),),
                process_group=0,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self._socket = ours
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(ours, self._heard)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, wanted: Said) -> Said:
        """What the process says of one check."""
        self._number += 1
        number = self._number
        answer = self._calls[number] = self._loop.create_future()
        try:
            self.send({"id": number, **wanted})
            said: Said = await answer
            return said
        finally:
            self._calls.pop(number, None)

    def send(self, message: Said) -> None:
        """One line; what the socket does not take yet waits."""
        if self.ended is None:
            if not self._unsent:
                self._loop.add_writer(self._socket, self._write)
            self._unsent += json.dumps(message).encode() + b"\n"
            self._write()

    def _write(self) -> None:
        try:
            count = self._socket.send(self._unsent) if self._unsent else 0
        except BlockingIOError:
            return
        except OSError:
            count = len(self._unsent)  # it has ended, which reading tells
        self._unsent = self._unsent[count:]
        if not self._unsent:
            self._loop.remove_writer(self._socket)

    def _heard(self) -> None:
        try:
            data = self._socket.recv(LINE_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError, AttributeError, TypeError):  # not ours
                self._take(dict(json.loads(line)))
        if not data or len(self._received) > LINE_BYTES_MAX:
            self._gone()

    def _take(self, said: Said) -> None:
        self.changed = self.changed or "changed" in said
        call = self._calls.get(said.get("id", 0))
        if call is not None and not call.done():
            call.set_result(said)

    def _gone(self) -> None:
        """It has closed its side: it has ended, or is about to."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        status = self._process.wait()
        told = self.told
        how = f"ended with exit status {status}"
        if status < 0:
            with contextlib.suppress(ValueError):
                how = f"was killed by {signal.Signals(-status).name}"
        if self.end(how):
            told(self, how)

    def end(self, how: str) -> bool:
        """No more checks; False: that was so already."""
        if self.ended is not None:
            return False
        self.ended = how
        if not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            for call in self._calls.values():
                if not call.done():
                    call.set_result({"void": f"the process of the functions {how}"})
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._socket.close()
        return True
