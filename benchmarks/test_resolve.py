"""From the address in a cookie to the node of the pool, for pools of all sizes."""

import random

import pytest

from tests.core.plans import Node, Setting

ROUNDS = 5000
REPETITIONS = 20
LAYOUTS = {
    "one network": lambda number: (f"10.0.{number >> 8}.{number & 255}", 8080),
    "one address": lambda number: ("10.0.0.1", 1000 + number),
    "ipv6": lambda number: (f"2001:db8::{number:x}", 80),
}


@pytest.mark.parametrize("count", [3, 15, 16, 100, 1000, 4000])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_resolve(benchmark, layout: str, count: int) -> None:
    pairs = [LAYOUTS[layout](number) for number in range(count)]
    text = [f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip, port in pairs]
    image = Setting(nodes=[Node(one) for one in text]).image()

    def best(ip: str, port: int) -> float:
        return min(image.resolve_time(ip, port, ROUNDS)[0] for _ in range(REPETITIONS))

    some = random.Random(7).sample(pairs, min(count, 10))
    found = sum(best(*one) for one in some) / len(some)
    absent = best("192.0.2.77", 80)
    print(f"\n{layout}, {count} nodes: found {found:.0f} ns, absent {absent:.0f} ns")
    benchmark.extra_info["ns"] = {"found": found, "absent": absent}
    benchmark(image.resolve, *pairs[-1])
