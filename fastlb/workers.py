"""The worker processes: started, given plans, replaced when they die, stopped."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fastlb import channel, errors, log, reserve
from fastlb._core.node import clear_worker_column
from fastlb._core.stats import retire_worker
from fastlb.access_log import AccessLog
from fastlb.channel import Kind, Message
from fastlb.listeners import Listeners
from fastlb.segment import SharedSegment
from fastlb.slots import ListenerKey

COMMAND = (sys.executable, "-m", "fastlb.worker_main")
CRASHES_MAX = 5  # in a row, each within SHORT_LIFE_S, before the next start waits
SHORT_LIFE_S = 10.0
NO_PLAN = "could not use the configuration"
DELAY_MIN_S, DELAY_MAX_S = 0.5, 5.0
RETRY_S = 0.2  # for a worker that does not read its channel
KILL_AFTER_S = 2.0  # a worker that was told to stop at once


@dataclass(frozen=True)
class CurrentPlan:
    """The plan in force."""

    generation: int
    fd: int  # sealed memory file
    listeners: tuple[tuple[int, ListenerKey], ...]  # by listener id


@dataclass
class Worker:
    """One running worker process."""

    index: int
    process: subprocess.Popen[bytes]
    pidfd: int
    channel: socket.socket
    listeners: set[int] = field(default_factory=set)  # ids that it has
    sent: int = 0  # generation
    acknowledged: int = 0
    refused: int = 0  # generation that it cannot use
    released: int = 0  # oldest generation that its requests may still use
    stopping: bool = False
    started: float = field(default_factory=time.monotonic)

    @property
    def pid(self) -> int:
        return self.process.pid


def how_it_ended(status: int) -> str:
    """`was killed by SIGSEGV` or `ended with exit status 1`."""
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


class Workers:
    """All workers; `changed` is called whenever one acknowledges, releases or ends."""

    def __init__(
        self,
        count: int,
        segment: SharedSegment,
        listeners: Listeners,
        access_log: AccessLog,
        changed: Callable[[], None],
        command: tuple[str, ...] = COMMAND,
    ) -> None:
        self.count = count
        self.segment = segment
        self.listeners = listeners
        self.access_log = access_log
        self.changed = changed
        self.command = command
        self.running: dict[int, Worker] = {}
        self.restarts = [0] * count
        self.failed_starts = 0  # workers that ended before any acknowledged a plan
        self.last_end = ""
        self._plan: CurrentPlan | None = None
        self._crashes = [0] * count  # in a row
        self._delayed: dict[int, asyncio.TimerHandle] = {}
        self._ever_ready = False
        self._stopping = False

    # --- plans ---

    def use(self, plan: CurrentPlan) -> None:
        """Gives the plan to every worker, and to each one that is started from now on."""
        self._plan = plan
        for index in range(self.count):
            if index in self.running:
                self._send_plan(self.running[index])
            elif index not in self._delayed and not self._stopping:
                self._start(index)

    def all_acknowledged(self, generation: int) -> bool:
        """Whether every worker runs by this plan or a later one."""
        return len(self.running) == self.count and all(
            worker.acknowledged >= generation for worker in self.running.values()
        )

    def all_answered(self, generation: int) -> bool:
        """Whether every worker has taken this plan over, or cannot."""
        return len(self.running) == self.count and all(
            max(worker.acknowledged, worker.refused) >= generation
            for worker in self.running.values()
        )

    def refusals(self, generation: int) -> list[str]:
        """A line for each worker that cannot use this plan."""
        return [
            errors.PLAN_REFUSED.line(index=worker.index, pid=worker.pid, generation=generation)
            for worker in self.running.values()
            if worker.refused == generation
        ]

    def all_released(self, generation: int) -> bool:
        """Whether no request in any worker uses a plan older than this one."""
        return len(self.running) == self.count and all(
            worker.released >= generation for worker in self.running.values()
        )

    def use_log(self, access_log: AccessLog) -> None:
        """Gives another access log to every worker; the one before is closed."""
        self.access_log.close()
        self.access_log = access_log
        if access_log.fd >= 0:
            for worker in self.running.values():
                message = Message(Kind.LOG, int(access_log.is_syslog), 0)
                self._send(worker, message, (access_log.fd,))

    def _send_plan(self, worker: Worker) -> None:
        plan = self._plan
        if plan is None or worker.stopping or worker.sent == plan.generation:
            return
        entries: list[tuple[int, int | None]] = []
        for number, key in plan.listeners:
            one = self.listeners.open[key.address].of_worker(worker.index)
            entries.append((number, None if number in worker.listeners else one.fileno()))
        try:
            channel.send_plan(worker.channel, plan.generation, plan.fd, entries)
        except BlockingIOError:
            asyncio.get_running_loop().call_later(RETRY_S, self._send_plan, worker)
            return
        except OSError:
            return  # it has ended, which its pidfd tells
        worker.sent = plan.generation
        worker.listeners = {number for number, _ in entries}

    def _send(self, worker: Worker, message: Message, fds: tuple[int, ...] = ()) -> bool:
        try:
            channel.send(worker.channel, message, fds=fds)
        except OSError:
            return False
        return True

    # --- life and death ---

    def _start(self, index: int) -> None:
        self._delayed.pop(index, None)
        try:
            worker = reserve.with_reserve(lambda: self._started(index))
        except OSError as error:
            how = f"{self.command[0]}: {error.strerror or error}"
            if not self._ever_ready:
                self.failed_starts = sys.maxsize  # it will not get better by trying
            self._later(index, f"cannot be started ({how})", DELAY_MAX_S)
            return
        self.running[index] = worker
        loop = asyncio.get_running_loop()
        loop.add_reader(worker.pidfd, self._ended, worker)
        loop.add_reader(worker.channel, self._heard, worker)
        self._send_plan(worker)

    def _started(self, index: int) -> Worker:
        """The process. Raises OSError."""
        ours, theirs = channel.socket_pair()
        pidfd = -1
        fds = [self.segment.fd, theirs.fileno()]
        if self.access_log.fd >= 0:
            fds.append(self.access_log.fd)
        arguments = (index, *fds[:2], self.access_log.fd, int(self.access_log.is_syslog))
        try:
            process = subprocess.Popen(
                [*self.command, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=fds,
                process_group=0,  # the terminal's signals are the control process's
            )
            try:
                pidfd = os.pidfd_open(process.pid)
            except OSError:
                process.kill()
                process.wait()
                raise
        finally:
            theirs.close()
            if pidfd < 0:
                ours.close()
        return Worker(index, process, pidfd, ours)

    def _heard(self, worker: Worker) -> None:
        try:
            message = channel.receive(worker.channel)
        except BlockingIOError:
            return
        if message is None:
            asyncio.get_running_loop().remove_reader(worker.channel)
        elif message.kind == Kind.ACK:
            worker.acknowledged = max(worker.acknowledged, message.generation)
            self._ever_ready = True
            self.changed()
        elif message.kind == Kind.REFUSED:
            worker.refused = message.generation
            self.changed()
            log.error(
                errors.PLAN_REFUSED.line(
                    index=worker.index, pid=worker.pid, generation=message.generation
                )
            )
            if not worker.acknowledged:
                worker.process.terminate()  # it serves nothing; the next one may do better
        elif message.kind == Kind.RELEASED:
            worker.released = max(worker.released, message.generation)
            self.changed()

    def _ended(self, worker: Worker) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(worker.pidfd)
        loop.remove_reader(worker.channel)
        os.close(worker.pidfd)
        worker.channel.close()
        status = worker.process.wait()
        index = worker.index
        del self.running[index]
        clear_worker_column(self.segment.address(self.segment.node_table), index)
        retire_worker(self.segment.address(self.segment.counters[index]))
        if not self._stopping:
            idle = worker.refused and not worker.acknowledged
            self._replace(worker, NO_PLAN if idle else how_it_ended(status))
        self.changed()

    def _replace(self, worker: Worker, how: str) -> None:
        index = worker.index
        lived = time.monotonic() - worker.started
        crashes = self._crashes[index] = 1 if lived > SHORT_LIFE_S else self._crashes[index] + 1
        self.last_end = how
        self.restarts[index] += 1
        log.warn(errors.WORKER_DIED.line(index=index, pid=worker.pid, how=how))
        if crashes <= CRASHES_MAX:
            self.failed_starts += not self._ever_ready
            self._start(index)
            return
        self._later(
            index,
            f"has ended {crashes} times, each within {SHORT_LIFE_S:g} s of its start",
            min(DELAY_MIN_S * 2 ** (crashes - CRASHES_MAX - 1), DELAY_MAX_S),
        )

    def _later(self, index: int, why: str, delay_s: float) -> None:
        """Starts a worker after a while, and says so."""
        self.last_end = why
        self.failed_starts += not self._ever_ready
        log.warn(errors.WORKER_BACKOFF.line(index=index, why=why, delay=delay_s))
        loop = asyncio.get_running_loop()
        self._delayed[index] = loop.call_later(delay_s, self._start, index)
        loop.call_soon(self.changed)

    # --- the end ---

    def stop(self, drain_ms: int) -> None:
        """Tells every worker to finish what it has within `drain_ms`; none is replaced."""
        self._stopping = True
        for later in self._delayed.values():
            later.cancel()
        self._delayed.clear()
        for worker in self.running.values():
            worker.stopping = True
            if not self._send(worker, Message(Kind.STOP, 0, drain_ms)):
                worker.process.terminate()

    def kill(self) -> None:
        """Ends what is left."""
        for worker in self.running.values():
            log.warn(errors.STOPPED_HARD.line(index=worker.index, pid=worker.pid))
            worker.process.kill()

    def kill_and_reap(self) -> None:
        """Ends all at once, outside the loop's ways: for a start that failed."""
        self._stopping = True
        for later in self._delayed.values():
            later.cancel()
        for worker in list(self.running.values()):
            worker.process.kill()
            self._ended(worker)
