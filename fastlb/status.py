"""What runs now, read from shared memory: for `fastlb status`, in JSON or as tables.

docs/operations.md explains each field; a test compares.
"""

from collections.abc import Callable, Iterable
from typing import Any

import fastlb
from fastlb._core import stats
from fastlb._core.node import read_slot
from fastlb.config import Config
from fastlb.segment import TICK_MS, SharedSegment, Store, boot_ms
from fastlb.slots import Slots, Taken, node_key
from fastlb.workers import Workers

Counters = dict[str, Any]
CACHE_FIGURES = ("hits", "misses", "expiries", "evictions")
STATUS_CLASSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")


class Reader:
    """Sums the workers' counters; those of a slot begin at zero when it is handed out again."""

    def __init__(self, segment: SharedSegment, slots: Slots) -> None:
        self.segment = segment
        self.slots = slots
        self._before: dict[tuple[str, int], Counters] = {}

    def begin(self, taken: Taken) -> None:
        """Notes where the counters of newly taken slots stand."""
        for key in taken.nodes:
            self._note("node", self.slots.nodes.used[key])
        for name in taken.classes:
            self._note("class", self.slots.classes.used[name])
        for name in taken.virtual_servers:
            self._note("virtual_server", self.slots.virtual_servers.used[name])

    def node(self, slot: int) -> Counters:
        return self._since("node", slot)

    def persistence(self, slot: int) -> Counters:
        return self._since("class", slot)

    def virtual_server(self, slot: int) -> Counters:
        return self._since("virtual_server", slot)

    def worker(self, index: int) -> Counters:
        return stats.read_worker(self.segment.address(self.segment.counters[index]))

    def _note(self, kind: str, slot: int) -> None:
        self._before[kind, slot] = self._sum(kind, slot)

    def _since(self, kind: str, slot: int) -> Counters:
        now = self._sum(kind, slot)
        before = self._before.get((kind, slot))
        return now if before is None else combined(now, before, lambda a, b: max(a - b, 0))

    def _sum(self, kind: str, slot: int) -> Counters:
        read: Callable[[int, int], Counters] = getattr(stats, f"read_{kind}")
        total: Counters = {}
        for offset in self.segment.counters:
            one = read(self.segment.address(offset), slot)
            total = combined(total, one, lambda a, b: a + b) if total else one
        return total


def combined(left: Any, right: Any, with_: Callable[[int, int], int]) -> Any:
    """Two readings of the same shape, number by number."""
    if isinstance(left, dict):
        return {key: combined(left[key], right[key], with_) for key in left}
    if isinstance(left, list):
        return [combined(a, b, with_) for a, b in zip(left, right, strict=True)]
    return with_(left, right)


def read_status(cfg: Config, reader: Reader, workers: Workers, generation: int) -> dict[str, Any]:
    """The whole of `fastlb status --json`."""
    now_ms = boot_ms()
    causes: dict[str, int] = {}
    shown = []
    for index in range(workers.count):
        counters = reader.worker(index)
        for cause, count in counters["causes"].items():
            causes[cause] = causes.get(cause, 0) + count
        if index in workers.running:  # not while one is replaced
            shown.append(_worker(index, counters, workers, now_ms))
    return {
        "version": fastlb.__version__,
        "uptime_seconds": (now_ms - reader.segment.epoch_ms) // 1000,
        "generation": generation,
        "workers": shown,
        "virtual_servers": {
            name: _virtual_server(
                [str(address) for address in server.listen],
                reader.virtual_server(reader.slots.virtual_servers.used[name]),
            )
            for name, server in cfg.virtual_servers.items()
        },
        "pools": {
            name: {"nodes": _nodes(cfg, name, reader, workers, now_ms)} for name in cfg.pools
        },
        "persistence": {
            name: _persistence(
                cls.type,
                reader.persistence(reader.slots.classes.used[name]),
                reader.segment.stores.caches.get(name),
                reader.segment.now(),
            )
            for name, cls in cfg.persistence.items()
        },
        "causes": causes,
    }


def _worker(index: int, counters: Counters, workers: Workers, now_ms: int) -> dict[str, Any]:
    worker = workers.running[index]
    started = counters["started_ms"]
    return {
        "index": index,
        "pid": worker.pid,
        "uptime_seconds": (now_ms - started) // 1000 if started else 0,
        "generation": worker.acknowledged,
        "restarts": workers.restarts[index],
        **{key: counters[key] for key in ("connections", "requests", "gil_acquisitions")},
        "accept_pauses": counters["accept_pauses"],
        "retries": counters["retries"],
        "log_lines_dropped": counters["log_lines_dropped"],
        "buffers_refused": counters["buffers_refused"],
    }


def _virtual_server(listen: list[str], counters: Counters) -> dict[str, Any]:
    statuses = dict(zip(STATUS_CLASSES, counters.pop("statuses"), strict=True))
    return {"listen": listen, **counters, "statuses": statuses}


def _nodes(
    cfg: Config, pool: str, reader: Reader, workers: Workers, now_ms: int
) -> list[dict[str, Any]]:
    table = reader.segment.address(reader.segment.node_table)
    shown = []
    for node in cfg.pools[pool].nodes:
        slot = reader.slots.nodes.used[node_key(pool, node.address)]
        reading = read_slot(table, slot, workers.count)
        counters = reader.node(slot)
        used_at = reading["used_at_ms"]
        shown.append(
            {
                "address": str(node.address),
                "state": reading["state"],
                "weight": node.weight,
                "backup": node.backup,
                "connections": reading["connections"],
                "sessions": counters["sessions"],
                "idle_seconds": max(now_ms - used_at, 0) // 1000 if used_at else None,
                "safe_to_remove": reading["state"] != "up" and reading["connections"] == 0,
                "response_ms": reading["response_us"] / 1000 if reading["response_us"] else None,
                "requests": counters["requests"],
                "connects": counters["connects"],
                "connect_failures": counters["connect_failures"],
                "reuses": counters["reuses"],
                "pooled": counters["idle"],
            }
        )
    return shown


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


def as_tables(status: dict[str, Any]) -> str:
    """The same for people: one small table for each kind of thing."""
    workers, uptime = status["workers"], _duration(status["uptime_seconds"])
    parts = [f"fastlb {status['version']}, up {uptime}, generation {status['generation']}"]
    parts.append(
        _table(
            ("worker", "pid", "connections", "requests", "restarts"),
            (
                (w["index"], w["pid"], w["connections"], w["requests"], w["restarts"])
                for w in workers
            ),
        )
    )
    parts.append(
        _table(
            ("virtual server", "listen", "connections", "requests", "4xx", "5xx"),
            (
                (
                    name,
                    ", ".join(server["listen"]),
                    server["connections"],
                    server["requests"],
                    server["statuses"]["4xx"],
                    server["statuses"]["5xx"],
                )
                for name, server in status["virtual_servers"].items()
            ),
        )
    )
    parts.append(
        _table(
            ("pool", "node", "state", "weight", "connections", "sessions", "requests", "idle"),
            (
                (
                    name,
                    node["address"],
                    node["state"] + (" (backup)" if node["backup"] else ""),
                    node["weight"],
                    node["connections"],
                    node["sessions"],
                    node["requests"],
                    "-" if node["idle_seconds"] is None else _duration(node["idle_seconds"]),
                )
                for name, pool in status["pools"].items()
                for node in pool["nodes"]
            ),
        )
    )
    if status["persistence"]:
        parts.append(
            _table(
                ("class", "type", "maps", "oldest", "outcomes"),
                (_class_row(name, cls) for name, cls in status["persistence"].items()),
            )
        )
    if status["causes"]:
        failed = ", ".join(f"{cause} {count}" for cause, count in status["causes"].items())
        parts.append(f"failed exchanges: {failed}")
    return "\n\n".join(parts)


def _class_row(name: str, cls: dict[str, Any]) -> tuple[object, ...]:
    maps, oldest = "-", "-"
    if cls["entries"] is not None:
        maps, oldest = f"{cls['entries']}/{cls['entries_max']}", _duration(cls["oldest_seconds"])
    outcomes = ", ".join(f"{key} {count}" for key, count in cls["outcomes"].items() if count)
    return name, cls["type"], maps, oldest, outcomes or "-"


def _table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    lines = [head, *(tuple(map(str, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _duration(seconds: int) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"
