"""Descriptors of the control process that are kept for when there are no others.

Without any it could neither answer a command nor start a worker in the place of one that died.
"""

import errno
import os
from collections.abc import Callable
from typing import TypeVar

COUNT = 16  # starting a worker takes six, a reload some more

T = TypeVar("T")

_held: list[int] = []


def hold() -> None:
    """Fills the reserve as far as that can be done; to be called now and then."""
    try:
        while len(_held) < COUNT:
            _held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return


def give() -> bool:
    """Frees what is held, for whoever met the limit; whether anything was."""
    had = bool(_held)
    while _held:
        os.close(_held.pop())
    return had


def demand(count: int) -> None:
    """Raises OSError unless so many more descriptors can be had."""
    taken: list[int] = []
    try:
        for _ in range(count):
            taken.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    finally:
        for fd in taken:
            os.close(fd)


def is_short(error: OSError) -> bool:
    """Whether the error says that no descriptors are left."""
    return error.errno in (errno.EMFILE, errno.ENFILE)


def with_reserve(work: Callable[[], T]) -> T:
    """Does it, from the reserve if it cannot be done otherwise. Raises OSError."""
    try:
        return work()
    except OSError as error:
        if not (is_short(error) and give()):
            raise
    return work()
