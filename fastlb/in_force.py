"""The configuration in force, and how another one takes its place.

`prepare` takes everything that can be refused (numbers, memory, sockets) and changes nothing
that a worker sees; `put` then cannot fail. What the configuration before needed and this one
does not is given back once no worker uses it.
"""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fastlb import errors, log, reserve
from fastlb._core.node import free_slot, read_slot
from fastlb._core.session_store import StateFileError
from fastlb.config import Config, uses_tls
from fastlb.counters import Reader
from fastlb.edits import Edit
from fastlb.errors import StartError
from fastlb.listeners import Address, Listeners
from fastlb.monitors import Monitors
from fastlb.name_watch import NameWatch
from fastlb.node_states import NodeStates
from fastlb.passphrases import Keys, Passphrases
from fastlb.plan import compile_plan, seal
from fastlb.plan_class import Place
from fastlb.segment import SharedSegment, Store, Stores
from fastlb.slots import NodeKey, Slots, Taken, listener_keys
from fastlb.ticket_keys import TicketKeys
from fastlb.tls_material import NOTHING, TlsFiles
from fastlb.workers import CurrentPlan, Workers

PUT_DESCRIPTORS = 4  # what `put` opens
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
    passphrases: dict[str, list[Keys]]  # by class
    tls: TlsFiles


def _load_tls(cfg: Config) -> TlsFiles:
    if not uses_tls(cfg):
        return NOTHING
    from fastlb.tls_files import load_tls  # and the TLS library, which costs every start a while

    return load_tls(cfg)


class InForce:
    """Slots, shared memory, sockets and plan of what runs."""

    workers: Workers  # set once they may start

    def __init__(self, workers: int, scratch: Path) -> None:
        self.worker_count = workers
        self.scratch = scratch  # where maps are put down while they move
        self.keys: list[bytes] = []
        self.segment = SharedSegment(workers)
        self.slots = Slots()
        self.listeners = Listeners(workers)
        self.passphrases = Passphrases()
        self.class_keys: dict[str, list[Keys]] = {}  # by class, of the passphrases in force
        self.tls = NOTHING  # certificates and keys in force
        self.ticket_keys = TicketKeys()
        self.reader = Reader(self.segment, self.slots)
        self.states = NodeStates(self.segment, self.slots, self.reader, workers)
        self.monitors = Monitors(self.states)
        self.names = NameWatch()  # another one's, where somebody follows names
        self.changes = Changes()
        self.generation = 0
        self.cfg: Config | None = None
        self.written: Config | None = None  # as the file says: without edits, names as such
        self.edits: list[Edit] = []  # made by command since the file was read; `cfg` has them
        self._plan_fd = -1
        self._retired: list[tuple[int, set[str]]] = []  # regions, and who does without them

    # --- taking over ---

    def prepare(self, cfg: Config, files: bool = True) -> Prepared:
        """Takes all that `cfg` needs, or raises StartError with everything that is wrong.

        Without `files`, what has been read for the one in force is used: its nodes alone differ.
        """
        wrong: list[StartError] = []
        try:
            taken = self.slots.take(cfg)
        except OverflowError as error:
            raise StartError(errors.NO_ROOM, reason=error) from None
        stores, added = Stores({}, {}), list[Address]()
        class_keys: dict[str, list[Keys]] = {}
        tls = NOTHING
        try:
            stores = self.segment.prepare(cfg)
        except StartError as error:
            wrong.append(error)
        try:
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
            reserve.demand(PUT_DESCRIPTORS)
        except OSError as error:
            wrong.append(StartError(errors.COMMAND_FAILED, what="reload", reason=error.strerror))
        if wrong:
            self.listeners.close(added)
            self.segment.discard(stores)
            self.slots.give_back(taken)
            raise StartError.of_all(wrong)
        return Prepared(cfg, taken, stores, added, class_keys, tls)

    def discard(self, prepared: Prepared) -> None:
        """Gives back what was prepared and is not put in force after all."""
        self.listeners.close(prepared.added)
        self.segment.discard(prepared.stores)
        self.slots.give_back(prepared.taken)

    async def put(self, prepared: Prepared) -> list[str]:
        """Puts the configuration in force for every worker there is and will be.

        Returns a line for each word of the operator about a node that is over by it.
        """
        moving = self._moving(prepared.stores)
        await self._copy(moving)
        await asyncio.to_thread(self.segment.copy_shared, prepared.stores)
        over = self.adopt(prepared)
        self.send()
        if moving and await self.changes.until(self.is_everywhere, ACKNOWLEDGE_S):
            await self._copy(moving)  # what was recorded since
        return over

    def adopt(self, prepared: Prepared) -> list[str]:
        """The configuration's half of `put`: shared memory is made ready, nobody is told."""
        self.generation += 1
        replaced = self.segment.adopt(prepared.stores)
        if replaced:
            self._retired.append((self.generation, replaced))
        self.reader.begin(prepared.taken)
        self.cfg = prepared.cfg
        self.class_keys = prepared.passphrases
        self.tls = prepared.tls
        over = self.states.adopt(prepared.cfg, set(prepared.taken.nodes))
        self.monitors.sync(prepared.cfg, prepared.tls)
        return over

    def send(self) -> None:
        """The workers' half: each gets the plan of the configuration adopted last."""
        assert self.cfg is not None
        place = Place(
            self.slots,
            self.segment.node_table,
            self.segment.epoch_ms,
            {name: store.place for name, store in self.segment.stores.caches.items()},
            {name: store.place for name, store in self.segment.stores.reservations.items()},
            self.class_keys,
            shared=self.segment.stores.shared_place,
        )
        blob = compile_plan(
            self.cfg,
            place,
            keys=self.keys,
            generation=self.generation,
            workers=self.worker_count,
            tls=self.tls,
            ticket_keys=self.ticket_keys.keys,
        )
        before, self._plan_fd = self._plan_fd, seal(blob, self.generation)
        listeners = tuple((self.slots.listeners.used[key], key) for key in listener_keys(self.cfg))
        self.workers.use(CurrentPlan(self.generation, self._plan_fd, listeners))
        if before >= 0:
            os.close(before)

    def rotate_ticket_keys(self) -> None:
        """Where it is time: a plan that differs from the one in force in these keys alone."""
        if self.cfg is None or not self.is_everywhere() or not self.ticket_keys.is_due():
            return
        self.ticket_keys.rotate()
        if self.tls.material.certificates:
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

    def tidy(self) -> None:
        """Gives back what no worker uses any more; to be called now and then."""
        if self.cfg is None or not self.is_everywhere():
            return
        gone = self.slots.unused(self.cfg)
        for listener in gone.listeners:
            self.slots.listeners.free(listener)
        kept = {key.address for key in self.slots.listeners.used}
        self.listeners.close([one for one in self.listeners.open if one not in kept])
        for numbers, names in (
            (self.slots.pools, gone.pools),
            (self.slots.classes, gone.classes),
            (self.slots.virtual_servers, gone.virtual_servers),
            (self.slots.rules, gone.rules),
        ):
            for name in names:
                numbers.free(name)
        self._free_nodes(gone.nodes)
        for generation, regions in list(self._retired):
            if self.workers.all_released(generation):
                self._retired.remove((generation, regions))
                self.segment.remove(regions)

    def _free_nodes(self, nodes: list[NodeKey]) -> None:
        """Slots of removed nodes, once their last requests have ended."""
        table = self.segment.address(self.segment.node_table)
        for key in nodes:
            slot = self.slots.nodes.used[key]
            if read_slot(table, slot, self.worker_count)["connections"] == 0:
                free_slot(table, self.slots.nodes.free(key))

    def close(self) -> None:
        """Closes sockets, plan and segment."""
        self.monitors.close()
        self.listeners.close_all()
        if self._plan_fd >= 0:
            os.close(self._plan_fd)
            self._plan_fd = -1
        self.ticket_keys.wipe()
        self.segment.close()
