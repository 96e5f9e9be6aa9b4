"""A declared key in a real browser request: reading it, and the whole decision by it.

Beside them the decision of a pool without persistence, with the same algorithm, and that of a
class by source address: what is more is the key's.
"""

import pytest

from benchmarks.messages import BROWSER_REQUEST
from fastlb._core._testing_key import time_key
from fastlb._core.shm import Segment
from tests.core.plans import Class, Setting, nodes

ROUNDS = 1000
REPETITIONS = 200
SID = [("cookie", "PHPSESSID")]
CLASSES = {
    "no persistence": None,
    "ip": Class(),
    "universal cookie": Class(type="universal", key=SID),
    "universal header": Class(type="universal", key=[("header", "User-Agent")]),
    "universal query": Class(type="universal", key=[("query", "sort")]),
    "universal list": Class(type="universal", key=[("source", ""), ("header", "User-Agent")]),
    "hash source": Class(type="hash", key=[("source", "")]),
    "hash cookie": Class(type="hash", key=SID),
}


@pytest.mark.parametrize("count", [3, 12])
@pytest.mark.parametrize("what", CLASSES)
def test_key(benchmark, what: str, count: int) -> None:
    cls = CLASSES[what]
    with Segment.create() as segment:
        world = Setting(classes=[cls] if cls else [], nodes=nodes(count)).world(segment)
        best = {
            whole: min(time_key(world, BROWSER_REQUEST, whole, ROUNDS) for _ in range(REPETITIONS))
            for whole in ((False, True) if cls else (True,))
        }
        print(f"\n{what}, {count} nodes: key {best.get(False, 0):.0f} ns, all {best[True]:.0f} ns")
        benchmark.extra_info["ns"] = best
        benchmark.pedantic(time_key, (world, BROWSER_REQUEST, True, ROUNDS), rounds=5)
