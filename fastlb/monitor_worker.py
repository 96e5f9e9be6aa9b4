"""The process in which the functions of monitors run.

    python -m fastlb.monitor_worker DIRECTORY SOCKET_FD MODULE:FUNCTION ...

One line of JSON for each check that is wanted, one for what came of it. A function that holds the
process instead of awaiting is named, and the process ends: those of other nodes have waited for it.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from fastlb.monitor_health import Pulse
from fastlb.rule_loader import Finder, RuleLoadError, find_check, install

HELD_S = 2.0  # the longest that a function may hold the process
LOOK_S = 0.1  # between two looks of the thread that sees to it
HELD_SHARE = 4  # a time-out counts if the process was held for less than timeout / this
LINE_BYTES_MAX = 64 << 10
REASON_CHARS_MAX = 150


class CheckedNode(NamedTuple):
    """What a function is given."""

    address: str  # IP address
    port: int
    pool: str
    name: str  # the host name that it was found by, else its address


Function = Callable[[CheckedNode], Awaitable[bool]]


class Worker:
    """The checks under way."""

    def __init__(self, directory: str, fd: int, names: list[str]) -> None:
        self.finder: Finder = install(directory)
        self.socket = socket.socket(fileno=fd)
        self.lock = threading.Lock()
        self.functions: dict[str, Function | str] = {}  # or why it cannot be had
        for name in names:
            try:
                self.functions[name] = find_check(self.finder, name)
            except RuleLoadError as error:
                self.functions[name] = str(error)
        self.pulse = Pulse(time.monotonic())
        self.beat = time.monotonic()
        self.tasks: dict[asyncio.Task[Any], int] = {}

    async def run(self) -> None:
        """Until the other side closes."""
        self.loop = asyncio.get_running_loop()
        threading.Thread(target=self._watch, daemon=True).start()
        beating = self.loop.create_task(self._beat())
        reader, _ = await asyncio.open_connection(sock=self.socket.dup(), limit=LINE_BYTES_MAX)
        while line := await reader.readline():
            wanted = json.loads(line)
            if "id" in wanted:
                task = self.loop.create_task(self._check(wanted))
                self.tasks[task] = wanted["id"]
                task.add_done_callback(lambda done: self.tasks.pop(done, None))
            elif self.finder.is_changed():
                self._say({"changed": True})
                return
        beating.cancel()

    async def _check(self, wanted: dict[str, Any]) -> None:
        function, limit = self.functions[wanted["function"]], wanted["timeout"]
        if isinstance(function, str):
            self._say({"id": wanted["id"], "void": function})
            return
        held = self.pulse.held_s(time.monotonic())
        said: dict[str, Any]
        try:
            async with asyncio.timeout(limit) as timeout:
                said = verdict(await function(CheckedNode(**wanted["node"])))
        except TimeoutError as error:
            said = {"good": False, "reason": f"no answer within {limit:g} s"}
            if not timeout.expired():
                said["reason"] = shown(error)
            elif self.pulse.held_s(time.monotonic()) - held > limit / HELD_SHARE:
                said = {"void": "another function held the process"}
        except Exception as error:
            said = {"good": False, "reason": shown(error)}
        self._say({"id": wanted["id"], **said})

    def _say(self, said: dict[str, Any]) -> None:
        data = json.dumps(said).encode() + b"\n"
        with self.lock:
            self.socket.setblocking(True)
            self.socket.sendall(data)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(Pulse.PERIOD_S)
            self.beat = time.monotonic()
            self.pulse.beat(self.beat)

    def _watch(self) -> None:
        """In a thread: looks whether the loop turns."""
        looked = time.monotonic()
        while True:
            time.sleep(LOOK_S)
            now = time.monotonic()
            if now - looked > HELD_S:
                self.beat = now  # the whole process stood still
            looked = now
            if now - self.beat > HELD_S:
                self._end_of_held()

    def _end_of_held(self) -> None:
        task = asyncio.current_task(self.loop)
        number = self.tasks.get(task) if task is not None else None
        if number is not None:
            frame = sys._current_frames().get(threading.main_thread().ident or 0)
            where = place(traceback.extract_stack(frame), self.finder.directory)
            reason = f"holds its process for more than {HELD_S:g} s{where}: it must await"
            self._say({"id": number, "good": False, "reason": reason})
        os._exit(1)


def verdict(value: object) -> dict[str, Any]:
    """What a function has returned."""
    if value is True:
        return {"good": True, "reason": "the function says so"}
    if value is False:
        return {"good": False, "reason": "the function says no"}
    return {"good": False, "reason": f"returned {ascii(value)[:60]}, expected True or False"}


def shown(error: BaseException) -> str:
    """An exception with the place where it was raised."""
    text = " ".join(traceback.format_exception_only(error)[-1].split())[:REASON_CHARS_MAX]
    frames = traceback.extract_tb(error.__traceback__)
    return text + place(frames, "")


def place(frames: traceback.StackSummary, directory: str) -> str:
    """` at checks.py:12`: the innermost line of the operator's."""
    own = [one for one in frames if directory and one.filename.startswith(f"{directory}/")]
    own = own or [one for one in frames if one.filename != __file__]
    return f" at {os.path.basename(own[-1].filename)}:{own[-1].lineno}" if own else ""


def main(arguments: list[str]) -> int:
    """Ends at once, whatever threads were left behind."""
    directory, fd, *names = arguments
    # What the terminal or a group's signal tells the control process is not for this one.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    sys.modules["fastlb.monitor_worker"] = sys.modules["__main__"]
    with contextlib.suppress(OSError):  # the other side has gone in the middle of something
        asyncio.run(Worker(directory, int(fd), names).run())
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
