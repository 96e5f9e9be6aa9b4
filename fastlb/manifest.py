"""What a control process tells the next one: by each plan, which the workers keep.

The manifest lies in the plan's texts, behind a mark, so that it is found whatever the layout of the
plan around it. One of another version is read as far as both know the same fields.
"""

import fcntl
import hashlib
import mmap
import os
from collections.abc import Callable
from typing import Any

import msgspec

import fastlb
from fastlb._core import plan
from fastlb._core.node import NODE_TABLE_BYTES
from fastlb._core.outcome import cause_names, outcome_names
from fastlb._core.rule_shared import Region
from fastlb._core.session_store import Cache
from fastlb._core.stats import STATS_BYTES
from fastlb.edits import Edit
from fastlb.slots import ListenerKey, NodeKey, Numbers, Slots
from fastlb.units import InetAddress, UnixAddress, read_inet

MARK = b"fastlb manifest 1:"
LENGTH = 10  # digits
PLAN_BYTES_MAX = 512 << 20
SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
NAMED = ("pools", "classes", "virtual_servers", "rules")  # of Slots: their keys are names
MEANING = 1  # to be raised when something in shared memory comes to mean something else


class CacheEntry(msgspec.Struct, array_like=True, frozen=True):
    """A session cache: where it is, of a class of which type, and how large."""

    region: str
    type: str
    size: int


class NumberedEntry(msgspec.Struct, array_like=True, frozen=True):
    """The numbers of one kind of things (slots.Numbers); a key is a list of what it is made of."""

    used: list[tuple[list[str | int], int]]
    freed: list[int]
    begun: int


class Manifest(msgspec.Struct, kw_only=True):
    """Everything that is not in the configuration, nor in shared memory by itself."""

    layout: str
    version: str
    generation: int = 0
    epoch_ms: int = 0
    places: list[int] = []
    slots: dict[str, NumberedEntry] = {}
    caches: dict[str, CacheEntry] = {}
    reservations: dict[str, CacheEntry] = {}
    shared: str | None = None  # region of the tables that rules share
    shared_secret: bytes = b""
    retired: list[tuple[int, list[str]]] = []
    counters: list[tuple[str, int, dict[str, Any]]] = []
    ticket_keys: list[bytes] = []
    ticket_age_s: float = 0.0
    drain_ms: int = 0
    edits: list[Edit] = []
    hosts: list[tuple[str, str, str]] = []  # pool, host name with port, address it leads to


def layout() -> str:
    """What two programs must have in common to use the same shared memory."""
    words = "\n".join((*outcome_names(), *cause_names())).encode()
    sizes = (
        NODE_TABLE_BYTES,
        STATS_BYTES,
        plan.LAYOUT,
        Cache.bytes_for(4096),
        Region.bytes_for(4096),
    )
    return f"{MEANING}:{':'.join(map(str, sizes))}:{hashlib.sha256(words).hexdigest()[:8]}"


def new(**values: Any) -> Manifest:
    """One of this program."""
    return Manifest(layout=layout(), version=fastlb.__version__, **values)


def numbered(slots: Slots) -> dict[str, NumberedEntry]:
    """The numbers of everything that a plan names."""
    written = {
        "nodes": _entry(slots.nodes, list),
        "listeners": _entry(slots.listeners, lambda key: [key.virtual_server, str(key.address)]),
    }
    for kind in NAMED:
        written[kind] = _entry(getattr(slots, kind), lambda name: [name])
    return written


def nodes_of(found: Manifest) -> list[NodeKey]:
    """The nodes that there were."""
    written = found.slots.get("nodes")
    return [NodeKey(*key) for key, _ in written.used] if written is not None else []  # type: ignore[arg-type]


def restore(slots: Slots, written: dict[str, NumberedEntry]) -> None:
    """Gives all the numbers that they had; raises ValueError, KeyError."""
    _restore(slots.nodes, written["nodes"], lambda key: NodeKey(key[0], key[1], key[2]))
    _restore(
        slots.listeners, written["listeners"], lambda key: ListenerKey(key[0], _address(key[1]))
    )
    for kind in NAMED:
        _restore(getattr(slots, kind), written[kind], lambda key: key[0])


def _address(text: str) -> InetAddress | UnixAddress:
    if text.startswith("unix:"):
        return UnixAddress(text.removeprefix("unix:"))
    return read_inet(text, "")


def _entry(numbers: Numbers[Any], write: Callable[[Any], list[str | int]]) -> NumberedEntry:
    used = [(write(key), number) for key, number in numbers.used.items()]
    return NumberedEntry(used, list(numbers.freed), numbers.begun)


def _restore(numbers: Numbers[Any], entry: NumberedEntry, read: Callable[[list[Any]], Any]) -> None:
    numbers.restore(((read(key), number) for key, number in entry.used), entry.freed, entry.begun)


def encode(manifest: Manifest) -> bytes:
    """As it stands in a plan."""
    text = msgspec.json.encode(manifest)
    return MARK + b"%0*d" % (LENGTH, len(text)) + text


def decode(blob: bytes | mmap.mmap) -> Manifest | None:
    """The manifest in a plan's blob; None: there is none that can be read."""
    at = blob.find(MARK)
    if at < 0:
        return None
    text = at + len(MARK) + LENGTH
    try:
        count = int(blob[at + len(MARK) : text])
        return msgspec.json.decode(blob[text : text + count], type=Manifest)
    except (ValueError, msgspec.DecodeError):
        return None


def read(fd: int) -> Manifest | None:
    """The manifest in the plan behind a descriptor; none where that is no sealed plan, whatever it
    is: a worker has shown it."""
    size = os.fstat(fd).st_size
    try:
        sealed = fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS == SEALS
    except OSError:
        return None
    if not sealed or not 0 < size <= PLAN_BYTES_MAX:
        return None
    with mmap.mmap(fd, size, prot=mmap.PROT_READ) as blob:
        return decode(blob)
