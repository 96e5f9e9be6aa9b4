"""How a session cache behaves from a thousand to ten million maps.

Prints, for each size, ns per hit, miss, store (of a new map into free room) and eviction,
and bytes per map; then two processes on one cache; then how near to LRU evictions are.
Keys are drawn at random from all maps, the worst case for the processor's caches: "hot"
draws from 1,000 of them, which shows the cost of the structure itself. What making the
keys costs is measured alone and subtracted. Times are CPU times, so that a busy machine
disturbs them little; of two processes on one cache, elapsed time with the keys' cost.

Run: python -m benchmarks.session_cache_curve [largest size]
"""

import os
import sys
import time

from fastlb._core._testing_session_cache import Probe
from fastlb._core.session_store import Cache
from fastlb._core.shm import Segment

SIZES = [1_000, 4_096, 10_000, 32_768, 100_000, 1_000_000, 10_000_000]
LOOKUPS = 1_000_000
REPEATS = 3
NEARNESS = [  # maps, keys drawn (skewed), uses, uses per tick
    (4_096, 20_000, 300_000, 50),
    (8_192, 40_000, 1_000_000, 50),
    (100_000, 500_000, 3_000_000, 500),
    (1_000_000, 3_000_000, 6_000_000, 5_000),
]


def lookup_ns(probe: Probe, keys: int, first: int = 0) -> float:
    """The best of some runs; in each, keys in another order."""
    key_cost = min(probe.keys_only(keys, LOOKUPS, seed) for seed in range(REPEATS))
    probe.lookups(keys, LOOKUPS, 101, 99, first)
    best = min(probe.lookups(keys, LOOKUPS, 101, seed, first)[0] for seed in range(REPEATS))
    return (best - key_cost) / LOOKUPS * 1e9


def curve(largest: int) -> None:
    print(f"{'maps':>10} {'hot':>6} {'hit':>6} {'miss':>6} {'store':>6} {'evict':>6}  bytes/map")
    for size in SIZES:
        if size > largest:
            break
        with Segment.create() as segment:
            probe = Probe(segment, "c", size)
            store = probe.fill(0, size, 100) / size * 1e9
            hot, hit = lookup_ns(probe, 1000), lookup_ns(probe, size)
            miss = lookup_ns(probe, size, 1 << 40)
            count = min(size, 200_000)
            evict = probe.fill(1 << 41, count, 105) / count * 1e9
            print(
                f"{size:>10} {hot:>6.0f} {hit:>6.0f} {miss:>6.0f} {store:>6.0f} {evict:>6.0f}"
                f"  {Cache.bytes_for(size) / size:.1f}",
                flush=True,
            )


def contention(size: int) -> None:
    """Two processes, each pinned to a processor, hit all of one cache at once."""
    cpus = sorted(os.sched_getaffinity(0))[:2]
    with Segment.create() as segment:
        probe = Probe(segment, "c", size)
        probe.fill(0, size, 100)
        alone = lookup_ns(probe, size)
        reading, writing = os.pipe()
        children = []
        for cpu in cpus:
            pid = os.fork()
            if not pid:
                os.sched_setaffinity(0, {cpu})
                begun = time.perf_counter()
                probe.lookups(size, 2 * LOOKUPS, 101, cpu)
                seconds = time.perf_counter() - begun
                os.write(writing, f"{seconds / 2 / LOOKUPS * 1e9:.0f} ".encode())
                os._exit(0)
            children.append(pid)
        for pid in children:
            os.waitpid(pid, 0)
        together = os.read(reading, 100).decode()
        print(f"{size:>10} maps: {alone:.0f} ns alone, {together}ns in each of {len(cpus)}")
        os.close(reading)
        os.close(writing)


def quantile(errors: list[int], part: float) -> float:
    seen = 0
    for thousandth, count in enumerate(errors):
        seen += count
        if seen >= part * sum(errors):
            return thousandth / 10
    return 100.0


def nearness() -> None:
    for size, keys, uses, per_tick in NEARNESS:
        with Segment.create() as segment:
            errors = Probe(segment, "c", size).nearness(keys, uses, per_tick, 1)
        shown = "  ".join(f"p{p * 100:g} {quantile(errors, p):.1f}" for p in (0.5, 0.9, 0.99, 1))
        print(f"{size:>10} maps, {sum(errors):>9,} evictions, error in % of the age: {shown}")


if __name__ == "__main__":
    curve(int(sys.argv[1]) if len(sys.argv) > 1 else SIZES[-1])
    contention(4_096)
    contention(100_000)
    nearness()
