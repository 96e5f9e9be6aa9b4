"""Addresses against the standard library's ipaddress, and RFC 5952's rules for the text."""

import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlb._core import _testing_parts as core

V4 = st.builds(IPv4Address, st.integers(0, 2**32 - 1))
# Groups of zeros are the interesting part of the text.
V6 = st.builds(
    lambda groups: IPv6Address(struct.pack(">8H", *groups)),
    st.lists(st.sampled_from([0, 0, 0, 1, 0xA, 0xFFFF, 0x2001, 0x0DB8]), min_size=8, max_size=8),
) | st.builds(IPv6Address, st.integers(0, 2**128 - 1))
MAPPED = b"\0" * 10 + b"\xff\xff"


def packed(address: IPv4Address | IPv6Address) -> bytes:
    return MAPPED + address.packed if address.version == 4 else address.packed


def shown(address: IPv4Address | IPv6Address) -> str:
    """The text of ipaddress, where it and RFC 5952 have one opinion."""
    if address.version == 6 and address.packed.startswith(MAPPED):
        return str(IPv4Address(address.packed[12:]))
    return str(address)


@given(V4 | V6)
def test_text_is_read_as_ipaddress_reads_it(address: IPv4Address | IPv6Address) -> None:
    assert core.parse(str(address).encode()) == packed(address)
    if address.version == 6:
        assert core.parse(address.exploded.upper().encode()) == packed(address)


@given(V4 | V6)
def test_text_is_written_as_ipaddress_writes_it(address: IPv4Address | IPv6Address) -> None:
    text = core.ip_text(packed(address)).decode()
    assert core.parse(text.encode()) == packed(address)
    # ::/96 has two right texts: RFC 5952 5 lets "::a00:1" stand as "::10.0.0.1".
    if address.version == 4 or any(address.packed[:12]):
        assert text == shown(address)


@pytest.mark.parametrize(("written", "canonical"), [
    ("2001:0db8:0000:0000:0000:0000:0000:0001", "2001:db8::1"),   # 4.1, 4.2.1
    ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),             # 4.2.2: one field stays
    ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),                      # 4.2.3: the longest run
    ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),                # 4.2.3: the first of two
    ("2001:DB8::ABCD", "2001:db8::abcd"),                         # 4.3
    ("::ffff:192.0.2.128", "192.0.2.128"),                        # one client is one address
    ("::", "::"),
    ("::1", "::1"),
])  # fmt: skip
def test_rfc_5952(written: str, canonical: str) -> None:
    assert core.ip_text(core.parse(written.encode())).decode() == canonical


@given(V4 | V6, st.integers(0, 65535))
def test_text_with_port(address: IPv4Address | IPv6Address, port: int) -> None:
    ip = core.ip_text(packed(address)).decode()
    text = core.text(packed(address), port).decode()
    assert text == (f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}")
    assert len(text) <= 53


def accepted(text: bytes) -> bytes | None:
    """What ipaddress says of any bytes."""
    try:
        address = ip_address(text.decode("ascii"))
    except ValueError:
        return None
    if address.version == 6 and address.scope_id is not None:
        return None
    return packed(address)


@given(st.text("0123456789abfF:.%[] \0x", max_size=24) | st.text(max_size=60))
def test_what_is_no_address_is_refused(text: str) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    assert core.parse(raw) == accepted(raw)


@pytest.mark.parametrize("text", [
    b"", b"1", b"1.2.3", b"1.2.3.4.5", b"256.1.1.1", b"01.2.3.4", b"1.2.3.4 ", b" 1.2.3.4",
    b"1.2.3.4\0", b"1.2.3.4\0.5", b"::1\0", b":::", b"1::2::3", b"12345::", b"fe80::1%eth0",
    b"[::1]", b"1:2:3:4:5:6:7", b"1:2:3:4:5:6:7:8:9", b"0" * 55, b"0" * 56, b"0" * 57, b"0" * 500,
])  # fmt: skip
def test_refused(text: bytes) -> None:
    assert core.parse(text) is None


@given(V4 | V6, st.integers(0, 32), st.integers(0, 128))
def test_cut_is_the_network(address: IPv4Address | IPv6Address, v4: int, v6: int) -> None:
    ip, port = core.cut(str(address), v4, v6)
    assert port == 0
    mapped = address.version == 6 and address.packed.startswith(MAPPED)
    if address.version == 4 or mapped:
        inner = IPv4Address(packed(address)[12:])
        assert ip == MAPPED + ip_network((inner, v4), strict=False).network_address.packed
    else:
        assert ip == ip_network((address, v6), strict=False).network_address.packed


def test_equality() -> None:
    assert core.compare("10.0.0.1", 80, "::ffff:10.0.0.1", 80) == (True, True)
    assert core.compare("10.0.0.1", 80, "10.0.0.1", 81) == (False, True)
    assert core.compare("10.0.0.1", 80, "10.0.0.2", 80) == (False, False)


def test_kinds() -> None:
    assert core.kind("10.0.0.1") == (True, False)
    assert core.kind("0.0.0.0") == (True, False)
    assert core.kind("::") == (False, True)
    assert core.kind("::1") == (False, False)


@given(V4 | V6, st.integers(0, 65535))
def test_socket_addresses(address: IPv4Address | IPv6Address, port: int) -> None:
    raw = core.to_sockaddr(str(address), port)
    ip = packed(address)
    if ip.startswith(MAPPED):
        assert raw == struct.pack("=H", socket.AF_INET) + struct.pack(">H", port) + ip[12:] + bytes(
            8
        )
    else:
        assert raw == struct.pack("=H", socket.AF_INET6) + struct.pack(">HI", port, 0) + ip + bytes(
            4
        )
    assert core.from_sockaddr(raw) == (ip, port)
    # What the kernel hands over on a dual-stack socket is the IPv4 client.
    if ip.startswith(MAPPED):
        dual = struct.pack("=H", socket.AF_INET6) + struct.pack(">HI", port, 0) + ip + bytes(4)
        assert core.from_sockaddr(dual) == (ip, port)


def test_unix_peer_has_no_address() -> None:
    assert core.from_sockaddr(struct.pack("=H", socket.AF_UNIX)) is None
