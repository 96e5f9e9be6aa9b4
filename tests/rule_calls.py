"""Calls of async rules without a worker: a queue of Python's, and runs that note what was done with
them."""

import asyncio
import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

WAIT_S = 30  # for what happens at once
LONG_S = 3600


class Calls:
    """The worker's side of the queue."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.queue: queue.SimpleQueue[CallRun] = queue.SimpleQueue()
        self.came: list[CallRun] = []

    def put(self, run: "CallRun") -> "CallRun":
        self.queue.put(run)
        os.eventfd_write(self.fd, 1)
        return run

    def take(self) -> list["CallRun"]:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)
        while not self.queue.empty():
            self.came.append(self.queue.get())
        return self.came


class CallRun:
    """As rule_run's RuleRun, of which it notes each step."""

    def __init__(self, *rules: Callable[..., Any], timeout: float = LONG_S) -> None:
        self.steps = [(rule, rule.__name__) for rule in rules]
        self.timeout = timeout
        self.ended_early = False
        self.notes: list[str] = []
        self.errors: list[BaseException] = []
        self.goes_on = True  # on_error = "continue"
        self.over = threading.Event()
        self.body: asyncio.Future[bytes] | None = None

    def arguments(self, i: int) -> tuple[Any, ...]:
        return (self,)

    def begin(self, i: int) -> None:
        self.notes.append(f"begin {i}")

    def ended(self, i: int, result: object = None) -> bool:
        self.notes.append(f"ended {i}")
        return result is None

    def failed(self, i: int, exception: BaseException, timed_out: bool = False) -> bool:
        self.notes.append(f"{'late' if timed_out else 'failed'} {i}")
        self.errors.append(exception)
        return self.goes_on

    def cancelled(self, i: int) -> None:
        self.notes.append(f"cancelled {i}")

    def told(self) -> None:
        if self.body is not None and not self.body.done():
            self.body.set_result(b"all of it")

    def finish(self) -> None:
        self.notes.append("finish")
        self.over.set()

    def wait(self) -> list[str]:
        assert self.over.wait(WAIT_S)
        return self.notes

    def wait_begun(self) -> None:
        until(lambda: bool(self.notes))


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)
