from typing import NamedTuple

from fastlb._core.session_store import Cache, MapRow

class TallyRow(NamedTuple):
    ip: str
    port: int
    live: int
    expired: int
    idle: int | None

class Walk:
    """All maps, or those of a node (`ip`, and `port` unless None), or that of a hash (`key`)."""

    def __init__(
        self,
        of: Cache,
        now: int,
        expiry: int,
        ip: str | None = None,
        port: int | None = None,
        key: bytes | None = None,
    ) -> None: ...
    def step(self, count: int) -> bool: ...

class Census(Walk):
    """Counts maps by node."""

    def rows(self) -> list[TallyRow]: ...

class Recent(Walk):
    """Keeps the `most` live maps that were used last, and counts all of them."""

    def __init__(
        self,
        of: Cache,
        now: int,
        expiry: int,
        most: int,
        ip: str | None = None,
        port: int | None = None,
        key: bytes | None = None,
    ) -> None: ...
    @property
    def live(self) -> int: ...
    def rows(self) -> list[MapRow]: ...

class Removal(Walk):
    """Removes maps, dead or alive; of a node only those that are still its own."""

    @property
    def removed(self) -> int: ...
