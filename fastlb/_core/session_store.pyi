from collections.abc import Iterator
from os import PathLike
from typing import NamedTuple

from fastlb._core.shm import Segment

class StateFileError(Exception):
    """A state file is damaged, or is not this class's; nothing was imported from it."""

class CacheDamagedError(Exception):
    """A session cache's structure is not consistent: a defect of fastlb."""

class MapRow(NamedTuple):
    key: bytes
    ip: str
    port: int
    idle: int
    age: int
    remaining: int | None

class StatsRow(NamedTuple):
    entries: int
    size: int
    oldest: int
    hits: int
    misses: int
    expiries: int
    evictions: int

class Cache:
    """A session cache in a region of a segment. Times are ticks (TICK_MS milliseconds)."""

    @property
    def segment(self) -> Segment: ...
    @property
    def name(self) -> str: ...
    @property
    def offset(self) -> int: ...
    @staticmethod
    def bytes_for(size: int) -> int: ...
    @staticmethod
    def create(segment: Segment, name: str, size: int) -> Cache: ...
    @staticmethod
    def open(segment: Segment, name: str) -> Cache: ...
    def stats(self, now: int) -> StatsRow: ...
    def entries(self, now: int) -> Iterator[MapRow]: ...
    def delete(self, key: bytes) -> bool: ...
    def delete_address(self, ip: str, port: int | None = None) -> int: ...
    def flush(self) -> int: ...
    def verify(self) -> None: ...
    def save(
        self,
        path: str | PathLike[str],
        class_name: str,
        now: int,
        secret_mark: bytes = ...,
    ) -> int: ...
    def load(
        self,
        path: str | PathLike[str],
        class_name: str,
        now: int,
        secret_mark: bytes = ...,
    ) -> int: ...
