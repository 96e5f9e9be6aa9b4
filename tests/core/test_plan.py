"""The plan's own rules; what a configuration becomes in it is tests/test_plan.py's."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlb._core._testing_plan import network_has, read_plan
from fastlb._core.plan import KEY_NAMES, PlanBuilder


def builder(networks=()):
    """A plan of one virtual server without anything behind it."""
    one = PlanBuilder()
    one.set_global(
        generation=1,
        workers=1,
        log_format="off",
        node_table_offset=64,
        epoch_ms=0,
        keys=[bytes(16)] * len(KEY_NAMES),
    )
    one.add_virtual_server(
        name="é",
        slot=3,
        protocol="http",
        pool=0,
        routes=(0, 0),
        trusted=one.add_networks(list(networks)),
        decision=(0, 0),
    )
    return one


def node(one, **more):
    values = {"ip": "10.0.0.1", "port": 80, "slot": 0, "weight": 1, "max_connections": 0,
              "backup": False, "hash_seed": 0}  # fmt: skip
    return one.add_node(**(values | more))


def test_an_empty_plan_is_a_plan():
    assert read_plan(builder().finish())["virtual_servers"][0]["name"] == "é"


@pytest.mark.parametrize("cut", [0, 3, 100, -1])
def test_a_part_of_a_plan_is_refused(cut):
    blob = builder().finish()
    with pytest.raises(ValueError, match="not a plan"):
        read_plan(blob[:cut])


@pytest.mark.parametrize("at", [0, 4, 32])
def test_a_plan_of_another_build_is_refused(at):
    blob = bytearray(builder().finish())
    blob[at] ^= 1
    with pytest.raises(ValueError, match="not a plan"):
        read_plan(bytes(blob))


@pytest.mark.parametrize(
    "wrong", [{"slot": -1}, {"slot": 4096}, {"ip": "example.com"}, {"ip": ""}, {"ip": "10.0.0"}]
)
def test_a_node_that_would_break_the_layout_is_refused(wrong):
    with pytest.raises(ValueError, match="plan:"):
        node(builder(), **wrong)


def test_keys_have_their_number_and_length():
    for keys in ([bytes(16)] * 3, [bytes(16)] * 3 + [bytes(15)]):
        with pytest.raises(ValueError, match="plan:"):
            PlanBuilder().set_global(generation=1, workers=1, log_format="off",
                                     node_table_offset=0, epoch_ms=0, keys=keys)  # fmt: skip


def test_equal_texts_are_kept_once():
    one, two = builder(), builder()
    node(one, slot=1)
    node(two, slot=1)
    node(two, slot=2)
    assert len(two.finish()) - len(one.finish()) < 100


FOUR = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address)
SIX = st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address).filter(lambda ip: not ip.ipv4_mapped)


@given(st.data())
def test_networks_agree_with_another_implementation(data):
    network_ip, ip = data.draw(FOUR | SIX), data.draw(FOUR | SIX)
    bits = data.draw(st.integers(0, network_ip.max_prefixlen))
    if data.draw(st.booleans()) and ip.version == network_ip.version:  # nearly the same
        flipped = data.draw(st.integers(0, network_ip.max_prefixlen - 1))
        ip = type(ip)(int(network_ip) ^ 1 << flipped)
    network = ipaddress.ip_network((network_ip, bits), strict=False)
    blob = builder([(str(network.network_address), bits)]).finish()
    expected = ip in network
    if ip.version == 4 and network.version == 6:  # mapped, as the core keeps it
        expected = ipaddress.IPv6Address(f"::ffff:{ip}") in network
    assert network_has(blob, 0, "trusted", str(ip)) == expected
