"""Head parsing: one real browser request (701 bytes) and one server's response (313 bytes).

pytest-benchmark times the call from Python; `ns_per_parse` in its extra data, printed with -s, is
timed in a loop without the GIL and is what a request costs the data plane. Not shown by it: a
branch predictor that has not seen the same head a moment ago.
"""

import pytest

from benchmarks.messages import BROWSER_REQUEST, RESPONSE
from fastlb._core import _testing_head as core

ROUNDS = 1000  # short, so that some of the repetitions are undisturbed
REPETITIONS = 300


@pytest.mark.parametrize(
    ("name", "data", "request_head"),
    [
        ("request", BROWSER_REQUEST, True),
        ("response", RESPONSE, False),
    ],
)
def test_parse(benchmark, name: str, data: bytes, request_head: bool) -> None:
    best = min(core.time_parse(data, ROUNDS, request_head) for _ in range(REPETITIONS))
    print(f"\n{name} head, {len(data)} bytes: {best} ns per parse")
    benchmark.extra_info["ns_per_parse"] = best
    benchmark.pedantic(core.time_parse, (data, 1000, request_head), rounds=20)


@pytest.mark.parametrize("size", [16, 64, 256, 1024, 4096])
def test_scan_versions(benchmark, size: int) -> None:
    """Why values are scanned by blocks of 64 (`stops`, SSE2, AVX2 for long runs)."""
    data = b"a" * size
    best = {
        version: min(core.time_scan(version, data, ROUNDS) for _ in range(REPETITIONS))
        for version in ("plain", "sse2", "stops")
    }
    print(f"\nvalue of {size} bytes: " + ", ".join(f"{v} {ns} ns" for v, ns in best.items()))
    benchmark.extra_info.update(best)
    benchmark.pedantic(core.time_scan, ("stops", data, 1000), rounds=20)
