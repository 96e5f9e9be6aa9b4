"""Keys from source addresses."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlb._core._testing_decide import World
from fastlb._core.shm import Segment
from tests.core.plans import Class, Setting, get
from tests.core.test_address import MAPPED, V4, V6, packed


@pytest.fixture(scope="module")
def world():
    prefixes = [(32, 128), (24, 56), (0, 0), (9, 33)]
    with Segment.create() as segment:
        classes = [
            Class(f"c{i}", ipv4_prefix=v4, ipv6_prefix=v6) for i, (v4, v6) in enumerate(prefixes)
        ]
        made = Setting(classes=classes).world(segment)
        made_prefixes[:] = prefixes
        yield made


made_prefixes: list[tuple[int, int]] = []


def network(address, v4: int, v6: int):
    if packed(address).startswith(MAPPED):
        return ip_network((int.from_bytes(packed(address)[12:]), v4), strict=False)
    return ip_network((address, v6), strict=False)


@given(V4 | V6, V4 | V6, st.integers(0, 3), st.integers(0, 127))
def test_one_key_per_network(world: World, one, other, index: int, bit: int) -> None:
    near = type(one)(int(one) ^ 1 << bit % (8 * len(one.packed)))
    for beside in (other, near):
        if not any(packed(one)) or not any(packed(beside)):
            continue
        same = network(one, *made_prefixes[index]) == network(beside, *made_prefixes[index])
        keys = [world.find(index, str(each))["key"] for each in (one, beside)]
        assert (keys[0] == keys[1]) == same


def test_what_is_found(world: World) -> None:
    found = world.find(0, "192.0.2.1", get("Cookie: a=b"))
    assert (found["kind"], found["duplicates"], found["cookie_seen"]) == ("key", False, False)
    assert found["key"] == world.find(0, "::ffff:192.0.2.1")["key"]
    # A keyed hash: nothing of the address is in it.
    assert bytes([192, 0, 2, 1]) not in found["key"]


def test_a_client_without_address_has_no_key(world: World) -> None:
    found = world.find(0, "::")
    assert (found["kind"], found["outcome"]) == ("nothing", "no-key")


def test_0_0_0_0_is_an_address(world: World) -> None:
    assert world.find(0, "0.0.0.0")["kind"] == "key"
