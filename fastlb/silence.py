"""Workers whose loop does not turn: noticed, said, and after a while replaced.

Each is asked again and again (PING), and whatever it says is a sign of life. Only time counts in
which this process itself came to its turns: a machine, or a control process, that was suspended
or held up tells nothing of workers. While one is silent, others serve its listening sockets too.
"""

import asyncio
import signal
import time
from typing import TYPE_CHECKING

from fastlb import errors, log
from fastlb.worker_process import SILENT_S, Worker

if TYPE_CHECKING:
    from fastlb.workers import Workers

HELD_UP_S = 3.0  # between two looks, which are a second apart: this process did not run
ABORT_S = 2.0  # for a worker to end by SIGABRT, before SIGKILL


class Silence:
    """How long each of the workers in their places has been silent."""

    def __init__(self, workers: "Workers") -> None:
        self.workers = workers
        self._looked = time.monotonic()

    def look(self, timeout_s: float) -> None:
        """To be called every second; a worker silent for `timeout_s` is ended, 0: none is."""
        before, self._looked = self._looked, time.monotonic()
        passed = self._looked - before
        for worker in list(self.workers.running.values()):
            self.workers.hear(worker)  # what waits to be read counts
            if worker.heard >= before:
                self._speaks(worker)
            elif passed < HELD_UP_S:
                self._goes_on(worker, passed, timeout_s)
        self.workers.ping()

    def _speaks(self, worker: Worker) -> None:
        was, worker.silent_s = worker.silent_s, 0.0
        if was >= SILENT_S:
            log.info(f"worker {worker.index} (pid {worker.pid}) answers again after {was:.0f} s")
            self.workers.settle()

    def _goes_on(self, worker: Worker, passed: float, timeout_s: float) -> None:
        answered = worker.answers
        worker.silent_s += passed
        about = {"index": worker.index, "pid": worker.pid, "seconds": f"{worker.silent_s:.0f}"}
        ends = timeout_s and self.workers.ever_ready  # a first start takes the time that it takes
        if ends and worker.silent_s >= timeout_s and not worker.aborted:
            worker.aborted = True
            log.warn(errors.WORKER_HANGS.line(**about))
            worker.signal(signal.SIGABRT)  # which leaves a core where the system keeps them
            asyncio.get_running_loop().call_later(ABORT_S, self._kill, worker)
        elif answered and not worker.answers:
            log.warn(errors.WORKER_HELD_UP.line(**about))
            self.workers.lend(worker.column)
            self.workers.settle()

    def _kill(self, worker: Worker) -> None:
        if self.workers.running.get(worker.column) is worker:
            worker.signal(signal.SIGKILL)
