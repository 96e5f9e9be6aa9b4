"""python -m benchmarks.session_cache: a session cache from a thousand to ten million maps.

For each size ns per operation, CPU time. Keys are drawn at random from all maps, the worst
case for the processor's caches, and each depends on what the one before found, so that
nothing overlaps; "hot" draws from 1,000 of them, which shows the cost of the
structure itself. "memory" is what no structure can avoid: the same keys, only their buckets
and first entries read, nothing looked at, no lock (Probe.walks); "hit - memory" is what the
cache adds to that. What making the keys costs is measured alone and subtracted.

Then two processes on one cache, and how near to true LRU evictions are.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastlb._core._testing_session_cache import Probe
from fastlb._core.session_store import Cache
from fastlb._core.shm import Segment

from . import machine, report

SIZES = (1_000, 4_096, 10_000, 100_000, 1_000_000, 10_000_000)
NEARNESS = (  # maps, keys drawn (skewed), uses, uses per tick
    (4_096, 20_000, 300_000, 50),
    (8_192, 40_000, 1_000_000, 50),
    (100_000, 500_000, 3_000_000, 500),
    (1_000_000, 3_000_000, 6_000_000, 5_000),
)
MEMORY_AIM = (1_000_000, 100 << 20)
LOOKUP_AIM_NS, SLOWING_AIM = 150, 2.0
CONTENDED = (4_096, 100_000)


@dataclass(frozen=True)
class Effort:
    largest: int
    operations: int  # of one timing
    repeats: int
    nearness: int  # rows of NEARNESS
    contended: tuple[int, ...]


FULL = Effort(10_000_000, 1_000_000, 5, 4, CONTENDED)
QUICK = Effort(1_000_000, 300_000, 2, 3, CONTENDED)
TINY = Effort(4_096, 2_000, 1, 1, CONTENDED[:1])


@dataclass(frozen=True)
class Point:
    """One size; ns per operation."""

    size: int
    hot: float
    hit: float
    memory: float
    miss: float
    claim: float
    store: float
    evict: float

    @property
    def own(self) -> float:
        return self.hit - self.memory


class Timing:
    """Operations on one full cache, in ns without making the keys; the best of some runs."""

    def __init__(self, probe: Probe, effort: Effort) -> None:
        self._probe = probe
        self._effort = effort

    def _seeds(self) -> range:
        return range(self._effort.repeats)

    def _ns(self, seconds: Sequence[float], keys: int) -> float:
        count = self._effort.operations
        making = min(self._probe.keys_only(keys, count, seed) for seed in self._seeds())
        return (min(seconds) - making) / count * 1e9

    def lookups(self, keys: int, first: int = 0, claim: bool = False) -> float:
        count = self._effort.operations
        run = self._probe.lookups
        run(keys, count, 101, 99, first, claim)
        runs = [run(keys, count, 101, seed, first, claim) for seed in self._seeds()]
        if any(hits != (0 if first else count) for _, hits in runs):
            raise AssertionError("look-ups found other maps than were stored")
        return self._ns([seconds for seconds, _ in runs], keys)

    def walks(self, keys: int) -> float:
        count = self._effort.operations
        return self._ns([self._probe.walks(keys, count, seed) for seed in self._seeds()], keys)


def point(size: int, effort: Effort) -> Point:
    with Segment.create() as segment:
        probe = Probe(segment, "c", size)
        store = probe.fill(0, size, 100) / size * 1e9
        timing = Timing(probe, effort)
        evicted = min(size, effort.operations // 5)
        return Point(
            size,
            hot=timing.lookups(min(size, 1000)),
            hit=timing.lookups(size),
            memory=timing.walks(size),
            miss=timing.lookups(size, 1 << 40),
            claim=timing.lookups(size, claim=True),
            store=store,
            evict=probe.fill(1 << 41, evicted, 105) / evicted * 1e9,
        )


def _curve_rows(points: Sequence[Point]) -> list[report.Row]:
    head = ["maps", "bytes/map", "hot", "hit", "memory", "hit - memory", "miss", "claim"]
    rows = [[*head, "store", "store that evicts"]]
    for one in points:
        figures = (one.hot, one.hit, one.memory, one.own, one.miss, one.claim)
        shown = [f"{ns:.0f}" for ns in (*figures, one.store, one.evict)]
        rows.append([f"{one.size:,}", f"{Cache.bytes_for(one.size) / one.size:.1f}", *shown])
    return rows


def _verdicts(points: Sequence[Point]) -> list[str]:
    size, most = MEMORY_AIM
    taken = Cache.bytes_for(size)
    lines = [
        f"aim {size:,} maps in {most >> 20} MiB: {taken / (1 << 20):.1f} MiB, {_met(taken <= most)}"
    ]
    slowest = max(max(one.hot, one.own) for one in points)
    lines.append(
        f"aim look-up < {LOOKUP_AIM_NS} ns, waiting for memory aside: at most {slowest:.0f}, "
        f"{_met(slowest < LOOKUP_AIM_NS)}"
    )
    ratio = points[-1].hot / points[0].hot
    lines.append(
        f"aim {points[-1].size:,} maps ≤ {SLOWING_AIM:g} × {points[0].size:,}, memory aside (hot): "
        f"{ratio:.2f}, {_met(ratio <= SLOWING_AIM)}"
    )
    lines.append(
        f"with memory: {points[-1].hit / points[0].hit:.1f} × "
        f"({points[0].hit:.0f} to {points[-1].hit:.0f} ns), of which the same reads alone take "
        f"{points[0].memory:.0f} to {points[-1].memory:.0f} ns"
    )
    return lines


def _met(is_met: bool) -> str:
    return "met" if is_met else "MISSED"


def contention(size: int, effort: Effort) -> str:
    """Two processes, each pinned to a processor, hit all of one cache at once: elapsed time."""
    cpus = sorted(os.sched_getaffinity(0))[:2]
    count = 2 * effort.operations
    with Segment.create() as segment:
        probe = Probe(segment, "c", size)
        probe.fill(0, size, 100)
        alone = Timing(probe, effort).lookups(size)
        reading, writing = os.pipe()
        children = []
        for cpu in cpus:
            pid = os.fork()
            if not pid:
                os.sched_setaffinity(0, {cpu})
                begun = time.perf_counter()
                probe.lookups(size, count, 101, cpu)
                seconds = time.perf_counter() - begun
                os.write(writing, f"{seconds / count * 1e9:.0f} ".encode())
                os._exit(0)
            children.append(pid)
        for pid in children:
            os.waitpid(pid, 0)
        together = os.read(reading, 100).decode().split()
        os.close(reading)
        os.close(writing)
    return (
        f"{size:,} maps used by {len(cpus)} processes that do nothing else: {alone:.0f} ns alone, "
        f"{' and '.join(together)} ns together (with making the keys)"
    )


def _quantile(errors: list[int], part: float) -> float:
    """Of a histogram in thousandths; in percent."""
    seen = 0
    for thousandth, count in enumerate(errors):
        seen += count
        if seen >= part * sum(errors):
            return thousandth / 10
    return 100.0


def nearness(count: int) -> list[report.Row]:
    """How much later a dropped map was used than the truly oldest, in parts of the latter's age."""
    parts = (0.5, 0.9, 0.99, 1)
    rows = [["maps", "evictions", "p50", "p90", "p99", "worst"]]
    for size, keys, uses, per_tick in NEARNESS[:count]:
        with Segment.create() as segment:
            errors = Probe(segment, "c", size).nearness(keys, uses, per_tick, 1)
        shown = [f"{_quantile(errors, part):.1f} %" for part in parts]
        rows.append([f"{size:,}", f"{sum(errors):,}", *shown])
    return rows


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.session_cache",
        description="A session cache from a thousand to ten million maps.",
        epilog="example: python -m benchmarks.session_cache --quick",
    )
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument("--quick", action="store_true", help="up to a million maps, rough figures")
    effort.add_argument("--tiny", action="store_true", help="only whether everything runs")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="a page with marks: between them"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    effort = QUICK if arguments.quick else TINY if arguments.tiny else FULL
    started = time.monotonic()
    points = [point(size, effort) for size in SIZES if size <= effort.largest]
    tables = [_curve_rows(points), nearness(effort.nearness)]
    lines = _verdicts(points) + [contention(size, effort) for size in effort.contended]
    about = machine.about(took_seconds=round(time.monotonic() - started))
    print("\n".join(f"{name}: {value}" for name, value in about.items()))
    for table in tables:
        print("", *report.columns(table), sep="\n")
    print("", *lines, sep="\n")
    if arguments.markdown:
        page = report.markdown_page(about, tables, lines)
        report.markdown_write(arguments.markdown, page, "session cache")
    return 0


if __name__ == "__main__":
    sys.exit(main())
