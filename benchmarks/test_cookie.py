"""Finding one of five cookies in a real browser request, and cutting it out; see test_head.py."""

import pytest

from benchmarks.messages import BROWSER_REQUEST
from fastlb._core import _testing_cookie as core

ROUNDS = 1000
REPETITIONS = 300


@pytest.mark.parametrize(
    ("what", "name", "cut"),
    [
        ("find", b"X-Mapping-deadbeef", False),
        ("find none", b"X-Mapping-00000000", False),
        ("cut", b"X-Mapping-deadbeef", True),
    ],
)
def test_cookie(benchmark, what: str, name: bytes, cut: bool) -> None:
    best = min(core.time_cookies(BROWSER_REQUEST, name, cut, ROUNDS)[0] for _ in range(REPETITIONS))
    print(f"\n{what}: {best} ns")
    benchmark.extra_info["ns"] = best
    benchmark.pedantic(core.time_cookies, (BROWSER_REQUEST, name, cut, 1000), rounds=20)
