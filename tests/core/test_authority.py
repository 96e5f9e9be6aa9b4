"""host [ ":" port ]: one input per line, with a name."""

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb._core import _testing_head as core

CASES = [
    # name, text, valid, valid where a port is needed
    ("plain name", b"example.com", True, False),
    ("with port", b"example.com:8080", True, True),
    ("empty port", b"example.com:", True, False),
    ("highest port", b"a:65535", True, True),
    ("port overflow", b"a:65536", False, False),
    ("port letters", b"a:80x", False, False),
    ("port signed", b"a:+80", False, False),
    ("huge port", b"a:" + b"9" * 40, False, False),
    ("leading zeros", b"a:000080", True, True),
    ("empty host", b"", False, False),
    ("only port", b":80", False, False),
    ("underscore name", b"my_node", True, False),
    ("trailing dot", b"example.com.", True, False),
    ("sub delims", b"a!$&'()*+,;=b~", True, False),
    ("percent encoded", b"a%2Fb", True, False),
    ("percent short", b"a%2", False, False),
    ("percent letters", b"a%zz", False, False),
    ("user info", b"user@example.com", False, False),
    ("two ports", b"a:1:2", False, False),
    ("a slash", b"a/b", False, False),
    ("a space", b"a b", False, False),
    ("a backslash", b"a\\b", False, False),
    ("eight bit", b"ex\xe4mple.com", False, False),
    ("ipv4 address", b"192.0.2.1:80", True, True),
    ("ipv6 address", b"[2001:db8::1]", True, False),
    ("ipv6 port", b"[2001:db8::1]:443", True, True),
    ("ipv6 bare", b"2001:db8::1", False, False),
    ("ipv6 unclosed", b"[2001:db8::1", False, False),
    ("ipv6 any", b"[::]", True, False),
    ("ipv6 ends", b"[1::]", True, False),
    ("ipv6 full", b"[1:2:3:4:5:6:7:8]", True, False),
    ("ipv6 seven", b"[1:2:3:4:5:6:7]", False, False),
    ("ipv6 nine", b"[1:2:3:4:5:6:7:8:9]", False, False),
    ("ipv6 elided", b"[1:2:3::5:6:7:8]", True, False),
    ("ipv6 overfull", b"[1:2:3:4::5:6:7:8]", False, False),
    ("ipv6 twice", b"[1::2::3]", False, False),
    ("ipv6 triple", b"[1:::2]", False, False),
    ("ipv6 long", b"[12345::]", False, False),
    ("ipv6 empty", b"[]", False, False),
    ("ipv6 colon", b"[:]", False, False),
    ("ipv6 trailing", b"[1:2:3:4:5:6:7:]", False, False),
    ("ipv6 mapped", b"[::ffff:192.0.2.1]", True, False),
    ("ipv6 octet", b"[::ffff:192.0.2.256]", False, False),
    ("ipv6 zeros", b"[::ffff:192.0.2.01]", False, False),
    ("ipv6 three", b"[::ffff:192.0.2]", False, False),
    ("ipv6 zone", b"[fe80::1%25eth0]", False, False),
    ("after bracket", b"[::1]x", False, False),
    ("ip future", b"[v1.fe:x]", True, False),
    ("future empty", b"[v1.]", False, False),
    ("future dotless", b"[v1]", False, False),
]


@pytest.mark.parametrize(
    ("text", "valid", "with_port"),
    [c[1:] for c in CASES],
    ids=[c[0].replace(" ", "-") for c in CASES],
)
def test_authority(text: bytes, valid: bool, with_port: bool) -> None:
    assert core.authority(text) is valid
    assert core.authority(text, needs_port=True) is with_port


@given(st.ip_addresses(v=6))
@settings(max_examples=100)
def test_every_ipv6_address(address: ipaddress.IPv6Address) -> None:
    assert core.authority(f"[{address.compressed}]".encode())
    assert core.authority(f"[{address.exploded}]:80".encode(), needs_port=True)


@given(st.text("0123456789abcdef:.", max_size=24))
@settings(max_examples=300)
def test_ipv6_as_the_standard_library(text: str) -> None:
    try:
        ipaddress.IPv6Address(text)
        valid = True
    except ValueError:
        valid = False
    assert core.authority(f"[{text}]".encode()) is valid
