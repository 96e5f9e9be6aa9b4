"""The threads that rules need in a worker: their event loop's, and the watchdog's.

Called by the core (hooks) in the worker's thread: `begin` for each plan that has rules, `end` when
the worker ends. A worker whose plans have none never imports this.
"""

import atexit
import os
import sys
import threading
from collections.abc import Mapping

from fastlb import rule_loop, rule_watch


def begin(
    names: Mapping[int, str], watchdog_ms: int, timeout_ms: int, plain: bool, asynchronous: bool
) -> None:
    """Starts what is needed and does not run yet; `names` of rules by their slot."""
    if plain:
        rule_watch.ensure(names, watchdog_ms, timeout_ms, plain=True)
    if asynchronous:
        rule_watch.ensure(names, watchdog_ms, timeout_ms, plain=False)
        rule_loop.ensure(plain=plain)


def end() -> None:
    """Ends them; waits for a second at most."""
    try:
        rule_loop.stop()
    finally:
        rule_watch.stop()


def leave(status: int) -> None:
    """Ends the process, if threads that rules began would keep it: Python waits for some."""
    if threading.active_count() > 1:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
