"""ns per session cache operation at three sizes; keys are drawn at random, so the larger
caches show the memory's latency. Making a key (about 3 ns) is included.

Run: python -m pytest benchmarks/test_session_cache.py --benchmark-only
"""

from collections.abc import Callable, Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fastlb._core._testing_session_cache import Probe
from fastlb._core.shm import Segment

ROUNDS = 50_000
SIZES = [4096, 32_768, 100_000]


@pytest.fixture(params=SIZES)
def probe(request: pytest.FixtureRequest) -> Iterator[Probe]:
    with Segment.create() as segment:
        full = Probe(segment, "c", request.param)
        full.fill(0, request.param, 100)
        yield full


def measure(benchmark: BenchmarkFixture, work: Callable[[], object]) -> None:
    benchmark.pedantic(work, rounds=20, warmup_rounds=2)
    benchmark.extra_info["ns"] = benchmark.stats.stats.median / ROUNDS * 1e9


def test_hit(benchmark: BenchmarkFixture, probe: Probe) -> None:
    measure(benchmark, lambda: probe.lookups(4096, ROUNDS, 101, 1))


def test_miss(benchmark: BenchmarkFixture, probe: Probe) -> None:
    measure(benchmark, lambda: probe.lookups(4096, ROUNDS, 101, 1, 1 << 40))


def test_store_that_evicts(benchmark: BenchmarkFixture, probe: Probe) -> None:
    first = iter(range(1 << 41, 1 << 42, ROUNDS))
    measure(benchmark, lambda: probe.fill(next(first), ROUNDS, 101))


def test_lock(benchmark: BenchmarkFixture, probe: Probe) -> None:
    measure(benchmark, lambda: probe.lock_pairs(ROUNDS))
