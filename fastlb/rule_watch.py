"""What Python does for the watchdog of rules: the signals, and the exception that ends a rule.

Nothing of it runs before `ensure` is called, which is when a plan has rules.
"""

import contextlib
import faulthandler
import functools
import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from fastlb._core import rule_watchdog

DUMP_SIGNAL = signal.SIGRTMAX - 1
ASK_SIGNAL = signal.SIGRTMAX - 2


ASKER_S = 1.0


class RuleOverdue(BaseException):
    """Raised within a rule that has run for longer than `[rules] timeout`."""


def late(error: BaseException | None, timeout: float) -> TimeoutError:
    """What is said of a rule that ran longer than its time; `error` ended it, and knows where."""
    about = TimeoutError(f"it ran for longer than [rules] timeout, {timeout:g} s")
    if error is not None:
        about.__traceback__ = error.__traceback__
    return about


def _on_ask(_number: int, _frame: FrameType | None) -> None:
    if rule_watchdog.overdue():
        raise RuleOverdue("it ran for longer than [rules] timeout")


def _ask_loop(fd: int) -> None:
    """A thread that sleeps until the event loop is held for too long."""
    with contextlib.closing(os.fdopen(fd, "rb", buffering=0)) as pipe:
        while pipe.read(1):
            rule_watchdog.ask_loop(RuleOverdue)


def ensure(
    names: Mapping[int, str], watchdog_ms: int, timeout_ms: int, *, plain: bool, report_fd: int = 2
) -> None:
    """Watches rules from now on; called in the worker's thread, for each plan that has any.

    `names` are those of the rules, by their slot in the counters. Without `plain` rules the
    worker's own thread is not watched.
    """
    for slot, name in names.items():
        rule_watchdog.set_name(slot, name)
    rule_watchdog.set_times(watchdog_ms, timeout_ms)
    if not rule_watchdog.runs():
        _start(report_fd)
    if plain and threading.current_thread() is threading.main_thread():
        signal.signal(ASK_SIGNAL, _on_ask)
        rule_watchdog.watch_worker()


@functools.cache
def _watch_forks() -> None:
    os.register_at_fork(after_in_child=rule_watchdog.in_child)


def _start(report_fd: int) -> None:
    _watch_forks()
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    asking, loop_fd = os.pipe2(os.O_CLOEXEC)
    _open.extend((reading, writing, loop_fd))
    faulthandler.register(DUMP_SIGNAL, file=writing, all_threads=False, chain=False)
    package = f"{Path(__file__).parent}/".encode()
    rule_watchdog.start(DUMP_SIGNAL, ASK_SIGNAL, reading, loop_fd, package, report_fd)
    asker = threading.Thread(target=_ask_loop, args=(asking,), name="rule-overdue", daemon=True)
    asker.start()
    _askers.append(asker)


_open: list[int] = []  # descriptors
_askers: list[threading.Thread] = []


def stop() -> None:
    """Nobody is watched any more; in the worker's thread."""
    if not rule_watchdog.runs():
        return
    rule_watchdog.stop()
    faulthandler.unregister(DUMP_SIGNAL)
    if threading.current_thread() is threading.main_thread():
        signal.signal(ASK_SIGNAL, signal.SIG_IGN)
    for fd in _open:
        os.close(fd)
    _open.clear()
    while _askers:
        _askers.pop().join(ASKER_S)  # its pipe is closed
