"""What runs now, read from shared memory: for `fastlb status --json`.

docs/operations.md explains each field; a test compares.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import fastlb
from fastlb._core.node import read_slot
from fastlb._core.rule_shared import Region
from fastlb._core.session_walk import TallyRow
from fastlb.config import CacheClass, Config, Node, Passive, VirtualServer
from fastlb.counters import Counters
from fastlb.edits import in_words
from fastlb.errors import Refused
from fastlb.host_names import host_of
from fastlb.in_force import InForce
from fastlb.node_states import Watch
from fastlb.plan_class import ticks
from fastlb.removal import Maps, Removal, maps_of_nodes, removal
from fastlb.rule_mark import RuleKind
from fastlb.segment import TICK_MS, SharedSegment, Store, boot_ms
from fastlb.sessions import census, opened
from fastlb.slots import NodeKey, node_key
from fastlb.units import InetAddress
from fastlb.uses import classes_of, rules_of
from fastlb.worker_process import Worker
from fastlb.workers import Workers

if TYPE_CHECKING:
    from fastlb._core.node import NodeReading

Place = tuple[str, InetAddress]  # pool, node
CACHE_FIGURES = ("hits", "misses", "expiries", "evictions")
HEALTH_FIGURES = ("resets", "errors", "ejections", "probes")
STATUS_CLASSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")


async def status_of(in_force: InForce) -> dict[str, Any]:
    """The whole of `fastlb status --json`."""
    while True:
        cfg, segment = in_force.cfg, in_force.segment
        assert cfg is not None
        with suppress(Refused):  # a reload took a cache away while it was counted
            counted = await _counted(cfg, segment, cfg.persistence)
            shared = await asyncio.to_thread(_shared, segment.stores.shared)
            if cfg is in_force.cfg:
                return {**_read(cfg, in_force, counted), "shared": shared}


async def removable(in_force: InForce, places: list[Place]) -> list[NodeKey]:
    """Which of these nodes can be removed without ending a session; none, where a reload came
    between."""
    cfg, segment, now_ms = in_force.cfg, in_force.segment, boot_ms()
    assert cfg is not None
    pools = dict.fromkeys(pool for pool, _ in places)
    try:
        counted = await _counted(cfg, segment, {n for one in pools for n in classes_of(cfg, one)})
    except Refused:
        return []
    if cfg is not in_force.cfg:
        return []
    maps = {pool: maps_of_nodes(cfg, pool, counted, _expiries(cfg)) for pool in pools}
    table, columns = segment.address(segment.node_table), segment.columns
    nodes = {node_key(pool, node.address) for pool in pools for node in cfg.pools[pool].nodes}
    keys = nodes & {node_key(*place) for place in places}
    found = {
        key: _removal(
            cfg,
            key,
            in_force,
            read_slot(table, in_force.slots.nodes.used[key], columns),
            maps[key.pool],
            now_ms,
        )
        for key in keys
    }
    return [key for key, one in found.items() if one is not None and one.safe]


async def _counted(
    cfg: Config, segment: SharedSegment, names: Iterable[str]
) -> dict[str, list[TallyRow]]:
    """The maps of those classes that have a cache. Raises Refused."""
    return {
        name: await census(segment, opened(cfg, segment, name))
        for name in names
        if isinstance(cfg.persistence[name], CacheClass)
    }


def _expiries(cfg: Config) -> dict[str, int]:
    return {
        name: ticks(cls.expiry_ms)
        for name, cls in cfg.persistence.items()
        if isinstance(cls, CacheClass)
    }


def _shared(region: Region | None) -> dict[str, int] | None:
    if region is None:
        return None
    entries, evictions = region.stats()
    return {"entries": entries, "entries_max": region.size, "evictions": evictions}


def _read(cfg: Config, in_force: InForce, counted: dict[str, list[TallyRow]]) -> dict[str, Any]:
    reader, workers = in_force.reader, in_force.workers
    now_ms = boot_ms()
    causes: dict[str, int] = {}
    shown, leaving = [], []
    for index in range(in_force.segment.columns):
        counters = reader.worker(index)
        for cause, count in counters["causes"].items():
            causes[cause] = causes.get(cause, 0) + count
        if index in workers.running:  # not while one is replaced
            shown.append(_worker(workers.running[index], counters, workers, now_ms))
        elif index in workers.leaving and not workers.leaving[index].foreign:
            leaving.append(_worker(workers.leaving[index], counters, workers, now_ms))
    return {
        "version": fastlb.__version__,
        "uptime_seconds": (now_ms - reader.segment.epoch_ms) // 1000,
        "generation": in_force.generation,
        "workers": shown,
        "leaving": leaving,
        "virtual_servers": {
            name: _virtual_server(
                server, reader.virtual_server(reader.slots.virtual_servers.used[name])
            )
            for name, server in cfg.virtual_servers.items()
        },
        "pools": {
            name: {
                **_pool(reader.pool(reader.slots.pools.used[name])),
                "nodes": _nodes(cfg, name, in_force, counted, now_ms),
                "hosts": in_force.names.shown(name),
            }
            for name in cfg.pools
        },
        "edits": [
            {"pool": edit.pool, "address": edit.address, "change": in_words(edit)}
            for edit in in_force.edits
        ],
        "persistence": {
            name: _persistence(
                cls.type,
                reader.persistence(reader.slots.classes.used[name]),
                reader.segment.stores.caches.get(name),
                reader.segment.now(),
            )
            for name, cls in cfg.persistence.items()
        },
        "rules": {
            name: _rule(cfg.rule_kinds.get(name), reader.rule(reader.slots.rules.used[name]))
            for name in rules_of(cfg)
        },
        "causes": causes,
    }


def _pool(counters: Counters) -> dict[str, Any]:
    return {
        "retries": counters["retries"],
        "retries_refused": counters["retries_refused"],
        "waiting": counters["waiting"],
        "waited": counters["waited"],
        "waited_seconds": counters["waited_us"] / 1_000_000,
        "queue_full": counters["queue_full"],
        "queue_timeouts": counters["queue_timeouts"],
    }


def _rule(kind: RuleKind | None, counters: Counters) -> dict[str, Any]:
    seconds = counters.pop("busy_us") / 1_000_000
    known = {"kind": kind and kind.kind, "async": kind and kind.is_async}
    return {**known, **counters, "seconds": seconds}


def _worker(worker: Worker, counters: Counters, workers: Workers, now_ms: int) -> dict[str, Any]:
    started = counters["started_ms"]
    return {
        "index": worker.index,
        "pid": worker.pid,
        "uptime_seconds": (now_ms - started) // 1000 if started else 0,
        "generation": worker.acknowledged,
        "silent_ms": int(worker.silent_s * 1000),
        "restarts": workers.restarts.get(worker.index, 0),
        **{key: counters[key] for key in ("connections", "requests", "gil_acquisitions")},
        "accept_pauses": counters["accept_pauses"],
        "retries": counters["retries"],
        "log_lines_dropped": counters["log_lines_dropped"],
        "buffers_refused": counters["buffers_refused"],
        "objects": counters["objects"],
    }


def _virtual_server(server: VirtualServer, counters: Counters) -> dict[str, Any]:
    statuses = dict(zip(STATUS_CLASSES, counters.pop("statuses"), strict=True))
    tls = counters.pop("tls")
    return {
        "listen": [str(address) for address in server.listen],
        "protocol": server.protocol,
        **counters,
        "statuses": statuses,
        "tls": tls if server.protocol == "https" else None,
    }


def _nodes(
    cfg: Config,
    pool: str,
    in_force: InForce,
    counted: dict[str, list[TallyRow]],
    now_ms: int,
) -> list[dict[str, Any]]:
    maps = maps_of_nodes(cfg, pool, counted, _expiries(cfg))
    return [
        _node(cfg, node, node_key(pool, node.address), in_force, maps, now_ms)
        for node in cfg.pools[pool].nodes
    ]


def _idle_s(key: NodeKey, in_force: InForce, reading: "NodeReading", now_ms: int) -> float:
    """Since a request was last in progress there, or since it is a node of this fastlb."""
    if reading["connections"]:
        return 0.0
    seen_ms = max(reading["used_at_ms"], in_force.states.watches[key].seen_ms)
    return max(now_ms - seen_ms, 0) / 1000


def _removal(
    cfg: Config,
    key: NodeKey,
    in_force: InForce,
    reading: "NodeReading",
    maps: dict[NodeKey, Maps] | None,
    now_ms: int,
) -> Removal | None:
    idle_s = _idle_s(key, in_force, reading, now_ms)
    mine = maps[key] if maps is not None else None
    asked = in_force.states.asked(key)
    return removal(cfg, key.pool, asked, reading["connections"], idle_s, mine)


def _node(
    cfg: Config,
    node: Node,
    key: NodeKey,
    in_force: InForce,
    maps: dict[NodeKey, Maps] | None,
    now_ms: int,
) -> dict[str, Any]:
    slot = in_force.slots.nodes.used[key]
    table = in_force.segment.address(in_force.segment.node_table)
    reading = read_slot(table, slot, in_force.segment.columns)
    counters, watch = in_force.reader.node(slot), in_force.states.watches[key]
    mine = maps[key] if maps is not None else None
    found = _removal(cfg, key, in_force, reading, maps, now_ms)
    host = host_of(cfg, key.pool, node)
    health = _health(cfg.pools[key.pool].passive, reading, counters, now_ms)
    ejected = health["ejected"] and reading["state"] in ("up", "draining")
    return {
        "address": str(node.address),
        "host": str(host) if host is not None else None,
        "state": "down" if ejected else reading["state"],
        "health": health,
        "asked": in_force.states.asked(key),
        "weight": node.weight,
        "backup": node.backup,
        "connections": reading["connections"],
        "sessions": counters["sessions"],
        "live_sessions": mine.live if mine is not None else None,
        "idle_seconds": (
            int(_idle_s(key, in_force, reading, now_ms)) if reading["used_at_ms"] else None
        ),
        "safe_to_remove": found is not None and found.safe,
        "leaving": found and _leaving(watch, counters, now_ms, found.why),
        "response_ms": reading["response_us"] / 1000 if reading["response_us"] else None,
        "requests": counters["requests"],
        "connects": counters["connects"],
        "connect_failures": counters["connect_failures"],
        "reuses": counters["reuses"],
        "pooled": counters["idle"],
        "open": reading["open"],
        "max_connections": node.max_connections or None,
        "waiting": counters["waiting"],
        "monitors": in_force.monitors.shown(key),
    }


def _health(
    passive: Passive, reading: "NodeReading", counters: Counters, now_ms: int
) -> dict[str, Any]:
    """What requests show; one that is ejected stays so until a probe is answered."""
    watched = bool(passive.failures or passive.errors)
    until_ms = reading["ejected_until_ms"] if watched else 0
    return {
        "ejected": until_ms != 0,
        "ejected_ms": max(until_ms - now_ms, 0),
        "failures": reading["failures"],
        **{key: counters[key] for key in HEALTH_FIGURES},
    }


def _leaving(watch: Watch, counters: Counters, now_ms: int, why: str) -> dict[str, Any]:
    left_ms = now_ms if watch.left_ms is None else watch.left_ms
    return {
        "seconds": max(now_ms - left_ms, 0) // 1000,
        "requests": counters["requests"] - watch.requests,
        "why": why,
    }


def _persistence(kind: str, counters: Counters, store: Store | None, now: int) -> dict[str, Any]:
    figures: dict[str, Any] = dict.fromkeys(
        ("entries", "entries_max", "oldest_seconds", *CACHE_FIGURES)
    )
    if store is not None:
        row = store.cache.stats(now)
        figures["entries"], figures["entries_max"] = row.entries, row.size
        figures["oldest_seconds"] = row.oldest * TICK_MS // 1000
        for name in CACHE_FIGURES:
            figures[name] = getattr(row, name)
    return {"type": kind, **figures, **counters}
