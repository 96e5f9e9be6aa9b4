"""The PROXY protocol: both versions, both directions; the specification's own examples."""

import ipaddress
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb._core import _testing_tls as core

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
CLIENT, SERVER = ("192.168.0.1", 56324), ("192.168.0.11", 443)
CLIENT6, SERVER6 = ("2001:db8::1", 56324), ("2001:db8::2", 443)
V1 = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"


def v2(body: bytes, command: int = 0x21, family: int = 0x11, length: int | None = None) -> bytes:
    count = len(body) if length is None else length
    return SIGNATURE + bytes([command, family]) + count.to_bytes(2, "big") + body


def pair(source: tuple[str, int], destination: tuple[str, int]) -> bytes:
    packed = b"".join(ipaddress.ip_address(ip).packed for ip, _ in (source, destination))
    return packed + struct.pack(">HH", source[1], destination[1])


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


def crc32c(data: bytes) -> int:
    """By a table, unlike the core's."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    total = 0xFFFFFFFF
    for byte in data:
        total = table[(total ^ byte) & 0xFF] ^ total >> 8
    return total ^ 0xFFFFFFFF


# ---- version 1 ----


def test_version_1() -> None:
    assert core.proxy_read(V1 + b"GET / HTTP/1.1\r\n") == {
        "bytes": len(V1), "version": 1, "source": "192.168.0.1:56324",
        "destination": "192.168.0.11:443", "authority": b"", "alpn": b"",
    }  # fmt: skip


def test_version_1_over_ipv6() -> None:
    read = core.proxy_read(b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n")
    assert (read["source"], read["destination"]) == ("[2001:db8::1]:56324", "[2001:db8::2]:443")


@pytest.mark.parametrize("rest", [b"", b" ff:ff:ff 1 2 3 and more"])
def test_version_1_unknown(rest: bytes) -> None:
    read = core.proxy_read(b"PROXY UNKNOWN" + rest + b"\r\n")
    assert (read["version"], read["source"]) == (1, None)


@pytest.mark.parametrize(
    "line",
    [
        b"PROXY \r\n",
        b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n",
        b"PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rX",
        b"PROXY TCP4 1.2.3.4\0 1.2.3.4 1 2\r\n",
        b"PROXY UNKNOWNX\r\n",
        b"PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n",
    ],
)
def test_version_1_malformed(line: bytes) -> None:
    assert core.proxy_read(line) == "malformed"


def test_version_1_is_at_most_107_bytes() -> None:
    longest = b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n"
    assert core.proxy_read(longest)["bytes"] == 107
    assert core.proxy_read(b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n") == "too-long"
    assert core.proxy_read(b"PROXY UNKNOWN " + b"x" * 500) == "too-long"


# ---- version 2 ----


def test_version_2() -> None:
    data = v2(pair(CLIENT, SERVER))
    assert core.proxy_read(data + b"\x16\x03") == {
        "bytes": 28, "version": 2, "source": "192.168.0.1:56324",
        "destination": "192.168.0.11:443", "authority": b"", "alpn": b"",
    }  # fmt: skip


def test_version_2_over_ipv6_with_tlvs() -> None:
    body = pair(CLIENT6, SERVER6) + tlv(0x20, b"\1\0\0\0\0") + tlv(1, b"h2") + tlv(0xEE, b"?" * 40)
    read = core.proxy_read(v2(body + tlv(2, b"www.example.com") + tlv(4, b""), family=0x21))
    assert read["source"] == "[2001:db8::1]:56324"
    assert (read["alpn"], read["authority"]) == (b"h2", b"www.example.com")


@pytest.mark.parametrize(
    "data",
    [
        v2(b"", command=0x20, family=0),  # a health check
        v2(pair(CLIENT, SERVER) + b"???", command=0x20),
        v2(b"", family=0),
        v2(tlv(4, b"no-op"), family=0),
        v2(bytes(216), family=0x31),
        v2(pair(CLIENT, SERVER), family=0x12),  # datagrams
    ],
)
def test_version_2_without_addresses(data: bytes) -> None:
    read = core.proxy_read(data)
    assert (read["bytes"], read["source"]) == (len(data), None)


@pytest.mark.parametrize(
    "data",
    [
        v2(b"", command=0x11),
        v2(b"", command=0x22),
        v2(b"", command=0x31),
        v2(pair(CLIENT, SERVER)[:-1]),
        v2(pair(CLIENT, SERVER), family=0x21),
        v2(bytes(100), family=0x31),
        v2(pair(CLIENT, SERVER), family=0x41),
        v2(pair(CLIENT, SERVER), family=0x13),
        v2(pair(CLIENT, SERVER) + b"\1"),
        v2(pair(CLIENT, SERVER) + b"\1\0\5abc"),
        v2(pair(CLIENT, SERVER) + tlv(3, b"abc")),
        v2(pair(CLIENT, SERVER) + tlv(3, b"abcd")),
    ],
)
def test_version_2_malformed(data: bytes) -> None:
    assert core.proxy_read(data) == "malformed"


def test_a_checksum_that_fits() -> None:
    blank = v2(pair(CLIENT, SERVER) + tlv(3, bytes(4)) + tlv(4, b"more"))
    right = blank.replace(tlv(3, bytes(4)), tlv(3, crc32c(blank).to_bytes(4, "big")))
    assert core.proxy_read(right)["source"] == "192.168.0.1:56324"
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720


def test_version_2_is_bounded() -> None:
    assert core.proxy_read(v2(b"", length=4081)) == "too-long"
    assert core.proxy_read(v2(pair(CLIENT, SERVER) + tlv(4, bytes(4065))))["bytes"] == 4096


# ---- either ----


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"POST /", b"PROX/", b"\r\nX"]
)
def test_no_header(data: bytes) -> None:
    assert core.proxy_read(data) == "absent"


@pytest.mark.parametrize("data", [V1, v2(pair(CLIENT, SERVER) + tlv(2, b"name"))])
def test_every_shorter_input_asks_for_more(data: bytes) -> None:
    for end in range(len(data)):
        assert core.proxy_read(data[:end]) is None, end


@settings(max_examples=200)
@given(data=st.binary(max_size=80), version=st.booleans())
def test_any_bytes(data: bytes, version: bool) -> None:
    core.proxy_read((SIGNATURE if version else b"PROXY ") + data)


IPV4 = st.tuples(st.ip_addresses(v=4).map(str), st.integers(0, 65535))
IPV6 = st.tuples(st.ip_addresses(v=6).map(str), st.integers(0, 65535))


@settings(max_examples=80)
@given(
    ends=st.one_of(st.tuples(IPV4, IPV4), st.tuples(IPV6, IPV6)),
    authority=st.binary(max_size=255),
    alpn=st.binary(max_size=255),
)
def test_what_is_written_is_read(
    ends: tuple[tuple[str, int], tuple[str, int]], authority: bytes, alpn: bytes
) -> None:
    told = all(ipaddress.ip_address(ip) != ipaddress.ip_address("::") for ip, _ in ends)
    mixed = {ip.version if (ip := ipaddress.ip_address(one)).version == 4 or not ip.ipv4_mapped
             else 4 for one, _ in ends}  # fmt: skip
    one = core.proxy_read(core.proxy_write(1, *ends))
    two = core.proxy_read(core.proxy_write(2, *ends, authority, alpn))
    assert one["source"] == two["source"]
    assert (one["source"] is not None) == (told and len(mixed) == 1)
    if one["source"]:
        assert (two["authority"], two["alpn"]) == (authority, alpn)
        assert one["destination"] == two["destination"]


def test_what_is_written_byte_for_byte() -> None:
    assert core.proxy_write(1, CLIENT, SERVER) == V1
    assert core.proxy_write(2, CLIENT, SERVER) == v2(pair(CLIENT, SERVER))
    assert core.proxy_write(2, CLIENT6, SERVER6, b"n", b"h2") == v2(
        pair(CLIENT6, SERVER6) + tlv(1, b"h2") + tlv(2, b"n"), family=0x21
    )


@pytest.mark.parametrize("ends", [(None, SERVER), (CLIENT, None), (CLIENT, SERVER6)])
def test_what_cannot_be_told_is_written_as_unknown(
    ends: tuple[tuple[str, int] | None, tuple[str, int] | None],
) -> None:
    assert core.proxy_write(1, *ends) == b"PROXY UNKNOWN\r\n"
    assert core.proxy_write(2, *ends, b"name") == v2(b"", command=0x20, family=0)


def test_a_name_that_is_too_long_is_cut() -> None:
    read = core.proxy_read(core.proxy_write(2, CLIENT, SERVER, b"n" * 300, b"a" * 300))
    assert (read["authority"], read["alpn"]) == (b"n" * 255, b"a" * 255)
