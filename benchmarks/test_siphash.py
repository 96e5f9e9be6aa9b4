"""ns per SipHash-2-4-128 of short inputs: the cost of turning a session key into its hash.

Each hash's input depends on the one before, so this is latency, as a request sees it.
Run: python -m pytest benchmarks/test_siphash.py --benchmark-only
"""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fastlb._core._testing_siphash import hash128_loop

ROUNDS = 20_000


@pytest.mark.parametrize("count", [16, 32, 64])
def test_siphash128(benchmark: BenchmarkFixture, count: int) -> None:
    key, data = bytes(range(16)), bytes(count)
    benchmark.pedantic(hash128_loop, args=(key, data, ROUNDS), rounds=20, warmup_rounds=2)
    benchmark.extra_info["ns_per_hash"] = benchmark.stats.stats.median / ROUNDS * 1e9
    assert len(hash128_loop(key, data, 1)) == 16
