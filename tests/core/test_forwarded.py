"""X-Forwarded-For against a model written with ipaddress."""

from ipaddress import IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.plans import Setting, get
from tests.core.test_address import packed

TRUSTED = ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"]
IMAGE = Setting(trusted=[(one.split("/")[0], int(one.split("/")[1])) for one in TRUSTED]).image()
PEER = "10.1.1.1"


def trusted(ip: str) -> bool:
    address = ip_address(ip)
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return any(address in ip_network(one) for one in TRUSTED)


def address_in(entry: str) -> str | None:
    """An entry's address without brackets and port; None when it is none."""
    entry = entry.strip(" \t")
    port = ""
    if entry.startswith("["):
        entry, bracket, port = entry[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            return None
        port = port[1:] if port else "0"
    elif entry.count(":") == 1:
        entry, _, port = entry.partition(":")
    else:
        port = "0"
    if not (port.isascii() and port.isdigit()):
        return None
    try:
        ip_address(entry)
    except ValueError:
        return None
    return entry if "%" not in entry else None


def client_of(peer: str, fields: list[str]) -> str:
    if not trusted(peer):
        return peer
    believed = peer
    # A field whose value is empty says nothing; an empty entry of a list does.
    for entry in [one for field in reversed(fields) if field
                  for one in reversed(field.split(","))]:  # fmt: skip
        hop = address_in(entry)
        if hop is None:
            break
        believed = hop
        if not trusted(hop):
            break
    return believed


def asked(peer: str, fields: list[str]) -> bytes:
    head = get(*[f"X-Forwarded-For: {one}" for one in fields])
    ip, port = IMAGE.client(0, peer, head)
    assert port == (4711 if ip == packed(ip_address(peer)) and port else 0)
    return ip


def expected(peer: str, fields: list[str]) -> bytes:
    return packed(ip_address(client_of(peer, fields)))


entries = st.sampled_from([
    "10.2.2.2", "10.3.3.3:8080", "192.0.2.7", "192.0.2.8", "203.0.113.5", "203.0.113.5:443",
    "2001:db8::1", "[2001:db8::2]", "[2001:db8::3]:443", "2001:db9::1", "[2001:db9::2]:1",
    "::ffff:10.9.9.9", "unknown", "_hidden", "", "[", "]", "[]", "[10.1.2.3]", "[2001:db8::4",
    "[2001:db8::5]x", "[2001:db8::5]:", "[2001:db8::5]:x", "10.4.4.4:", "10.4.4.4:http",
    "10.5.5.5.5", "1.2.3.4 5.6.7.8", ":", "::",
])  # fmt: skip
spaced = st.tuples(st.sampled_from(["", " ", "\t "]), entries, st.sampled_from(["", " "])).map(
    "".join
)
values = st.lists(spaced, max_size=5).map(lambda items: ",".join(items).strip(" \t"))


@given(st.sampled_from([PEER, "203.0.113.9", "2001:db8::99", "::1"]), st.lists(values, max_size=3))
def test_against_the_model(peer: str, fields: list[str]) -> None:
    assert asked(peer, fields) == expected(peer, fields)


@pytest.mark.parametrize(("fields", "client"), [
    ([], PEER),
    (["203.0.113.5"], "203.0.113.5"),
    (["1.1.1.1, 203.0.113.5"], "203.0.113.5"),            # what is left of it, it may have made up
    (["203.0.113.5, 10.2.2.2"], "203.0.113.5"),           # through a trusted hop
    (["203.0.113.5", "10.2.2.2, 10.3.3.3"], "203.0.113.5"),
    (["203.0.113.5, unknown"], PEER),
    (["203.0.113.5, unknown, 10.2.2.2"], "10.2.2.2"),
    (["10.2.2.2, 10.3.3.3"], "10.2.2.2"),                 # all are ours: the first one
    (["203.0.113.5,"], PEER),                             # a hop that told nothing
    (["1.1.1.1", ", 10.2.2.2"], "10.2.2.2"),
    (["203.0.113.5", ""], "203.0.113.5"),                 # an empty list has no entries
    (["[2001:db9::2]:443"], "2001:db9::2"),
    (["203.0.113.5:4711"], "203.0.113.5"),
    (["::ffff:203.0.113.5"], "203.0.113.5"),
])  # fmt: skip
def test_lists(fields: list[str], client: str) -> None:
    assert asked(PEER, fields) == packed(ip_address(client))
    assert expected(PEER, fields) == packed(ip_address(client))


def test_a_stranger_is_not_believed() -> None:
    assert asked("203.0.113.9", ["1.1.1.1"]) == packed(ip_address("203.0.113.9"))


def test_nobody_is_trusted_by_default() -> None:
    image = Setting().image()
    assert not image.trusts(0, PEER)
    ip, port = image.client(0, PEER, get("X-Forwarded-For: 1.1.1.1"))
    assert (ip, port) == (packed(ip_address(PEER)), 4711)


@given(st.integers(0, 600))
def test_long_lists_are_walked_to_their_end(count: int) -> None:
    assert asked(PEER, ["203.0.113.5" + ",10.0.0.1" * count]) == packed(ip_address("203.0.113.5"))
