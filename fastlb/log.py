"""The control process's own lines: `fastlb: <level>: text` on standard error."""

import contextlib
import sys
from typing import Literal

from fastlb.errors import printable

Level = Literal["info", "warning", "error"]


def log(level: Level, text: object) -> None:
    """One line; a reader that went away is no reason to stop."""
    write(f"fastlb: {level}: {printable(str(text))}")


def write(line: str) -> None:
    """One line as it is."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def warn(text: object) -> None:
    log("warning", text)


def info(text: object) -> None:
    log("info", text)


def error(text: object) -> None:
    log("error", text)
