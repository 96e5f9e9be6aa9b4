"""The worker processes: started, given plans, replaced when they die, stopped.

A worker is known by its column (columns.py). Those in `running` have the places that are
configured; those in `leaving` go on until others have taken their sockets over, and then as
long as their clients need them, within the drain time.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from fastlb import channel, errors, log, reserve, worker_sockets
from fastlb._core.node import clear_worker_column
from fastlb._core.stats import retire_worker
from fastlb.access_log import AccessLog
from fastlb.channel import LEAVE, SOCKETS_MAX, Entry, Kind, Message
from fastlb.columns import Columns
from fastlb.listeners import Listeners
from fastlb.segment import SharedSegment
from fastlb.slots import ListenerKey
from fastlb.worker_process import Worker, how_it_ended

COMMAND = (sys.executable, "-m", "fastlb.worker_main")
CRASHES_MAX = 5  # in a row, each within SHORT_LIFE_S, before the next start waits
SHORT_LIFE_S = 10.0
NO_PLAN = "could not use the configuration"
DELAY_MIN_S, DELAY_MAX_S = 0.5, 5.0
RETRY_S = 0.2  # for a worker that does not read its channel
KILL_AFTER_S = 2.0  # a worker that was told to stop at once, or whose drain time is over


@dataclass(frozen=True)
class CurrentPlan:
    """The plan in force."""

    generation: int
    fd: int  # sealed memory file
    listeners: tuple[tuple[int, ListenerKey], ...]  # by listener id
    drain_ms: int = 0


class Workers:
    """All workers; `changed` is called whenever one acknowledges, releases or ends."""

    def __init__(
        self,
        columns: Columns,
        state_dir: Path,
        segment: SharedSegment,
        listeners: Listeners,
        access_log: AccessLog,
        changed: Callable[[], None],
        command: tuple[str, ...] = COMMAND,
    ) -> None:
        self.columns = columns
        self.state_dir = state_dir
        self.segment = segment
        self.listeners = listeners
        self.access_log = access_log
        self.changed = changed
        self.command = command
        self.running: dict[int, Worker] = {}
        self.leaving: dict[int, Worker] = {}
        self.restarts: dict[int, int] = {}
        self.failed_starts = 0  # workers that ended before any acknowledged a plan
        self.last_end = ""
        self._plan: CurrentPlan | None = None
        self._crashes: dict[int, int] = {}  # in a row
        self._delayed: dict[int, asyncio.TimerHandle] = {}
        self.ever_ready = False
        self._stopping = False

    @property
    def count(self) -> int:
        """How many there are to be."""
        return len(self.columns.places)

    @property
    def every(self) -> list[Worker]:
        """Those that stay and those that leave."""
        return [*self.running.values(), *self.leaving.values()]

    # --- plans ---

    def use(self, plan: CurrentPlan) -> None:
        """Gives the plan to every worker, and to each one that is started from now on."""
        self._plan = plan
        for column in self.columns.leaving | self.running.keys() - set(self.columns.places):
            self._begin_leaving(column)
        for worker in self.every:
            self._tell(worker)
        for column in self.columns.places:
            if column not in self.running and column not in self._delayed and not self._stopping:
                self._start(column)
        for column in (*self._delayed, *self._silent()):
            self.lend(column)

    def all_acknowledged(self, generation: int) -> bool:
        """Whether every worker runs by this plan or a later one."""
        return len(self.running) == self.count and all(
            worker.acknowledged >= generation for worker in self.running.values()
        )

    def all_settled(self, generation: int) -> bool:
        """Whether nothing is to be expected any more of those that do not run by this plan: they
        are silent, or go on with the plan before because they cannot use this one."""
        answering = [worker for worker in self.running.values() if worker.answers]
        return (
            len(self.running) == self.count
            and any(worker.acknowledged >= generation for worker in answering)
            and all(
                worker.acknowledged >= generation
                or (worker.acknowledged > 0 and worker.refused >= generation)
                for worker in answering
            )
        )

    def all_answered(self, generation: int) -> bool:
        """Whether every worker has taken this plan over, or cannot; those that keep ending and are
        not started again yet are not waited for, nor are silent ones."""
        there = self.running.keys() | self._delayed.keys()
        return there.issuperset(self.columns.places) and all(
            max(worker.acknowledged, worker.refused) >= generation
            for worker in self.running.values()
            if worker.answers
        )

    def _silent(self) -> list[int]:
        return [column for column, worker in self.running.items() if not worker.answers]

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
            worker.released >= generation for worker in self.every if not worker.foreign
        )

    def use_log(self, access_log: AccessLog) -> None:
        """Gives another access log to every worker; the one before is closed."""
        self.access_log.close()
        self.access_log = access_log
        for worker in self.every:
            self._send_log(worker)

    def _send_log(self, worker: Worker) -> None:
        if self.access_log.fd < 0:
            return
        message = Message(Kind.LOG, int(self.access_log.is_syslog), 0)
        try:
            channel.send(worker.channel, message, fds=(self.access_log.fd,))
        except BlockingIOError:
            asyncio.get_running_loop().call_later(RETRY_S, self._send_log, worker)
        except OSError:
            return  # it has ended

    def _wanted(self, worker: Worker, plan: CurrentPlan) -> dict[Entry, int]:
        """The sockets that it is to serve; none that it has not got, if it leaves."""
        return self._sockets_of(worker.column, plan) if worker.column in self.running else {}

    def _sockets_of(self, column: int, plan: CurrentPlan) -> dict[Entry, int]:
        """The sockets of a column that has a place."""
        place = self.columns.places.index(column)
        return {
            Entry(identity, number): one.fileno()
            for identity, key in plan.listeners
            for number, one in self.listeners.open[key.address].of_worker(place, self.count)
        }

    def _tell(self, worker: Worker) -> None:
        """Sends the plan, if the worker has not got it, and sockets that it has not got."""
        plan = self._plan
        if plan is None or self._stopping or worker.foreign or worker.sent == plan.generation:
            return
        new = [
            (entry, fd)
            for entry, fd in self._wanted(worker, plan).items()
            if entry not in worker.sockets
        ]
        first, more = new[:SOCKETS_MAX], new[SOCKETS_MAX:]
        try:
            channel.send_plan(worker.channel, plan.generation, plan.fd, first)
            while more:
                channel.send_sockets(worker.channel, more[:SOCKETS_MAX])
                more = more[SOCKETS_MAX:]
        except BlockingIOError:
            asyncio.get_running_loop().call_later(RETRY_S, self._tell, worker)
            return
        except OSError:
            return  # it has ended, which its pidfd tells
        worker.sent = plan.generation
        worker.offered = {entry for entry, _ in new[:SOCKETS_MAX]}
        worker.sockets |= {entry for entry, _ in new}

    def _send(self, worker: Worker, message: Message, fds: tuple[int, ...] = ()) -> bool:
        try:
            channel.send(worker.channel, message, fds=fds)
        except OSError:
            return False
        return True

    # --- handing over ---

    def _begin_leaving(self, column: int) -> None:
        later = self._delayed.pop(column, None)
        if later is not None:
            later.cancel()
        if column in self.running:
            self.leaving[column] = self.running.pop(column)
        elif column not in self.leaving:
            self.columns.free(column)

    def settle(self) -> None:
        """Once all that stay have the plan in force: others are told to leave what those have."""
        plan = self._plan
        if plan is None or self._stopping or not self.all_settled(plan.generation):
            return
        lent: set[Entry] = set()
        for worker in self.running.values():
            if not worker.answers or worker.refused == plan.generation:
                lent |= self._sockets_of(worker.column, plan).keys()
        for worker in self.running.values():
            spare = worker.sockets - self._wanted(worker, plan).keys() - lent
            self._drop(worker, sorted(spare))
        for worker in self.leaving.values():
            if not worker.stopping:
                log.info(f"worker {worker.index} (pid {worker.pid}) leaves: others have its place")
                self._let_leave(worker, plan.drain_ms)

    def lend(self, column: int) -> None:
        """The sockets of a worker that is not there, or is silent, are served by another one, until
        it is back and has them (`settle`): what is queued there, and what still comes, would wait
        for it."""
        plan = self._plan
        if plan is None or column not in self.columns.places or self._stopping:
            return
        able = [
            one
            for one in self.running.values()
            if one.sent == plan.generation and one.refused != one.sent and one.answers
        ]
        lent = [
            (entry, fd)
            for entry, fd in self._sockets_of(column, plan).items()
            if not any(entry in one.sockets for one in able)
        ]
        able = [one for one in able if one.acknowledged] or able
        while lent and able:
            worker = min(able, key=lambda one: len(one.sockets))
            some, lent = lent[:SOCKETS_MAX], lent[SOCKETS_MAX:]
            try:
                channel.send_sockets(worker.channel, some)
            except BlockingIOError:
                asyncio.get_running_loop().call_later(RETRY_S, self.lend, column)
                return
            except OSError:
                return  # it has ended too
            worker.sockets |= {entry for entry, _ in some}

    def _drop(self, worker: Worker, entries: list[Entry]) -> None:
        while entries:
            some, entries = entries[:SOCKETS_MAX], entries[SOCKETS_MAX:]
            try:
                channel.send_drop(worker.channel, some)
            except OSError:
                return  # it serves them as well, until the next plan
            worker.sockets -= set(some)

    def _let_leave(self, worker: Worker, drain_ms: int) -> None:
        worker.stopping = True
        if not self._send(worker, Message(Kind.STOP, LEAVE, drain_ms)):
            worker.signal(signal.SIGTERM)
        asyncio.get_running_loop().call_later(
            drain_ms / 1000 + KILL_AFTER_S, self._kill_if_there, worker
        )

    def _kill_if_there(self, worker: Worker) -> None:
        if self.leaving.get(worker.column) is worker:
            self._kill(worker)

    # --- life and death ---

    def adopt(self, workers: Iterable[Worker]) -> None:
        """Takes over workers of a control process that is gone, and of its places.

        What is started beside them is told apart by its `process`.
        """
        for worker in workers:
            stays = worker.column in self.columns.places and not worker.stopping
            if stays and not worker.foreign:
                self.running[worker.column] = worker
            else:
                self.leaving[worker.column] = worker
                self.columns.leaving.add(worker.column)
            self._watch(worker)
            self._send_log(worker)

    def _start(self, column: int) -> None:
        self._delayed.pop(column, None)
        try:
            worker = reserve.with_reserve(lambda: self._started(column))
        except OSError as error:
            how = error.strerror or error
            if not self.ever_ready:
                self.failed_starts = sys.maxsize  # it will not get better by trying
            where = error.filename or self.command[0]
            self._later(column, f"cannot be started ({where}: {how})", DELAY_MAX_S)
            return
        self.running[column] = worker
        self._watch(worker)
        self._tell(worker)

    def _started(self, column: int) -> Worker:
        """The process. Raises OSError."""
        try:
            adoption = worker_sockets.listen(self.state_dir, column)
        except OSError as error:
            if reserve.is_short(error):
                raise
            reason = error.strerror or error
            log.warn(errors.NOT_TO_BE_FOUND.line(index=column, path=self.state_dir, reason=reason))
            return self._spawned(column, -1)
        with adoption:
            return self._spawned(column, adoption.fileno())

    def _spawned(self, column: int, adoption: int) -> Worker:
        ours, theirs = channel.socket_pair()
        pidfd = -1
        fds = [self.segment.fd, theirs.fileno()]
        fds += [fd for fd in (adoption, self.access_log.fd) if fd >= 0]
        log_of_it = (self.access_log.fd, int(self.access_log.is_syslog))
        arguments = (column, *fds[:2], *log_of_it, adoption)
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
        return Worker(column, process.pid, pidfd, ours, process, findable=adoption >= 0)

    def _watch(self, worker: Worker) -> None:
        loop = asyncio.get_running_loop()
        worker_sockets.note(self.state_dir, worker.column, worker.pid)
        loop.add_reader(worker.pidfd, self._ended, worker)
        loop.add_reader(worker.channel, self.hear, worker)

    def hear(self, worker: Worker) -> None:
        """Takes one message, if there is one."""
        try:
            message = channel.receive(worker.channel)
        except BlockingIOError:
            return
        if message is None:
            asyncio.get_running_loop().remove_reader(worker.channel)
            return
        worker.heard = time.monotonic()
        if message.kind == Kind.ACK:
            worker.acknowledged = max(worker.acknowledged, message.generation)
            self.ever_ready = self.ever_ready or worker.column in self.running
            self.settle()
            self.changed()
        elif message.kind == Kind.REFUSED:
            self._refused(worker, message.generation)
            self.changed()
            log.error(
                errors.PLAN_REFUSED.line(
                    index=worker.index, pid=worker.pid, generation=message.generation
                )
            )
            if not worker.acknowledged:
                worker.signal(signal.SIGTERM)  # it serves nothing; the next one may do better
        elif message.kind == Kind.RELEASED:
            worker.released = max(worker.released, message.generation)
            self.changed()
        elif message.kind == Kind.PONG:
            worker.asked = False

    def _refused(self, worker: Worker, generation: int) -> None:
        """It goes on with the plan before, and without the sockets that came with this one."""
        worker.refused = generation
        if generation == worker.sent:
            worker.sockets -= worker.offered
            worker.offered = set()
        if worker.acknowledged:
            self.lend(worker.column)
            self.settle()

    def _ended(self, worker: Worker) -> None:
        status = worker.reap()
        self._forget(worker)
        column = worker.column
        left = self.leaving.pop(column, None)
        self.running.pop(column, None)
        worker_sockets.remove(self.state_dir, column)
        if not worker.foreign:
            clear_worker_column(self.segment.address(self.segment.node_table), column)
            retire_worker(self.segment.address(self.segment.counters[column]))
        if left is not None:
            self.columns.free(column)
            if status and not self._stopping:
                how = how_it_ended(status)
                log.warn(errors.LEAVING_DIED.line(index=column, pid=worker.pid, how=how))
        elif not self._stopping:
            idle = worker.refused and not worker.acknowledged
            self.lend(column)
            self._replace(worker, NO_PLAN if idle else how_it_ended(status))
        self.changed()

    def _forget(self, worker: Worker) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(worker.pidfd)
        loop.remove_reader(worker.channel)
        os.close(worker.pidfd)
        worker.channel.close()

    def _replace(self, worker: Worker, how: str) -> None:
        index = worker.column
        lived = time.monotonic() - worker.started
        crashes = 1 if lived > SHORT_LIFE_S else self._crashes.get(index, 0) + 1
        self._crashes[index] = crashes
        self.last_end = how
        self.restarts[index] = self.restarts.get(index, 0) + 1
        log.warn(errors.WORKER_DIED.line(index=index, pid=worker.pid, how=how))
        if crashes <= CRASHES_MAX:
            self.failed_starts += not self.ever_ready
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
        self.failed_starts += not self.ever_ready
        log.warn(errors.WORKER_BACKOFF.line(index=index, why=why, delay=delay_s))
        loop = asyncio.get_running_loop()
        self._delayed[index] = loop.call_later(delay_s, self._start, index)
        loop.call_soon(self.changed)

    def ping(self) -> None:
        """Asks every worker for a sign that its loop turns, but none twice before it answers: a
        channel has room for other messages too."""
        for worker in self.running.values():
            if not worker.asked:
                worker.asked = self._send(worker, Message(Kind.PING, 0, 0))

    def heard_since(self, then: float) -> bool:
        """Whether any worker has said something since that time (time.monotonic)."""
        return any(worker.heard >= then for worker in self.running.values())

    # --- the end ---

    def stop(self, drain_ms: int) -> None:
        """Tells every worker to finish what it has within `drain_ms`; none is replaced."""
        self._stop_starting()
        for worker in self.every:
            worker.stopping = True
            if not self._send(worker, Message(Kind.STOP, 0, drain_ms)):
                worker.signal(signal.SIGTERM)

    def _stop_starting(self) -> None:
        self._stopping = True
        for later in self._delayed.values():
            later.cancel()
        self._delayed.clear()

    def kill(self) -> None:
        """Ends what is left."""
        for worker in self.every:
            self._kill(worker)

    def _kill(self, worker: Worker) -> None:
        log.warn(errors.STOPPED_HARD.line(index=worker.index, pid=worker.pid))
        worker.signal(signal.SIGKILL)

    def let_go(self, everything: bool) -> None:
        """For a control process that fails: outside the loop's ways it ends what it has started,
        and leaves what it had taken over, or `everything`, to serve on."""
        self._stop_starting()
        for worker in self.every:
            if everything or worker.process is None:
                self._forget(worker)
            else:
                worker.signal(signal.SIGKILL)
                self._ended(worker)
        self.running = {}
        self.leaving = {}
