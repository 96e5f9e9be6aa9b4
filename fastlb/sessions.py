"""`fastlb sessions`, as the control process carries it out: what the session caches hold.

A cache may hold millions of maps: it is looked at in steps between which the event loop turns.
"""

import asyncio
from typing import Any, Literal, NamedTuple

from fastlb import errors
from fastlb._core.session_store import MapRow
from fastlb._core.session_walk import Census, Recent, Removal, TallyRow, Walk
from fastlb.config import CacheClass, Config
from fastlb.control_socket import Answer, chosen, text
from fastlb.errors import Refused, did_you_mean
from fastlb.in_force import InForce
from fastlb.plan_class import ticks
from fastlb.segment import TICK_MS, SharedSegment, Store
from fastlb.session_keys import key_hash
from fastlb.units import InetAddress, read_ip, read_ip_port

STEP = 16384  # maps looked at in one turn of the event loop: about a millisecond
LIMIT_MAX = 100_000  # rows of a list
HASH_BYTES = 16
ACTIONS: tuple[Literal["list", "count", "delete", "flush"], ...] = (
    "list", "count", "delete", "flush",
)  # fmt: skip

# Where the sessions of a class are that has no session cache.
ELSEWHERE = {
    "transparent": "its sessions are in the clients' cookies",
    "cookie-insert": "its sessions are in the clients' cookies",
    "cookie": "its sessions are in the clients' cookies",
    "x-zeus": "the application names the node in its cookie",
    "named": "a rule names the node of each request",
    "hash": "the hash of each request's key names the node",
}


class Opened(NamedTuple):
    """One class's cache, as it is at the begin of a command."""

    name: str
    cls: CacheClass
    store: Store
    now: int
    expiry: int  # ticks


class Filters(NamedTuple):
    """Which maps are meant; all None: every one."""

    ip: str | None = None
    port: int | None = None
    key: bytes | None = None


EVERY_ONE = Filters()


def opened(cfg: Config, segment: SharedSegment, name: str) -> Opened:
    """The cache of a class. Raises Refused."""
    cls = cfg.persistence.get(name)
    if cls is None:
        suggestion = did_you_mean(name, cfg.persistence)
        raise Refused(errors.NO_SUCH_CLASS, found=name, suggestion=suggestion)
    if not isinstance(cls, CacheClass):
        raise Refused(errors.NOT_IN_A_CACHE, name=name, type=cls.type, where=ELSEWHERE[cls.type])
    return Opened(name, cls, segment.stores.caches[name], segment.now(), ticks(cls.expiry_ms))


async def walked(segment: SharedSegment, one: Opened, walk: Walk) -> None:
    """Walks to the end. Raises Refused when a reload takes the cache away meanwhile."""
    while walk.step(STEP):
        await asyncio.sleep(0)
        if segment.stores.caches.get(one.name) is not one.store:
            raise Refused(errors.CHANGED_MEANWHILE, name=one.name)


async def census(
    segment: SharedSegment, one: Opened, filters: Filters = EVERY_ONE
) -> list[TallyRow]:
    """The maps of a class by node."""
    walk = Census(one.store.cache, one.now, one.expiry, *filters)
    await walked(segment, one, walk)
    return walk.rows()


class SessionCommands:
    """The command `sessions` of the control socket."""

    def __init__(self, in_force: InForce) -> None:
        self.in_force = in_force

    async def run(self, request: Answer) -> Answer:
        action = chosen(request, "action", ACTIONS)
        cfg, segment = self.in_force.cfg, self.in_force.segment
        assert cfg is not None
        one = opened(cfg, segment, text(request, "class"))
        filters = self._filters(request, one)
        match action:
            case "list":
                done = await self._list(one, filters, request.get("limit"))
            case "count":
                done = _counted(await census(segment, one, filters))
            case "delete":
                done = await self._delete(one, filters)
            case "flush":
                done = {"deleted": await self._remove(one, EVERY_ONE)}
        return {"ok": True, "answer": {"class": one.name, "type": one.cls.type, **done}}

    def _filters(self, request: Answer, one: Opened) -> Filters:
        node, digits = text(request, "node", optional=True), text(request, "hash", optional=True)
        parts, key = request.get("key"), None
        if parts is not None:
            key = key_hash(self.in_force.keys, one.name, one.cls, _bytes_of(parts))
        elif digits is not None:
            key = _hash_of(digits)
        if node is None:
            return Filters(key=key)
        wanted = read_ip_port(node)
        if wanted is None:
            raise Refused(errors.BAD_COMMAND, reason=f'"{node}" is no IP address, nor with a port')
        return Filters(str(wanted[0]), wanted[1], key)

    async def _list(self, one: Opened, filters: Filters, limit: object) -> Answer:
        if not isinstance(limit, int) or not 1 <= limit <= LIMIT_MAX:
            raise Refused(errors.BAD_COMMAND, reason=f"limit is not from 1 to {LIMIT_MAX}")
        walk = Recent(one.store.cache, one.now, one.expiry, limit, *filters)
        await walked(self.in_force.segment, one, walk)
        rows = [_shown(row, one.expiry) for row in walk.rows()]
        return {"count": walk.live, "sessions": rows}

    async def _delete(self, one: Opened, filters: Filters) -> Answer:
        if filters == EVERY_ONE:
            raise Refused(errors.BAD_COMMAND, reason="delete needs a node, a key or a hash")
        deleted = await self._remove(one, filters)
        if filters.key is not None and not deleted:
            what = "key" if filters.ip is None else "key on that node"
            raise Refused(errors.NO_SUCH_SESSION, name=one.name, what=what)
        return {"deleted": deleted}

    async def _remove(self, one: Opened, filters: Filters) -> int:
        if filters.key is not None and filters.ip is None:
            return int(one.store.cache.delete(filters.key))
        walk = Removal(one.store.cache, one.now, one.expiry, *filters)
        await walked(self.in_force.segment, one, walk)
        return walk.removed


def _bytes_of(parts: Any) -> list[bytes]:
    """The parts of a key, each sent as the hexadecimal digits of its bytes."""
    try:
        return [bytes.fromhex(part) for part in parts]
    except (TypeError, ValueError):
        raise Refused(errors.BAD_COMMAND, reason="key is no list of hexadecimal texts") from None


def _hash_of(digits: str) -> bytes:
    try:
        key = bytes.fromhex(digits)
    except ValueError:
        key = b""
    if len(key) != HASH_BYTES:
        reason = f'hash "{digits}" is not {2 * HASH_BYTES} hexadecimal digits'
        raise Refused(errors.BAD_COMMAND, reason=reason)
    return key


def node_text(ip: str, port: int) -> str:
    address = read_ip(ip)
    assert address is not None
    return str(InetAddress(address, port))


def seconds(in_ticks: int) -> int:
    return in_ticks * TICK_MS // 1000


def _shown(row: MapRow, expiry: int) -> Answer:
    ends = [left for left in (expiry and expiry - row.idle, row.remaining) if left]
    return {
        "hash": row.key.hex(),
        "node": node_text(row.ip, row.port),
        "age_seconds": seconds(row.age),
        "idle_seconds": seconds(row.idle),
        "remaining_seconds": seconds(min(ends)) if ends else None,
    }


def _counted(rows: list[TallyRow]) -> Answer:
    rows = sorted(rows, key=lambda row: (-row.live, row.ip, row.port))
    nodes = [
        {"node": node_text(row.ip, row.port), "count": row.live, "expired": row.expired}
        for row in rows
    ]
    return {
        "count": sum(row.live for row in rows),
        "expired": sum(row.expired for row in rows),
        "nodes": nodes,
    }
