"""Whether a body matches the pattern of a monitor, found out in bounded time.

A pattern that goes back and forth over what a node has sent could hold the control process for
ever: a timer's signal ends the search. For the main thread, as all checks are.
"""

import re
import signal

from fastlb.monitor_link import Failed

MATCH_S = 0.2


def matches(pattern: str, body: bytes) -> bool:
    """Raises Failed when it takes too long."""

    def too_long(number: int, frame: object) -> None:
        raise Failed(f'the body takes longer than {MATCH_S:g} s to match with "{pattern}"')

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, MATCH_S)
    try:
        return re.search(pattern.encode(), body) is not None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
