"""The one time-out of all tests, and the one way to wait for something.

A test never sleeps to let something happen: it waits until it has happened, and the time-out
only bounds how long a failing test takes. FASTLB_TEST_TIMEOUT (seconds) sets it, so that a
sanitizer build or a slow machine needs no other change.
"""

import os
import time
from collections.abc import Callable
from typing import TypeVar

TIMEOUT = float(os.environ.get("FASTLB_TEST_TIMEOUT", "10"))
PAUSE = 0.01  # between two looks

T = TypeVar("T")


def until(look: Callable[[], T], what: str, limit: float = TIMEOUT) -> T:
    """The first true result of `look`, asked again and again; AssertionError after `limit`."""
    deadline = time.monotonic() + limit
    while True:
        result = look()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"after {limit} s still not: {what}; last seen: {result!r}")
        time.sleep(PAUSE)
