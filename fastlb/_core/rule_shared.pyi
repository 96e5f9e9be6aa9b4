"""`rule.shared`: counters that all workers share."""

from datetime import timedelta
from typing import final

from fastlb._core.shm import Segment

@final
class Table:
    """A table of counters that all workers share; `rule.shared(name)` gives it.

    Keys are str, bytes or int (the key `1` is another one than `"1"`); values are ints of 64 bits
    with sign. A table is as long-lived as the running fastlb, reloads included, and is lost with
    it. All tables together have room for `[rules] shared` entries; when there are more, those
    that would end first are dropped.
    """

    @property
    def name(self) -> str: ...
    def get(self, key: str | bytes | int) -> int | None:
        """The number of `key`, or None when there is none, or it has ended."""

    def incr(
        self, key: str | bytes | int, by: int = 1, ttl: str | float | timedelta | None = "1m"
    ) -> int:
        """Adds `by` to the number of `key` and returns the sum; a key that is new begins at 0.

        A new key ends `ttl` from now, however often it is counted then: a text like "1m",
        seconds, a timedelta, or None for never. Nobody else's count comes between. Raises
        OverflowError, and changes nothing, when the sum does not fit in 64 bits.
        """

    def set(
        self, key: str | bytes | int, value: int, ttl: str | float | timedelta | None = None
    ) -> None:
        """Sets the number of `key`, which ends `ttl` from now; None: never."""

    def delete(self, key: str | bytes | int) -> bool:
        """Removes `key`; returns whether it was there."""

def shared(name: str) -> Table:
    """The table of this name; the same one in all workers, made at its first use.

    Everybody who uses the name has the same table: put something of your own into it.
    """

def reset_local() -> None:
    """Empties the tables of this process, whose clock is the system's again. Not for workers."""

def advance_local(seconds: float) -> None:
    """Lets time pass for the tables of this process: what ends within `seconds` is over."""

def use_none() -> None:
    """`rule.shared` of this process is in its own memory, and empty."""

@final
class Region:
    """The region of a segment that all tables are in."""

    @staticmethod
    def bytes_for(size: int) -> int: ...
    @staticmethod
    def create(segment: Segment, name: str, size: int, secret: bytes) -> Region:
        """An empty one for `size` entries; `secret`: 16 random bytes, for all of one segment."""

    @staticmethod
    def open(segment: Segment, name: str) -> Region:
        """The tables that another process has made."""

    @property
    def name(self) -> str: ...
    @property
    def offset(self) -> int: ...
    @property
    def byte_count(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def place(self) -> tuple[int, int]: ...
    def copy_to(self, other: Region) -> None:
        """Puts all entries into another region; those that it has stay as they are."""

    def stats(self) -> tuple[int, int]:
        """(entries that have not ended, entries dropped before their end)"""

    def use(self) -> bool:
        """From now on, `rule.shared` of this process is in it."""
