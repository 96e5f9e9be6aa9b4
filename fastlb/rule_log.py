"""What went wrong in a rule, for the operator: a traceback on standard error.

Once for each place (the rule, the innermost line that is not fastlb's, the kind of exception) and
minute, with the count of those that were left out: what fails for one request fails for thousands
a second. One write for each report, so that those of several workers do not mix; each of its
lines says which rule it is about.
"""

import contextlib
import os
import threading
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType

from fastlb.errors import printable

PLACE_S = 60.0
PLACES_MAX = 1000  # remembered
REPORT_BYTES_MAX = 16 * 1024
LINE_LETTERS_MAX = 500
LINES_MAX = 300
FRAMES_MAX = 60
OWN_FOLDER = f"{Path(__file__).parent}{os.sep}"

Place = tuple[str, str, int, str]


@dataclass
class _Seen:
    at: float  # monotonic
    left_out: int = 0


_seen: dict[Place, _Seen] = {}
_lock = threading.Lock()


def report(name: str, error: BaseException, subject: str = "rule") -> None:
    """Says that the rule `name` failed by `error`, or counts it where that was said lately.

    `subject` is the word for what failed, if it is no rule itself.
    """
    left_out = _left_out((name, *_place(error), type(error).__name__))
    if left_out is None:
        return
    who = f"{subject} {name}".rstrip()
    first = f"fastlb: error: {who} failed: {_last_line(error)}"
    if left_out:
        first += f" ({left_out} more since the last report)"
    lines = [first] + [f"fastlb: {who}: {line}" for line in _traceback(error)]
    write(lines)


def forget() -> None:
    """As if nothing had been reported."""
    with _lock:
        _seen.clear()


def write(lines: Iterable[str]) -> None:
    """Lines in one write, without what would mean something to a terminal."""
    text = "\n".join(printable(line[:LINE_LETTERS_MAX]) for line in lines)
    data = text.encode("utf-8", "backslashreplace")
    if len(data) >= REPORT_BYTES_MAX:
        data = data[: REPORT_BYTES_MAX - 5].rpartition(b"\n")[0] + b"\n..."
    with contextlib.suppress(OSError):
        os.write(2, data + b"\n")


def _left_out(place: Place) -> int | None:
    """How many of this place were left out since its last report; None: this one is, too."""
    now = time.monotonic()
    with _lock:
        seen = _seen.pop(place, None)
        if seen is not None and now - seen.at < PLACE_S:
            seen.left_out += 1
            _seen[place] = seen  # as the one used last
            return None
        while len(_seen) >= PLACES_MAX:
            del _seen[next(iter(_seen))]
        _seen[place] = _Seen(now)
        return 0 if seen is None else seen.left_out


def _is_own(file: str) -> bool:
    """Whether code in `file` is fastlb's; compiled modules name theirs from the project's root."""
    return file.startswith((OWN_FOLDER, "fastlb/_core/"))


def _place(error: BaseException) -> tuple[str, int]:
    """File and line of the innermost frame that is the rule's, or what it calls."""
    found = ("", 0)
    at: TracebackType | None = error.__traceback__
    while at is not None:
        file = at.tb_frame.f_code.co_filename
        if not _is_own(file):
            found = (file, at.tb_lineno)
        at = at.tb_next
    return found


def _last_line(error: BaseException) -> str:
    """The exception in one line."""
    lines = traceback.format_exception_only(error)
    return " ".join(line.strip() for line in lines if line.strip())


def _traceback(error: BaseException) -> list[str]:
    """The traceback, with those of what caused it, without frames of fastlb."""
    about = traceback.TracebackException.from_exception(error, limit=-FRAMES_MAX, compact=True)
    one: traceback.TracebackException | None = about
    while one is not None:
        own = [frame for frame in one.stack if not _is_own(frame.filename)]
        one.stack = traceback.StackSummary.from_list(own)
        one = one.__cause__ or one.__context__
    if not about.stack and about.__cause__ is None and about.__context__ is None:
        return []  # the first line has said it all
    lines = (line for part in about.format() for line in part.rstrip("\n").split("\n", LINES_MAX))
    return list(islice(lines, LINES_MAX))
