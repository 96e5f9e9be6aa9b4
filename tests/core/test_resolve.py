"""From an address that a map or a cookie names to a node of the pool, small pools and large."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb._core._testing_plan import PlanImage
from tests.core.plans import Node, Setting, nodes

MANY = 16  # from here on a pool has an index


def image(addresses: list[str]) -> PlanImage:
    return Setting(nodes=[Node(one) for one in addresses]).image()


def model(addresses: list[tuple[str, int]], ip: str, port: int) -> int:
    if (ip, port) in addresses:
        return addresses.index((ip, port))
    same = [index for index, one in enumerate(addresses) if one[0] == ip]
    return same[0] if len(same) == 1 else -1


ips = st.sampled_from(
    ["10.0.0.1", "10.0.0.2", "10.0.1.1", "192.0.2.9", "2001:db8::1", "2001:db8::2"]
)
pairs = st.tuples(ips, st.integers(1, 9))


@settings(max_examples=150, deadline=None)
@given(st.lists(pairs, min_size=1, max_size=40, unique=True), st.lists(pairs, max_size=8))
def test_a_pool_of_any_size_against_a_model(listed: list[tuple[str, int]], asked) -> None:
    pool = image([f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip, port in listed])
    for ip, port in [*listed, *asked, *((ip, 0) for ip, _ in asked)]:
        assert pool.resolve(ip, port) == model(listed, ip, port)


@pytest.mark.parametrize("count", [MANY - 1, MANY, MANY + 1, 500])
def test_every_node_of_a_pool_is_found(count: int) -> None:
    listed = [f"10.{n >> 8}.{n & 255}.1:80" for n in range(count)]
    pool = image(listed)
    for index, address in enumerate(listed):
        ip = address.removesuffix(":80")
        assert pool.resolve(ip, 80) == pool.resolve(ip, 81) == pool.resolve(ip, 0) == index
    assert pool.resolve("10.255.255.1", 80) == -1


def test_many_ports_of_one_address() -> None:
    pool = image([f"10.0.0.1:{port}" for port in range(1, 301)])
    for port in (1, 150, 300):
        assert pool.resolve("10.0.0.1", port) == port - 1
    assert pool.resolve("10.0.0.1", 301) == pool.resolve("10.0.0.1", 0) == -1


def test_two_large_pools_of_one_plan() -> None:
    """Each has its own index."""
    setting = Setting(nodes=nodes(20))
    assert setting.image().resolve("10.0.0.20", 80) == 19
    setting.nodes.reverse()
    assert setting.image().resolve("10.0.0.20", 80) == 0
