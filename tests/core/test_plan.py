"""A plan is read back as it was built; what is no plan of this build is refused."""

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb._core import _testing_plan as core
from fastlb._core.plan import CLASS_FLAGS, PlanBuilder
from tests.core.plans import KEYS, Class, Node, Setting
from tests.core.test_address import V4, V6, packed

MAPPED = b"\0" * 10 + b"\xff\xff"

FULL = Setting(
    nodes=[
        Node("10.0.0.1:8080", weight=3, max_connections=200),
        Node("[2001:db8::1]:65535", backup=True, weight=1),
        Node("10.0.0.3:1", weight=0),
    ],
    classes=[
        Class("shop", type="transparent", fallback="by-ip", failure_mode="redirect",
              redirect_url="/entschuldigung/ä", timeout_s=1800, max_lifetime_s=86400),
        Class("by-ip", ipv4_prefix=24, ipv6_prefix=56, failure_mode="close", expiry_ticks=18000,
              flags=tuple(CLASS_FLAGS)),
    ],
    algorithm="least-connections",
    refuse_last_draining=True,
    trusted=[("10.0.0.0", 8), ("2001:db8::", 32)],
    decision=[("127.0.0.0", 8)],
    routes=[("api.example.com", "/v1/", 0), ("", "/x", 0)],
    protocol="https",
    log_format="combined",
    timeouts={"client_header": 1, "client_body": 2, "keep_alive": 3, "connect": 4, "response": 5,
              "tunnel": 6, "drain": 7, "node_keep_alive": 8, "handshake": 9},
)  # fmt: skip


@pytest.fixture(scope="module")
def image() -> core.PlanImage:
    return FULL.image()


def test_scalars(image: core.PlanImage) -> None:
    read = image.scalars()
    assert read["bytes"] == len(FULL.blob())
    assert (read["generation"], read["workers"], read["log_format"]) == (7, 2, 2)
    assert (read["node_table_offset"], read["epoch_ms"]) == (4096, 12345)
    assert read["keys"] == [struct.unpack("<QQ", key) for key in KEYS]
    assert list(read["timeouts"].values()) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert read["limits"] == {
        "max_connections": 1000, "request_line_bytes": 8192, "head_bytes": 32768,
        "field_count": 200, "body_bytes": 0, "buffer_bytes": 1 << 20,
        "handshakes": 0, "handshakes_per_second": 0, "field_bytes": 0, "empty_lines": 4,
        "chunk_line_bytes": 4096, "trailer_bytes": 8192,
    }  # fmt: skip


def test_tables(image: core.PlanImage) -> None:
    assert image.listeners() == [(1, 0)]
    assert image.routes() == [("api.example.com", "/v1/", 0), ("", "/x", 0)]
    assert image.virtual_servers() == [{
        "name": "shop", "slot": 0, "protocol": 1, "pool": 0, "routes": (0, 2), "trusted": (0, 2),
        "decision": (2, 1),
    }]  # fmt: skip
    assert image.pools() == [{
        "name": "web", "slot": 0, "algorithm": 2, "first_node": 0, "node_count": 3,
        "persistence": 0, "retries": 2, "flags": 17, "schedule": [0, 0, 1, 0],
    }]  # fmt: skip
    assert image.networks(3) == [
        (MAPPED + b"\x0a\0\0\0", 104), (bytes.fromhex("20010db8") + bytes(12), 32),
        (MAPPED + b"\x7f\0\0\0", 104),
    ]  # fmt: skip


def test_nodes(image: core.PlanImage) -> None:
    read = image.nodes(0)
    assert [one["name"] for one in read] == ["10.0.0.1:8080", "[2001:db8::1]:65535", "10.0.0.3:1"]
    assert [one["ip"] for one in read] == [
        MAPPED + b"\x0a\0\0\x01", bytes.fromhex("20010db8000000000000000000000001"),
        MAPPED + b"\x0a\0\0\x03",
    ]  # fmt: skip
    assert [one["port"] for one in read] == [8080, 65535, 1]
    assert [one["flags"] for one in read] == [0, 1, 0]
    assert [one["slot"] for one in read] == [0, 1, 2]
    assert [one["weight"] for one in read] == [3, 1, 0]
    assert [one["max_connections"] for one in read] == [200, 0, 0]
    assert len({one["hash_seed"] for one in read}) == 3


def test_classes(image: core.PlanImage) -> None:
    shop, by_ip = image.classes()
    assert (shop["name"], shop["type"], shop["fallback"], shop["failure_mode"]) == ("shop", 3, 1, 1)
    assert shop["id"] == FULL.classes[0].id
    assert shop["redirect_url"] == "/entschuldigung/ä"
    assert (shop["timeout_s"], shop["max_lifetime_s"]) == (1800, 86400)
    assert shop["cookie_names"] == [(FULL.classes[0].cookie_name, -1)]
    assert shop["cookie_tail"] == "; Path=/; HttpOnly"
    assert (by_ip["fallback"], by_ip["failure_mode"], by_ip["expiry_ticks"]) == (-1, 2, 18000)
    assert (by_ip["ipv4_bits"], by_ip["ipv6_bits"]) == (24, 56)
    assert by_ip["flags"] == sum(CLASS_FLAGS.values()) == 0x1FFFF


def test_several_pools_have_their_own_nodes_and_schedules() -> None:
    builder = PlanBuilder()
    for number, count in enumerate((2, 3)):
        added = [
            builder.add_node(ip="10.0.0.1", port=1000 * number + i, slot=10 * number + i, weight=1,
                             max_connections=0, backup=False, hash_seed=i)
            for i in range(count)
        ]  # fmt: skip
        builder.add_pool(
            name=f"pool-{number}", slot=number, algorithm="hash", first_node=added[0],
            node_count=count, persistence=-1, retries=0, refuse_last_draining=False,
            schedule=list(range(count)) * (number + 1),
        )  # fmt: skip
    builder.set_global(
        generation=1, workers=1, log_format="off", node_table_offset=0, epoch_ms=0,
        keys=[bytes(16)] * 4,
    )  # fmt: skip
    image = core.PlanImage(builder.finish())
    assert [one["schedule"] for one in image.pools()] == [[0, 1], [0, 1, 2, 0, 1, 2]]
    assert [[one["port"] for one in image.nodes(pool)] for pool in (0, 1)] == [
        [0, 1], [1000, 1001, 1002]]  # fmt: skip


def test_every_table_begins_on_a_cache_line(image: core.PlanImage) -> None:
    assert all(offset % 64 == 0 and offset >= core.plan_bytes() for offset in image.offsets())


def test_equal_texts_stand_once() -> None:
    one = len(Setting(routes=[("a.example.com", "/same/prefix", 0)]).blob())
    more = len(Setting(routes=[("a.example.com", "/same/prefix", 0)] * 3).blob())
    assert more - one < 128  # two routes, no texts


def test_names_that_are_no_utf_8_come_back() -> None:
    path = b"/caf\xe9".decode("utf-8", "surrogateescape")
    assert Setting(routes=[("", path, 0)]).image().routes()[0][1] == path


def test_a_whole_plan_is_taken() -> None:
    blob = FULL.blob()
    assert core.check(blob) == 0


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_another_magic_is_refused(at: int) -> None:
    blob = bytearray(FULL.blob())
    blob[at] ^= 1
    assert core.check(bytes(blob)) < 0


@pytest.mark.parametrize("layout", [0, 5, 7, 0xFFFFFFFF])
def test_another_layout_is_refused(layout: int) -> None:
    blob = bytearray(FULL.blob())
    struct.pack_into("<I", blob, 4, layout)
    assert core.check(bytes(blob)) < 0


def test_a_plan_of_other_counters_is_refused() -> None:
    blob = FULL.blob()
    at = struct.calcsize("<IIQQIII")
    size = struct.unpack_from("<I", blob, at)[0]
    other = bytearray(blob)
    struct.pack_into("<I", other, at, size + 8)
    assert core.check(bytes(other)) < 0


@settings(max_examples=50)
@given(st.data())
def test_a_truncated_plan_is_refused(data: st.DataObject) -> None:
    blob = FULL.blob()
    count = data.draw(st.integers(0, len(blob) - 1) | st.integers(0, core.plan_bytes()))
    assert core.check(blob[:count]) < 0


def test_wrong_values_are_refused() -> None:
    builder = PlanBuilder()
    with pytest.raises(ValueError, match="IP address"):
        Setting(nodes=[Node("example.com:80")]).blob()
    with pytest.raises(ValueError, match="slot"):
        builder.add_node(ip="10.0.0.1", port=1, slot=4096, weight=1, max_connections=0,
                         backup=False, hash_seed=0)  # fmt: skip
    arguments = {"generation": 1, "workers": 1, "log_format": "off", "node_table_offset": 0,
                 "epoch_ms": 0}  # fmt: skip
    with pytest.raises(ValueError, match="4 keys"):
        builder.set_global(**arguments, keys=KEYS[:3])
    with pytest.raises(ValueError, match="token mac"):
        builder.set_global(**arguments, keys=[KEYS[0], b"short", *KEYS[2:]])


# ---- networks ----


def inside(address, network) -> bool:
    """ipaddress's opinion, where an IPv4-mapped address is the IPv4 one."""
    base, bits = network
    ip, net = packed(address), packed(base)
    if base.version == 4:
        bits += 96
    # An IPv6 prefix that reaches over the mapped range does not mean IPv4 clients.
    if ip.startswith(MAPPED) and bits < 96:
        return False
    return int.from_bytes(ip) >> 128 - bits == int.from_bytes(net) >> 128 - bits


SOME = [
    ("10.0.0.0", 8), ("10.128.0.0", 9), ("192.0.2.77", 32), ("192.0.2.64", 27), ("0.0.0.0", 1),
    ("2001:db8::", 32), ("2001:db8:0:8000::", 49), ("2001:db8::1", 128), ("8000::", 1),
    ("fe80::", 10), ("::", 95), ("::", 3), ("::ffff:0.0.0.0", 96), ("::ffff:10.0.0.0", 104),
]  # fmt: skip
ONE_EACH = Setting(trusted=SOME).image()


@given(V4 | V6, st.integers(0, len(SOME) - 1), st.integers(0, 127))
def test_networks(address, number: int, flip: int) -> None:
    base = ip_address(SOME[number][0])
    # As a rule nothing is inside: an address that differs from the network's in one bit.
    bit = 1 << flip % (8 * len(base.packed))
    near = type(base)(int(base) ^ bit)
    for one in (address, near, base):
        for i, (network, bits) in enumerate(SOME):
            assert ONE_EACH.network_has(i, 1, str(one)) == inside(one, (ip_address(network), bits))
        expected = any(inside(one, (ip_address(net), bits)) for net, bits in SOME[:number])
        assert ONE_EACH.network_has(0, number, str(one)) == expected


def test_networks_at_the_ends() -> None:
    image = Setting(trusted=[("0.0.0.0", 0), ("::", 0), ("10.0.0.1", 32), ("::1", 128)]).image()
    assert image.network_has(0, 1, "255.255.255.255")
    assert not image.network_has(0, 1, "::1")
    assert image.network_has(1, 1, "ffff::")
    assert not image.network_has(1, 1, "10.0.0.1")
    assert image.network_has(2, 1, "::ffff:10.0.0.1")
    assert not image.network_has(2, 1, "10.0.0.2")
    assert image.network_has(3, 1, "::1")
    assert not image.network_has(3, 1, "::2")
    assert not image.network_has(0, 0, "10.0.0.1")
