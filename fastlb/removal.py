"""When a node can be taken out without ending a session: what is known of it, weighed and said."""

import math
from typing import NamedTuple

from fastlb._core.session_walk import TallyRow
from fastlb.config import CacheClass, Config, CookieClass, NamedClass, XZeusClass
from fastlb.segment import TICK_MS
from fastlb.slots import NodeKey, node_key
from fastlb.uses import classes_of

# Sessions that end with the browser, or that somebody else keeps, cannot be seen: a node that
# nobody has asked for so long is taken to have none.
QUIET_S = 1800
CLOCK_S = 2  # dates in cookies are whole seconds; a busy node is seen once a second

WORDS = {"draining": "drains", "disabled": "is disabled"}


class Maps(NamedTuple):
    """The live session maps that lead to one node of one pool."""

    live: int = 0
    last_s: float | None = 0  # until none is alive if none is used; None: never

    def plus(self, row: TallyRow, expiry: int) -> "Maps":
        """With the maps of one address in one class; `expiry` in ticks, 0: they live on."""
        if not row.live or row.idle is None:
            return self
        if self.last_s is None or not expiry:
            return Maps(self.live + row.live, None)
        left = (expiry - row.idle) * TICK_MS / 1000
        return Maps(self.live + row.live, max(self.last_s, left))


class Removal(NamedTuple):
    """Whether a node can be removed now, and why."""

    safe: bool
    why: str


def removal(
    cfg: Config, pool: str, state: str, connections: int, idle_s: float, maps: Maps | None
) -> Removal | None:
    """For a node that gets no new sessions by the operator's will; None for another.

    `idle_s`: since a request was last in progress there, or since it is a node of this fastlb.
    """
    if state not in WORDS:
        return None
    needed = quiet_needed(cfg, pool)
    left = max(needed - idle_s, 0)
    safe = connections == 0 and left == 0 and (maps is None or maps.live == 0)
    facts = [count(connections, "connection")]
    if maps is not None:
        facts.insert(0, count(maps.live, "session"))
    facts.append(f"idle {int(idle_s)} s" + (f" of {needed} s" if needed else ""))
    end = "safe to remove" if safe else "not yet" + _how_long(connections, left, maps)
    return Removal(safe, f"{WORDS[state]}: {', '.join(facts)}: {end}")


def _how_long(connections: int, left: float, maps: Maps | None) -> str:
    last = maps.last_s if maps is not None else 0
    if last is None:
        return ", its sessions never expire"
    wait = max(left, last)
    return "" if connections or not wait else f", in {math.ceil(wait)} s if nothing comes"


def quiet_needed(cfg: Config, pool: str) -> int:
    """Seconds without a request after which no session that cannot be counted is alive."""
    needed = 0
    for name in classes_of(cfg, pool):
        cls = cfg.persistence[name]
        if isinstance(cls, CookieClass) and cls.timeout_ms:
            needed = max(needed, -(-cls.timeout_ms // 1000) + CLOCK_S)
        elif isinstance(cls, CookieClass | NamedClass | XZeusClass):
            needed = max(needed, QUIET_S)
    return needed


def maps_of_nodes(
    cfg: Config, pool: str, counted: dict[str, list[TallyRow]], ticks: dict[str, int]
) -> dict[NodeKey, Maps] | None:
    """The maps that lead to each node of a pool, as decisions resolve them; None: no cache.

    `counted`: each cache class's maps by address, `ticks` its expiry.
    """
    chain = [n for n in classes_of(cfg, pool) if isinstance(cfg.persistence[n], CacheClass)]
    if not chain:
        return None
    keys = [node_key(pool, node.address) for node in cfg.pools[pool].nodes]
    found = dict.fromkeys(keys, Maps())
    by_ip: dict[str, list[NodeKey]] = {}
    for key in keys:
        by_ip.setdefault(key.ip, []).append(key)
    for name in chain:
        for row in counted.get(name, []):
            same = by_ip.get(row.ip, [])
            exact = NodeKey(pool, row.ip, row.port)
            if exact in found or len(same) == 1:
                key = exact if exact in found else same[0]
                found[key] = found[key].plus(row, ticks[name])
    return found


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
