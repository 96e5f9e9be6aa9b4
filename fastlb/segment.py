"""What the control process and the workers share: one segment, its regions, their clock.

Regions: `nodes`, `worker.N` (counters of column N), `class.NAME` (session cache of a class),
`reserve.NAME` (its reservations) and `rules.shared` (their tables). A cache whose size changes
gets a new region, and so does one whose class gets another type: what its keys mean has changed.
The old one stays until no worker uses it, which the caller knows.
"""

import os
import time
from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from fastlb import errors
from fastlb._core.node import NODE_TABLE_BYTES
from fastlb._core.rule_shared import Region
from fastlb._core.session_store import Cache
from fastlb._core.shm import Segment, SharedMemoryError
from fastlb._core.stats import STATS_BYTES
from fastlb.config import CacheClass, Config, CookieClass
from fastlb.errors import StartError

TICK_MS = 100  # of _core/limits.pxd
RESERVATIONS = 4096  # clients with an unanswered first request, per class
REGION_NODES, REGION_COUNTERS = 3, 4  # RegionKind of _core/shm.pxd
REGION_NAME_BYTES_MAX = 63


@dataclass(frozen=True)
class Store:
    """One session cache in the segment."""

    cache: Cache
    region: str
    type: str  # of the class
    size: int
    bytes: int

    @property
    def place(self) -> tuple[int, int]:
        """Offset and bytes, as a plan names them."""
        return self.cache.offset, self.bytes


@dataclass(frozen=True)
class Stores:
    """The session caches and reservations of one configuration, by class."""

    caches: dict[str, Store]
    reservations: dict[str, Store]
    shared: Region | None = None  # of rules; None: no rule is configured

    def regions(self) -> set[str]:
        names = {store.region for store in (*self.caches.values(), *self.reservations.values())}
        return names | ({self.shared.name} if self.shared else set())

    @property
    def shared_place(self) -> tuple[int, int]:
        """Offset and bytes of the tables that rules share, as a plan names them."""
        return self.shared.place if self.shared else (0, 0)


def _counters(column: int) -> str:
    return f"worker.{column}"


def boot_ms() -> int:
    """CLOCK_BOOTTIME in milliseconds, the clock of everything in shared memory."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class SharedSegment:
    """The segment of one running fastlb; made empty, gone with its last process."""

    def __init__(self, workers: int, attached: Segment | None = None, epoch_ms: int = 0) -> None:
        """`attached`: of a fastlb that goes on, with its epoch."""
        self.epoch_ms = epoch_ms or boot_ms()
        self.stores = Stores({}, {})
        self.shared_secret = os.urandom(16)
        self.counters: list[int] = []  # by column
        self._serial = 0
        if attached is not None:
            self.segment = attached
            self.node_table = self._there("nodes")
            while self.segment.find(_counters(len(self.counters))):
                self.counters.append(self._there(_counters(len(self.counters))))
            return
        try:
            self.segment = Segment.create()
            self.node_table = self.segment.allocate("nodes", REGION_NODES, NODE_TABLE_BYTES)
        except SharedMemoryError as error:
            raise StartError(errors.NO_SHARED_MEMORY, reason=error) from None
        self.open_columns(workers)

    def _there(self, region: str) -> int:
        found = self.segment.find(region)
        if found is None:
            raise SharedMemoryError(f"no region {region!r}")
        return found[0]

    def open_columns(self, count: int) -> None:
        """Counters for this many columns, where they are not there yet. Raises StartError."""
        try:
            while len(self.counters) < count:
                name = _counters(len(self.counters))
                self.counters.append(self.segment.allocate(name, REGION_COUNTERS, STATS_BYTES))
        except SharedMemoryError as error:
            raise StartError(errors.NO_SHARED_MEMORY, reason=error) from None

    @property
    def columns(self) -> int:
        """Columns that workers have or have had."""
        return len(self.counters)

    @property
    def fd(self) -> int:
        """For a worker to inherit."""
        return self.segment.fd

    def address(self, offset: int) -> int:
        return self.segment.address(offset)

    def now(self) -> int:
        """Ticks since the epoch, as session caches count them."""
        return (boot_ms() - self.epoch_ms) // TICK_MS & 0xFFFFFFFF

    def prepare(self, cfg: Config) -> Stores:
        """The stores that `cfg` needs: those there are, and new ones. Raises StartError."""
        made: list[Store] = []
        stores = Stores({}, {})
        shared: Region | None = None
        try:
            for name, cls in cfg.persistence.items():
                if isinstance(cls, CacheClass):
                    old = self.stores.caches.get(name)
                    stores.caches[name] = self._store("class", name, cls.type, cls.size, old, made)
                if isinstance(cls, CookieClass) and cls.reserve_ms:
                    old = self.stores.reservations.get(name)
                    stores.reservations[name] = self._store(
                        "reserve", name, cls.type, RESERVATIONS, old, made
                    )
            if any(server.rules for server in cfg.virtual_servers.values()):
                shared = self._shared(cfg.rules.shared)
        except SharedMemoryError as error:
            self.remove(store.region for store in made)
            raise StartError(errors.NO_SHARED_MEMORY, reason=error) from None
        return replace(stores, shared=shared)

    def resume(
        self,
        caches: dict[str, tuple[str, str, int]],
        reservations: dict[str, tuple[str, str, int]],
        shared: str | None,
        shared_secret: bytes,
    ) -> None:
        """Takes the stores that another control process had: (region, type, size) by class.

        Raises ValueError or SharedMemoryError when one is not there.
        """
        self.stores = Stores(
            {name: self._resumed(*where) for name, where in caches.items()},
            {name: self._resumed(*where) for name, where in reservations.items()},
            Region.open(self.segment, shared) if shared is not None else None,
        )
        self.shared_secret = shared_secret

    def _resumed(self, region: str, type_: str, size: int) -> Store:
        cache = Cache.open(self.segment, region)
        return Store(cache, region, type_, size, Cache.bytes_for(size))

    def _shared(self, size: int) -> Region:
        """The tables that rules share: those there are, if they have this size."""
        old = self.stores.shared
        if old is not None and old.size == size:
            return old
        name = self._region_name("rules", "shared")
        return Region.create(self.segment, name, size, self.shared_secret)

    def _store(
        self, kind: str, name: str, type_: str, size: int, old: Store | None, made: list[Store]
    ) -> Store:
        if old is not None and (old.type, old.size) == (type_, size):
            return old
        region = self._region_name(kind, name)
        cache = Cache.create(self.segment, region, size)
        store = Store(cache, region, type_, size, Cache.bytes_for(size))
        made.append(store)
        return store

    def _region_name(self, kind: str, name: str) -> str:
        """`class.shop`; with a number no name can have where that one is taken or too long."""
        region = f"{kind}.{name}"
        if len(region.encode()) > REGION_NAME_BYTES_MAX or self.segment.find(region):
            self._serial += 1
            end = f"#{self._serial}"
            region = region[: REGION_NAME_BYTES_MAX - len(end)] + end
        return region

    def adopt(self, stores: Stores) -> set[str]:
        """Takes the stores as the current ones; returns the regions that they replace."""
        replaced = self.stores.regions() - stores.regions()
        self.stores = stores
        return replaced

    def discard(self, stores: Stores) -> None:
        """Gives back what `prepare` made, when the configuration is not used after all."""
        self.remove(stores.regions() - self.stores.regions())

    def remove(self, regions: Iterable[str]) -> None:
        """Gives memory back; no worker may use the regions any more."""
        for region in regions:
            self.segment.remove(region)

    def remove_all_but(self, regions: Container[str]) -> None:
        """Gives back what no plan has named: a control process died in between."""
        for name, kind, _, _ in self.segment.regions():
            if kind not in (REGION_NODES, REGION_COUNTERS) and name not in regions:
                self.segment.remove(name)

    def copy_maps(self, old: Store, new: Store, directory: Path, name: str) -> None:
        """Puts the maps of one cache into another; those that it has stay as they are."""
        path = directory / f".moving-{os.getpid()}"
        try:
            old.cache.save(path, name, self.now())
            new.cache.load(path, name, self.now())
        finally:
            path.unlink(missing_ok=True)

    def copy_shared(self, stores: Stores) -> None:
        """Puts the entries of rules' tables into their new region, where there is one.

        Once, before the workers use it: a second time would bring back what was deleted since.
        """
        old, new = self.stores.shared, stores.shared
        if old is not None and new is not None and old is not new:
            old.copy_to(new)

    def close(self) -> None:
        self.segment.close()
