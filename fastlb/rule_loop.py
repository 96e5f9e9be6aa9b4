"""The event loop of async rules: a thread of the worker's, beside the one that serves.

Calls come through a queue (`rule_queue`), each becomes one task, which runs the call's rules one
after the other and gives it back. Nothing that a rule does there ends the thread: it goes on
after whatever stopped its loop, and with a new loop when the old one is gone.

    take ──► _Call ──► begin, await the rule, ended | failed | cancelled, … ──► finish
              ▲
              └── told by the worker: nobody waits any more, or the body is here

A rule's time is its own: tasks that it starts go on after it, and are kept until they are done.
"""

import asyncio
import contextlib
import os
import selectors
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Literal, Protocol

from fastlb import rule_log
from fastlb._core import rule_queue, rule_watchdog
from fastlb.rule_watch import RuleOverdue, late

STOP_S = 1.0  # that the worker waits for the thread at its end
RULES_END_S = 0.5  # of them, for rules that were cancelled
SWITCH_S = 0.001  # how long one thread keeps the GIL when the other one wants it
NICER = 10  # than the worker's own thread, which serves all those without such rules
RESTART_S = 0.05  # before a loop that fails at once is tried again
CALLS_PER_TURN = 64  # so that many at once are not taken for a rule that holds the loop


class Run(Protocol):
    """One call, as rule_run gives it."""

    @property
    def steps(self) -> list[tuple[Callable[..., Any], str]]: ...
    @property
    def timeout(self) -> float: ...
    @property
    def ended_early(self) -> bool: ...
    def arguments(self, i: int) -> tuple[Any, ...]: ...
    def begin(self, i: int) -> None: ...
    def ended(self, i: int, result: object = None) -> bool: ...
    def failed(self, i: int, exception: BaseException, timed_out: bool = False) -> bool: ...
    def cancelled(self, i: int) -> None: ...
    def told(self) -> None: ...
    def finish(self) -> None: ...


class Came(Protocol):
    """A list of runs; what was dealt with is taken out."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: Literal[0], /) -> Run: ...
    def __delitem__(self, index: Literal[0], /) -> None: ...


Take = Callable[[], Came]


class _Selector(selectors.DefaultSelector):
    """Tells the watchdog when the loop waits, and when it runs what is ready."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        rule_watchdog.loop_idle()
        try:
            return super().select(timeout)
        finally:
            rule_watchdog.loop_busy()


class _Call:
    """One call on its way through its rules."""

    def __init__(self, run: Run, over: Callable[[Run], None]) -> None:
        self.run = run
        self.step = -1  # the rule that runs
        self.cancelled = False  # nobody waits for it
        self.timed_out = False
        self.finished = False
        self.task: asyncio.Task[None] | None = None
        self._over = over

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self.task = loop.create_task(self._serve())
        # One that is cancelled before it has begun runs nothing of its coroutine.
        self.task.add_done_callback(lambda _: self.finish())

    def cancel(self) -> None:
        """Nobody waits for it any more: its rule is told, and no other begins."""
        if self.cancelled:
            return
        self.cancelled = True
        if self.step >= 0 and self.task is not None:
            self.task.cancel()

    def finish(self) -> None:
        """Gives it back, once; a rule that was running then is taken for failed."""
        if self.finished:
            return
        self.finished = True
        self._over(self.run)
        if self.step >= 0:
            self.run.failed(self.step, RuntimeError("the rules' event loop ended"))
        self.run.finish()

    async def _serve(self) -> None:
        try:
            for i, (function, _) in enumerate(self.run.steps):
                if self.cancelled or not await self._rule(i, function):
                    break
        finally:
            self.finish()

    async def _rule(self, i: int, function: Callable[..., Any]) -> bool:
        """One rule; whether the next one is run."""
        run, task = self.run, self.task
        assert task is not None
        self.timed_out = False
        run.begin(i)
        self.step = i
        timer = task.get_loop().call_later(run.timeout, self._on_timeout)
        error: BaseException | None = None
        result = None
        try:
            result = await function(*run.arguments(i))
        except GeneratorExit:
            raise  # the loop is gone
        except BaseException as raised:
            error = raised
        rule_watchdog.leave_if_forked()
        timer.cancel()
        if task.cancelling():  # the next rule's time is its own
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            while task.uncancel():
                pass
        self.step = -1
        return self._ended(i, result, error)

    def _ended(self, i: int, result: object, error: BaseException | None) -> bool:
        if self.cancelled:
            self.run.cancelled(i)
            return False
        if self.timed_out or isinstance(error, RuleOverdue):
            return self.run.failed(i, late(error, self.run.timeout), True)
        if error is not None:
            return self.run.failed(i, error)
        return self.run.ended(i, result)

    def _on_timeout(self) -> None:
        if self.step >= 0 and self.task is not None:
            self.timed_out = True
            self.task.cancel()


class RuleLoop:
    """The thread and its loop. `take` gives calls that came, and those that were told something."""

    def __init__(self, take: Take, fd: int, *, nicer: bool = False) -> None:
        self._take = take
        self._fd = fd
        self._nicer = nicer  # gives way to the worker's own thread
        self._calls: dict[Run, _Call] = {}
        self._tasks: set[asyncio.Task[Any]] = set()  # a loop itself keeps none
        self._stopping = False
        self._loop = self._new_loop()
        self._thread = threading.Thread(target=self._main, name="rule-loop", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self, wait_s: float = STOP_S) -> bool:
        """Cancels all rules and ends the thread; False: it is stuck, and left behind."""
        self._stopping = True
        with contextlib.suppress(RuntimeError):  # closed: it ends by itself
            self._loop.call_soon_threadsafe(self._begin_end)
        self._thread.join(wait_s)
        return not self._thread.is_alive()

    # --- the thread ---

    def _new_loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.SelectorEventLoop(_Selector())
        loop.set_task_factory(self._new_task)
        loop.set_exception_handler(_on_exception)
        loop.add_reader(self._fd, self._on_calls)
        return loop

    def _new_task(
        self,
        loop: asyncio.AbstractEventLoop,
        coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        **more: Any,
    ) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **more)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _main(self) -> None:
        if self._nicer:
            with contextlib.suppress(OSError):
                nice = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice + NICER)
        rule_watchdog.watch_loop()
        try:
            while not self._stopping:
                with contextlib.suppress(BaseException):  # as of a late RuleOverdue
                    self._run_loop()
        finally:
            rule_watchdog.watch_loop(False)
            self._end()

    def _run_loop(self) -> None:
        """Until something stops the loop, which nobody but `stop` should."""
        begun = time.monotonic()
        try:
            asyncio.set_event_loop(self._loop)
            self._loop.run_forever()
            if not self._stopping:
                raise RuntimeError("a rule stopped the rules' event loop")
        except BaseException as error:
            if self._stopping:
                return
            with contextlib.suppress(Exception):
                rule_log.report("", error, "the event loop of the rules")
            if time.monotonic() - begun < RESTART_S:
                time.sleep(RESTART_S)
            if self._loop.is_closed():
                self._replace_loop()

    def _replace_loop(self) -> None:
        for call in list(self._calls.values()):
            call.finish()
        self._tasks.clear()
        self._loop = self._new_loop()

    def _on_calls(self, most: int = CALLS_PER_TURN) -> None:
        runs = self._take()
        try:
            for _ in range(min(len(runs), most)):
                self._hear(runs[0])
                del runs[0]
        finally:
            if runs:
                self._loop.call_soon(self._on_calls)

    def _hear(self, run: Run) -> None:
        call = self._calls.get(run)
        if call is None:
            call = self._calls[run] = _Call(run, self._forget)
        else:
            run.told()
        if call.task is None:
            call.start(self._loop)
        if run.ended_early:
            call.cancel()

    def _forget(self, run: Run) -> None:
        self._calls.pop(run, None)

    # --- its end ---

    def _begin_end(self) -> None:
        self._loop.remove_reader(self._fd)
        self._on_calls(sys.maxsize)
        for call in list(self._calls.values()):
            call.cancel()
        asyncio.Task(self._wait_for_tasks(), loop=self._loop)

    async def _wait_for_tasks(self) -> None:
        """What rules have begun gets a moment to end in order."""
        tasks = set(self._tasks)
        calls = {call.task for call in self._calls.values()}
        for task in tasks - calls:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=RULES_END_S)
        self._loop.stop()

    def _end(self) -> None:
        for call in list(self._calls.values()):
            call.finish()
        with contextlib.suppress(Exception):
            self._loop.close()


def _on_exception(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if not isinstance(error, BaseException):
        error = RuntimeError(context.get("message", "it does not say why"))
    rule_log.report("", error, "a task or callback of the rules")


# --- one per worker ---

_one: RuleLoop | None = None


def ensure(*, plain: bool) -> None:
    """Starts the loop, if it does not run; `plain`: there are plain rules as well."""
    global _one
    if plain:
        sys.setswitchinterval(SWITCH_S)
    if _one is None or not _one.is_alive:
        from fastlb._core.rule_run import take

        # With plain rules the worker's thread may wait for the GIL while this one has it: on a
        # busy machine a thread that gives way to everybody would keep it for long.
        _one = RuleLoop(take, rule_queue.fd(), nicer=not plain)
        _one.start()


def stop() -> None:
    """Ends the loop; the process does not wait longer than a second for it."""
    global _one
    if _one is not None:
        _one.stop()
        _one = None


def _in_child() -> None:
    # A rule forked: the child has no such thread, and may not begin one by accident.
    global _one
    _one = None


os.register_at_fork(after_in_child=_in_child)
