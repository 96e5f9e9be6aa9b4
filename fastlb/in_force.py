"""The configuration in force, and how another one takes its place.

`prepare` takes everything that can be refused (numbers, memory, sockets) and changes nothing
that a worker sees; `put` then cannot fail. What the configuration before needed and this one
does not is given back once no worker uses it. `manifest` writes all of it down with each plan;
`resume` goes on from there in another control process.
"""

import asyncio
import os
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastlb import errors, log, manifest, reserve
from fastlb._core.node import free_slot, read_slot
from fastlb._core.session_store import StateFileError
from fastlb.columns import Columns
from fastlb.config import Config, uses_tls
from fastlb.counters import Reader
from fastlb.edits import Edit
from fastlb.error_pages import Pages, load_error_pages
from fastlb.errors import StartError
from fastlb.listeners import Address, Grown, Listeners, close_grown
from fastlb.manifest import CacheEntry, Manifest
from fastlb.monitors import Monitors
from fastlb.name_watch import NameWatch
from fastlb.node_states import NodeStates
from fastlb.passphrases import Keys, Passphrases
from fastlb.plan import compile_plan, seal
from fastlb.plan_class import Place
from fastlb.segment import SharedSegment, Store, Stores
from fastlb.slots import Numbers, Slots, Taken, listener_keys
from fastlb.ticket_keys import TicketKeys
from fastlb.tls_material import NOTHING, TlsFiles
from fastlb.workers import CurrentPlan, Workers

PUT_DESCRIPTORS = 4  # what `put` opens
COUNTED = ("nodes", "pools", "classes", "virtual_servers", "rules")  # of Slots
ACKNOWLEDGE_S = 10.0  # for all workers to take a plan over


class Changes:
    """Wakes whoever waits for something to become true of the workers."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def until(self, true: Callable[[], bool], timeout_s: float) -> bool:
        """Whether `true` came true in time."""
        end = time.monotonic() + timeout_s
        while not true():
            try:
                await asyncio.wait_for(self._event.wait(), max(end - time.monotonic(), 0))
            except TimeoutError:
                return true()
        return True


@dataclass
class Prepared:
    """What a configuration needs, taken and not yet used."""

    cfg: Config
    taken: Taken
    stores: Stores
    added: list[Address]
    grown: Grown  # sockets for more workers
    places: tuple[int, ...]  # columns of the workers
    passphrases: dict[str, list[Keys]]  # by class
    tls: TlsFiles
    pages: Pages
    edits: list[Edit]  # that it has
    plan: int = -1  # sealed; -1: made by `send`


def _entry(store: Store) -> CacheEntry:
    return CacheEntry(store.region, store.type, store.size)


def _place(entry: CacheEntry) -> tuple[str, str, int]:
    return entry.region, entry.type, entry.size


def _load_tls(cfg: Config) -> TlsFiles:
    if not uses_tls(cfg):
        return NOTHING
    from fastlb.tls_files import load_tls  # and the TLS library, which costs every start a while

    return load_tls(cfg)


class InForce:
    """Slots, shared memory, sockets and plan of what runs."""

    workers: Workers  # set once they may start

    def __init__(self, workers: int, scratch: Path, segment: SharedSegment | None = None) -> None:
        self.scratch = scratch  # where maps are put down while they move
        self.keys: list[bytes] = []
        self.segment = segment or SharedSegment(workers)
        self.columns = Columns()
        self.slots = Slots()
        self.listeners = Listeners(workers)
        self.passphrases = Passphrases()
        self.class_keys: dict[str, list[Keys]] = {}  # by class, of the passphrases in force
        self.tls = NOTHING  # certificates and keys in force
        self.pages: Pages = {}
        self.ticket_keys = TicketKeys()
        self.reader = Reader(self.segment, self.slots)
        self.states = NodeStates(self.segment, self.slots, self.reader)
        self.monitors = Monitors(self.states)
        self.names = NameWatch()  # another one's, where somebody follows names
        self.changes = Changes()
        self.generation = 0
        self.cfg: Config | None = None
        self.written: Config | None = None  # as the file says: without edits, names as such
        self.edits: list[Edit] = []  # made by command since the file was read; `cfg` has them
        self._plan_fd = -1
        self._keys_untold = False  # ticket keys: a plan could not be made
        self._next_fd = -1  # of the configuration adopted last, for `send`
        self._retired: list[tuple[int, set[str]]] = []  # regions, and who does without them
        self._gone: dict[tuple[str, Hashable], int] = {}  # of `slots`, and who does without it

    # --- taking over ---

    def prepare(
        self,
        cfg: Config,
        files: bool = True,
        renew_workers: bool = False,
        edits: list[Edit] | None = None,
    ) -> Prepared:
        """Takes all that `cfg` needs, or raises StartError with everything that is wrong.

        Without `files`, what has been read for the one in force is used: its nodes alone differ.
        `renew_workers`: others take the places of all that run. `edits`: those that `cfg` has, if
        they are not those in force.
        """
        edits = self.edits if edits is None else edits
        wrong: list[StartError] = []
        try:
            places = self.columns.chosen(cfg.proxy.workers, renew_workers)
            taken = self.slots.take(cfg)
        except OverflowError as error:
            raise StartError(errors.NO_ROOM, reason=error) from None
        stores, added, grown = Stores({}, {}), list[Address](), Grown()
        self.listeners.workers = cfg.proxy.workers
        class_keys: dict[str, list[Keys]] = {}
        tls = NOTHING
        try:
            stores = self.segment.prepare(cfg)
        except StartError as error:
            wrong.append(error)
        try:
            grown = self.listeners.grow(listener_keys(cfg))
            added = self.listeners.add(listener_keys(cfg))
        except StartError as error:
            wrong.append(error)
        try:
            class_keys = self.passphrases.load(cfg) if files else self.class_keys
        except StartError as error:
            wrong.append(error)
        try:
            tls = _load_tls(cfg) if files else self.tls
        except StartError as error:
            wrong.append(error)
        try:
            pages = load_error_pages(cfg) if files else self.pages
        except StartError as error:
            wrong.append(error)
        try:
            reserve.demand(PUT_DESCRIPTORS)
        except OSError as error:
            wrong.append(StartError(errors.COMMAND_FAILED, what="reload", reason=error.strerror))
        try:
            if not wrong:
                self.segment.open_columns(1 + max(places))
        except StartError as error:
            wrong.append(error)
        if wrong:
            close_grown(grown)
            self.listeners.close(added)
            self.segment.discard(stores)
            self.slots.give_back(taken)
            raise StartError.of_all(wrong)
        prepared = Prepared(cfg, taken, stores, added, grown, places, class_keys, tls, pages, edits)
        if self.cfg is not None:
            self._prepare_plan(prepared)
        return prepared

    def _prepare_plan(self, prepared: Prepared) -> None:
        """Makes the plan while all can be given back still."""
        try:
            self.reader.begin(prepared.taken)
            prepared.plan = self._sealed(prepared, self.generation + 1)
        except BaseException as error:
            self.discard(prepared)
            if isinstance(error, OSError | MemoryError | ValueError | OverflowError):
                reason = getattr(error, "strerror", None) or error or type(error).__name__
                raise StartError(
                    errors.COMMAND_FAILED, what="a plan for the workers", reason=reason
                ) from error
            raise

    def discard(self, prepared: Prepared) -> None:
        """Gives back what was prepared and is not put in force after all."""
        if prepared.plan >= 0:
            os.close(prepared.plan)
            prepared.plan = -1
        close_grown(prepared.grown)
        self.listeners.close(prepared.added)
        self.segment.discard(prepared.stores)
        self.slots.give_back(prepared.taken)

    async def put(self, prepared: Prepared) -> list[str]:
        """Puts the configuration in force for every worker there is and will be.

        Returns a line for each word of the operator about a node that is over by it.
        """
        try:
            moving = self._moving(prepared.stores)
            await self._copy(moving)
            await asyncio.to_thread(self.segment.copy_shared, prepared.stores)
        except BaseException:
            self.discard(prepared)
            raise
        over = self.adopt(prepared)
        self.send()
        if moving and await self.changes.until(self.is_settled, ACKNOWLEDGE_S):
            await self._copy(moving)  # what was recorded since
        return over

    def adopt(self, prepared: Prepared) -> list[str]:
        """The configuration's half of `put`: shared memory is made ready, nobody is told."""
        self.generation += 1
        self.columns.adopt(prepared.places)
        self.listeners.adopt_grown(prepared.grown)
        replaced = self.segment.adopt(prepared.stores)
        if replaced:
            self._retired.append((self.generation, replaced))
        if prepared.plan < 0:
            self.reader.begin(prepared.taken)
        self._next_fd = prepared.plan
        self.edits = prepared.edits
        self.cfg = prepared.cfg
        gone = self.slots.unused(self.cfg)
        self._gone = {
            (kind, key): self._gone.get((kind, key), self.generation)
            for kind in COUNTED
            for key in getattr(gone, kind)
        }
        self.class_keys = prepared.passphrases
        self.tls = prepared.tls
        self.pages = prepared.pages
        over = self.states.adopt(prepared.cfg, set(prepared.taken.nodes))
        self.monitors.sync(prepared.cfg, prepared.tls)
        return over

    def send(self) -> None:
        """The workers' half: each gets the plan of the configuration adopted last."""
        assert self.cfg is not None
        new, self._next_fd = self._next_fd, -1
        if new < 0:
            new = self._sealed(self._as_prepared(), self.generation)
        self._keys_untold = False
        before, self._plan_fd = self._plan_fd, new
        listeners = tuple((self.slots.listeners.used[key], key) for key in listener_keys(self.cfg))
        drain_ms = self.cfg.timeouts.drain_ms
        self.workers.use(CurrentPlan(self.generation, self._plan_fd, listeners, drain_ms))
        if before >= 0:
            os.close(before)

    def _as_prepared(self) -> Prepared:
        """What is in force."""
        assert self.cfg is not None
        return Prepared(
            self.cfg,
            Taken(),
            self.segment.stores,
            [],
            Grown(),
            self.columns.places,
            self.class_keys,
            self.tls,
            self.pages,
            self.edits,
        )

    def _sealed(self, coming: Prepared, generation: int) -> int:
        """The plan of what is to be in force, as a file in memory."""
        stores = coming.stores
        place = Place(
            self.slots,
            self.segment.node_table,
            self.segment.epoch_ms,
            {name: store.place for name, store in stores.caches.items()},
            {name: store.place for name, store in stores.reservations.items()},
            coming.passphrases,
            shared=stores.shared_place,
        )
        columns = (*coming.places, *self.columns.places, *self.columns.leaving)
        blob = compile_plan(
            coming.cfg,
            place,
            keys=self.keys,
            generation=generation,
            workers=len(coming.places),
            columns=1 + max(columns),
            tls=coming.tls,
            ticket_keys=self.ticket_keys.keys,
            manifest=manifest.encode(self._manifest(coming, generation)),
            pages=coming.pages,
        )
        return seal(blob, generation)

    # --- control processes come and go ---

    def _manifest(self, coming: Prepared, generation: int) -> Manifest:
        """What another control process needs to know to go on from here."""
        stores, has_tickets = coming.stores, bool(coming.tls.material.certificates)
        replaced = self.segment.stores.regions() - stores.regions()
        retired = [*self._retired, *([(generation, replaced)] if replaced else [])]
        return manifest.new(
            generation=generation,
            epoch_ms=self.segment.epoch_ms,
            places=list(coming.places),
            slots=manifest.numbered(self.slots),
            caches={name: _entry(store) for name, store in stores.caches.items()},
            reservations={name: _entry(store) for name, store in stores.reservations.items()},
            shared=stores.shared and stores.shared.name,
            shared_secret=self.segment.shared_secret,
            retired=[(since, sorted(regions)) for since, regions in retired],
            counters=self.reader.noted(),
            ticket_keys=[bytes(key) for key in self.ticket_keys.keys] if has_tickets else [],
            ticket_age_s=self.ticket_keys.age_s,
            edits=coming.edits,
            hosts=[
                (pool, str(one.host), str(address.ip))
                for (pool, address), one in coming.cfg.hosts.items()
            ],
            drain_ms=coming.cfg.timeouts.drain_ms,
        )

    def resume(self, found: Manifest) -> None:
        """Goes on as the control process that wrote this; the segment is its own.

        Raises ValueError, KeyError, SharedMemoryError when it does not fit.
        """
        manifest.restore(self.slots, found.slots)
        self.segment.resume(
            {name: _place(entry) for name, entry in found.caches.items()},
            {name: _place(entry) for name, entry in found.reservations.items()},
            found.shared,
            found.shared_secret,
        )
        self.columns.places = tuple(found.places)
        self.generation = found.generation
        self._retired = [(generation, set(regions)) for generation, regions in found.retired]
        kept = self.segment.stores.regions().union(*(regions for _, regions in self._retired))
        self.segment.remove_all_but(kept)
        self.reader.restore(found.counters)
        self.edits = list(found.edits)
        self.monitors.know(self.slots.nodes.used)
        if found.ticket_keys:
            self.ticket_keys.restore(found.ticket_keys, found.ticket_age_s)

    def rotate_ticket_keys(self) -> None:
        """Where it is time: a plan that differs from the one in force in these keys alone."""
        self._tell_ticket_keys()
        if self.cfg is None or not self.is_settled() or not self.ticket_keys.is_due():
            return
        self.ticket_keys.rotate()
        self._keys_untold = bool(self.tls.material.certificates)
        self._tell_ticket_keys()

    def _tell_ticket_keys(self) -> None:
        """Those that are new; where there is no memory for a plan now, later."""
        if not self._keys_untold:
            return
        try:
            self._next_fd = self._sealed(self._as_prepared(), self.generation + 1)
        except (OSError, MemoryError):
            return
        self.generation += 1
        self.send()

    def _moving(self, stores: Stores) -> list[tuple[str, Store, Store]]:
        """Caches that get another size: (class, old, new). A class of another type begins anew."""
        before = self.segment.stores.caches
        return [
            (name, before[name], store)
            for name, store in stores.caches.items()
            if name in before and before[name] is not store and before[name].type == store.type
        ]

    async def _copy(self, moving: list[tuple[str, Store, Store]]) -> None:
        for name, old, new in moving:
            try:
                await asyncio.to_thread(self.segment.copy_maps, old, new, self.scratch, name)
            except (OSError, StateFileError) as error:
                log.warn(errors.MAPS_DROPPED.line(name=name, reason=error))

    def relabel(self, cfg: Config) -> list[str]:
        """Takes over a configuration in which host names alone lead elsewhere: no plan differs."""
        self.cfg = cfg
        return self.states.adopt(cfg, ())

    # --- letting go ---

    def is_everywhere(self) -> bool:
        """Whether every worker runs by the configuration in force."""
        return self.workers.all_acknowledged(self.generation)

    def is_settled(self) -> bool:
        """The same, of the workers that answer and can use it."""
        return self.workers.all_settled(self.generation)

    def tidy(self) -> None:
        """Gives back what no worker uses any more; to be called now and then."""
        if self.cfg is None or not self.is_settled():
            return
        for listener in self.slots.unused(self.cfg).listeners:
            self.slots.listeners.free(listener)
        kept = {key.address for key in self.slots.listeners.used}
        self.listeners.close([one for one in self.listeners.open if one not in kept])
        if self.columns.leaving:
            return  # they may run by a configuration before
        self._free_slots()
        for generation, regions in list(self._retired):
            if self.workers.all_released(generation):
                self._retired.remove((generation, regions))
                self.segment.remove(regions)

    def _free_slots(self) -> None:
        """Those that no request's plan names any more: requests count there, and read states."""
        released = {one for one in set(self._gone.values()) if self.workers.all_released(one)}
        table = self.segment.address(self.segment.node_table)
        for (kind, key), generation in list(self._gone.items()):
            numbers: Numbers[Any] = getattr(self.slots, kind)
            if generation not in released:
                continue
            if kind == "nodes":
                slot = numbers.used[key]
                if read_slot(table, slot, self.segment.columns)["connections"]:
                    continue
                free_slot(table, slot)
            numbers.free(key)
            del self._gone[kind, key]

    def close(self, let_go: bool = False) -> None:
        """Closes sockets, plan and segment; `let_go`: workers go on with them."""
        self.monitors.close()
        if let_go:
            self.listeners.let_go()
        else:
            self.listeners.close_all()
        if self._plan_fd >= 0:
            os.close(self._plan_fd)
            self._plan_fd = -1
        self.ticket_keys.wipe()
        self.segment.close()
