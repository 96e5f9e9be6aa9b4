"""Nodes' states: what the configuration says, what the operator says at run time, and what
workers see of both.

The operator's word about a node holds until the configuration's own `draining` of that node
changes, or the node is taken out. It is written to the node table, which every worker reads at
each decision, so it takes effect at once and needs no worker's help. What monitors find comes
after it.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from fastlb import errors, log
from fastlb._core.node import (
    ejected_until,
    get_state,
    open_slot,
    read_slot,
    set_returned,
    set_state,
)
from fastlb.config import Config
from fastlb.counters import Reader
from fastlb.segment import SharedSegment, boot_ms
from fastlb.slots import NodeKey, Slots, node_key

State = Literal["up", "draining", "down", "disabled"]
Verb = Literal["drain", "undrain", "disable", "enable"]
VERBS: tuple[Verb, ...] = ("drain", "undrain", "disable", "enable")


def state_of(draining: bool, disabled: bool = False, down: bool = False) -> State:
    """One state of what configuration and operator want and what monitors have found.

    A node that is down is so also for the sessions that it had when it began to drain.
    """
    if disabled:
        return "disabled"
    if down:
        return "down"
    return "draining" if draining else "up"


class Word(NamedTuple):
    """What the operator has said about one node."""

    draining: bool
    disabled: bool
    configured: bool  # the configuration's `draining` when it was said

    def after(self, verb: Verb) -> "Word":
        """With one more command."""
        match verb:
            case "drain" | "undrain":
                return self._replace(draining=verb == "drain")
            case "disable" | "enable":
                return self._replace(disabled=verb == "disable")

    @property
    def says_something(self) -> bool:
        """Whether the configuration alone would have another effect."""
        return self.disabled or self.draining != self.configured


@dataclass
class Watch:
    """What is remembered of a node beside its slot. Times are CLOCK_BOOTTIME, in ms."""

    seen_ms: int  # in use since, or last seen with something in progress
    left_ms: int | None = None  # gets no new sessions since; None: it does
    requests: int = 0  # that it had been given by then
    ejected: bool = False  # by what requests showed


class Change(NamedTuple):
    """What a command did to one node; neither state says whether it is down."""

    key: NodeKey
    before: State
    state: State
    down: bool


class NodeStates:
    """The states of all nodes in force."""

    def __init__(self, segment: SharedSegment, slots: Slots, reader: Reader) -> None:
        self.segment, self.slots, self.reader = segment, slots, reader
        self.words: dict[NodeKey, Word] = {}
        self.watches: dict[NodeKey, Watch] = {}
        self.down: set[NodeKey] = set()  # as monitors find
        self._configured: dict[NodeKey, bool] = {}
        self._leaving: set[NodeKey] = set()  # their host names lead to them no more

    def adopt(self, cfg: Config, taken: Collection[NodeKey]) -> list[str]:
        """Another configuration: writes every node's state; a line for each word that is over.

        `taken` are the nodes whose slots are new.
        """
        before, self._configured = self._configured, configured(cfg)
        self._leaving = {
            node_key(pool, address) for (pool, address), one in cfg.hosts.items() if one.leaving
        }
        over = []
        for key, word in list(self.words.items()):
            if self._configured.get(key) != word.configured:
                over.append(errors.WORD_OVER.line(node=written(key), why=self._why_over(key)))
                del self.words[key]
        table = self.segment.address(self.segment.node_table)
        now = boot_ms()
        for key in before.keys() - self._configured.keys():
            self.watches.pop(key, None)
        self.down &= self._configured.keys()
        for key in self._configured:
            slot = self.slots.nodes.used[key]
            if key in taken:
                open_slot(table, slot, self.wanted(key))
                if before:
                    set_returned(table, slot, now)  # as cold as one that returns
            elif not before and get_state(table, slot) == "down":
                self.down.add(key)  # as another control process has found
            if key in taken or key not in before:
                self.watches[key] = Watch(now)
            self._write(key)
        return over

    def _why_over(self, key: NodeKey) -> str:
        if key not in self._configured:
            return "it is not configured any more"
        return f"draining = {str(self._configured[key]).lower()} is new in the configuration"

    def asked(self, key: NodeKey) -> State:
        """The state that configuration and operator want: never "down"."""
        word = self.word(key)
        return state_of(word.draining or key in self._leaving, word.disabled)

    def wanted(self, key: NodeKey) -> State:
        """The state that workers see."""
        word = self.word(key)
        return state_of(word.draining or key in self._leaving, word.disabled, key in self.down)

    def found(self, key: NodeKey, down: bool) -> None:
        """What the monitors of a node say together takes effect."""
        if down:
            self.down.add(key)
        else:
            self.down.discard(key)
        self._write(key)

    def word(self, key: NodeKey) -> Word:
        """What was said about the node; without a command, what the configuration says."""
        draining = self._configured[key]
        return self.words.get(key) or Word(draining, False, draining)

    def after(self, verb: Verb, keys: Iterable[NodeKey]) -> dict[NodeKey, State]:
        """Every node's state, were the command carried out."""
        states = {key: self.wanted(key) for key in self._configured}
        for key in keys:
            word = self.word(key).after(verb)
            draining = word.draining or key in self._leaving
            states[key] = state_of(draining, word.disabled, key in self.down)
        return states

    def carry_out(self, verb: Verb, keys: Iterable[NodeKey]) -> list[Change]:
        """What the operator says about nodes takes effect."""
        changes = []
        for key in keys:
            before, word = self.asked(key), self.word(key).after(verb)
            if word.says_something:
                self.words[key] = word
            else:
                self.words.pop(key, None)
            self._write(key)
            changes.append(Change(key, before, self.asked(key), key in self.down))
        return changes

    def _write(self, key: NodeKey) -> None:
        """Into the node table; and begins or ends to watch the node leave."""
        table = self.segment.address(self.segment.node_table)
        slot, state = self.slots.nodes.used[key], self.wanted(key)
        if state == "up" and get_state(table, slot) in ("down", "disabled"):
            set_returned(table, slot, boot_ms())
        set_state(table, slot, state)
        watch = self.watches[key]
        if self.asked(key) == "up":
            watch.left_ms = None
        elif watch.left_ms is None:
            watch.left_ms, watch.requests = boot_ms(), self.reader.node(slot)["requests"]

    def look(self) -> None:
        """Notes which of the nodes that leave are busy, and says which are left out by requests or
        are back; to be called every second or so."""
        table, now = self.segment.address(self.segment.node_table), boot_ms()
        for key, watch in self.watches.items():
            slot = self.slots.nodes.used[key]
            until = ejected_until(table, slot)
            if (until != 0) != watch.ejected:
                watch.ejected = until != 0
                _say_ejected(key, until - now if until else None)
            if watch.left_ms is None:
                continue
            if read_slot(table, slot, self.segment.columns)["connections"]:
                watch.seen_ms = now


def _say_ejected(key: NodeKey, for_ms: int | None) -> None:
    if for_ms is None:
        log.info(f"{written(key)} is back: it has answered")
    else:
        seconds = max(for_ms, 0) / 1000
        log.warn(errors.NODE_EJECTED.line(node=written(key), seconds=seconds))


def configured(cfg: Config) -> dict[NodeKey, bool]:
    """The configuration's `draining` of every node."""
    return {
        node_key(name, node.address): node.draining
        for name, pool in cfg.pools.items()
        for node in pool.nodes
    }


def written(key: NodeKey) -> str:
    """`10.0.0.1:80 of [pools.web]`."""
    return f"{address_of(key)} of [pools.{key.pool}]"


def address_of(key: NodeKey) -> str:
    """`10.0.0.1:80` or `[::1]:80`, as in the configuration."""
    return f"[{key.ip}]:{key.port}" if ":" in key.ip else f"{key.ip}:{key.port}"
