"""Sessions of the caches as the control process answers for them, and keys' hashes."""

import asyncio
import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastlb import sessions
from fastlb._core import _testing_tls as tls
from fastlb._core._testing_siphash import hash128, hash_parts
from fastlb.check import check_text
from fastlb.config import AspClass, CacheClass, IpClass, J2eeClass, SslClass, UniversalClass
from fastlb.errors import Refused
from fastlb.in_force import InForce
from fastlb.session_keys import KEY_SESSION, key_hash
from fastlb.sessions import ELSEWHERE, SessionCommands
from fastlb.units import KeyPart
from tests.test_in_force import Workers

KEYS = [bytes(range(n, n + 16)) for n in (0, 16, 32, 48)]
TEXT = """
[virtual_servers.a]
listen = "127.0.0.1:1"
pool = "web"
[pools.web]
nodes = ["10.0.0.1:80"]
persistence = "c"
[persistence.c]
type = "ip"
size = 64
fallback = "cookie"
[persistence.cookie]
type = "transparent"
"""


def mapped(text: str) -> bytes:
    return ipaddress.IPv6Address(f"::ffff:{text}").packed


@pytest.fixture
def force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InForce]:
    monkeypatch.setattr("fastlb.in_force.Listeners.add", lambda *_: [])
    monkeypatch.setattr("fastlb.in_force.InForce.send", lambda _: None)
    one = InForce(1, tmp_path)
    one.keys = KEYS
    one.workers = Workers()  # type: ignore[assignment]
    put(one, TEXT)
    yield one
    one.close()


def put(force: InForce, text: str) -> None:
    found = check_text(text, Path("x"))
    assert found.config is not None, found.errors
    asyncio.run(force.put(force.prepare(found.config)))


def ask(force: InForce, **request: Any) -> dict[str, Any]:
    request = {"class": "c", "limit": 100, **request}
    answer: dict[str, Any] = asyncio.run(SessionCommands(force).run(request))["answer"]
    return answer


# --- keys ---


def test_an_address_is_hashed_as_the_core_does() -> None:
    def of(cls: IpClass, text: str) -> bytes:
        return key_hash(KEYS, "c", cls, [text.encode()])

    def plain(data: bytes) -> bytes:
        return hash128(KEYS[KEY_SESSION], data)

    whole, cut = IpClass(), IpClass(ipv4_prefix=20, ipv6_prefix=33)
    assert of(whole, "192.0.2.77") == of(whole, "::ffff:192.0.2.77") == plain(mapped("192.0.2.77"))
    assert of(cut, "192.0.31.77") == plain(mapped("192.0.16.0"))
    assert of(cut, "2001:db8:ffff::1") == plain(ipaddress.ip_address("2001:db8:8000::").packed)
    assert of(whole, "2001:db8::5:6:7:8") == plain(ipaddress.ip_address("2001:db8::").packed)


@pytest.mark.parametrize(
    ("cls", "parts", "hashed"),
    [
        (UniversalClass(), [b"rule's"], b"rule's"),
        (UniversalClass(key=(KeyPart("cookie", "SID"),)), [b"\xff\x00"], b"\xff\x00"),
        (UniversalClass(learn=(KeyPart("header", "X"),)), [b"v"], b"v"),
        (UniversalClass(key=(KeyPart("source", ""),)), [b"10.0.0.1"], mapped("10.0.0.1")),
        (J2eeClass(), [b"ABC.node1"], b"ABC"),
        (J2eeClass(), [b"ABC!n1:n2.n3"], b"ABC"),
        (J2eeClass(), [b"ABC"], b"ABC"),
        (J2eeClass(route_separators=""), [b"ABC.node1"], b"ABC.node1"),
        (AspClass(), [b"24-characters"], b"24-characters"),
        (AspClass(), [b"ASPSESSIONIDABCDEFGH=MNOP"], b"\0ASPSESSIONIDABCDEFGHMNOP"),
        (AspClass(), [b"ASPSESSIONIDabcdefgh=MNOP"], b"ASPSESSIONIDabcdefgh=MNOP"),
        (UniversalClass(key=(KeyPart("host", ""),)), [b"Shop.Test."], b"shop.test"),
        (SslClass(), [b"00ff10"], b"\2" + bytes(7) + b"\x00\xff\x10"),
        (SslClass(), [b"00:FF:10"], b"\2" + bytes(7) + b"\x00\xff\x10"),
        (SslClass(), [b"ab" * 32], b"\2" + bytes(7) + b"\xab" * 32),
        (SslClass(), [b"ab " * 33], b"\1" + bytes(7) + b"\xab" * 33),
    ],
)
def test_the_key_of_each_type_is_the_value(
    cls: CacheClass, parts: list[bytes], hashed: bytes
) -> None:
    assert key_hash(KEYS, "c", cls, parts) == hash128(KEYS[KEY_SESSION], hashed)


def test_a_tls_session_is_hashed_as_the_core_does() -> None:
    for text, hashed in (("5a" * 32, tls.session_id_hash), ("5a" * 176, tls.ticket_hash)):
        assert key_hash(KEYS, "c", SslClass(), [text.encode()]) == hashed(bytes.fromhex(text))


def test_several_parts_have_their_lengths_in_front() -> None:
    cls = UniversalClass(key=(KeyPart("host", ""), KeyPart("header", "X-User")))
    found = key_hash(KEYS, "c", cls, [b"shop", b"alice"])
    lengths = [(4).to_bytes(8, "little"), (5).to_bytes(8, "little")]
    joined = [lengths[0], b"shop", lengths[1], b"alice"]
    assert found == hash_parts(KEYS[KEY_SESSION], joined, True)
    assert found != key_hash(KEYS, "c", cls, [b"shopa", b"lice"])


@pytest.mark.parametrize(
    ("cls", "parts", "words"),
    [
        (IpClass(), [], "one value (a client's address), not 0"),
        (IpClass(), [b"10.0.0.1", b"x"], "not 2"),
        (IpClass(), [b""], "an empty value is no key"),
        (IpClass(), [b"10.0.0"], '"10.0.0" is no IP address'),
        (IpClass(), [b"fe80::1%1"], "is no IP address"),
        (IpClass(), [b"\xff"], "is no IP address"),
        (SslClass(), [b"xy"], "in hexadecimal digits"),
        (UniversalClass(key=(KeyPart("host", ""), KeyPart("path", "2"))), [b"a"],
         "a key has 2 parts (host, path:2), not 1"),
    ],
)  # fmt: skip
def test_what_can_be_no_key_is_refused(cls: CacheClass, parts: list[bytes], words: str) -> None:
    with pytest.raises(Refused) as caught:
        key_hash(KEYS, "c", cls, parts)
    assert words in str(caught.value)
    assert "[FLB-S084]" in str(caught.value)


# --- requests of the control socket ---


def test_an_empty_cache(force: InForce) -> None:
    assert ask(force, action="list") == {"class": "c", "type": "ip", "count": 0, "sessions": []}
    assert ask(force, action="count")["nodes"] == []
    assert ask(force, action="flush")["deleted"] == 0
    assert ask(force, action="delete", node="10.0.0.1")["deleted"] == 0


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"action": "list", "class": "d"}, "FLB-S082"),
        ({"action": "list", "class": "cookie"}, "FLB-S083"),
        ({"action": "delete", "hash": "00" * 16}, "FLB-S085"),
        ({"action": "dance"}, "FLB-S087"),
        ({"action": "list", "class": None}, "FLB-S087"),
        ({"action": "list", "class": ["c"]}, "FLB-S087"),
        ({"action": "list", "limit": 0}, "FLB-S087"),
        ({"action": "list", "limit": None}, "FLB-S087"),
        ({"action": "list", "limit": 10**9}, "FLB-S087"),
        ({"action": "list", "key": 5}, "FLB-S087"),
        ({"action": "list", "key": ["zz"]}, "FLB-S087"),
        ({"action": "list", "hash": "00"}, "FLB-S087"),
        ({"action": "list", "hash": "zz" * 16}, "FLB-S087"),
        ({"action": "list", "node": "nobody"}, "FLB-S087"),
        ({"action": "delete"}, "FLB-S087"),
    ],
)
def test_what_cannot_be_done_is_refused(
    force: InForce, request_: dict[str, Any], code: str
) -> None:
    with pytest.raises(Refused, match=code):
        ask(force, **request_)


def test_every_type_without_a_cache_says_where_its_sessions_are() -> None:
    from fastlb.config import CLASS_TYPES

    without = {name for name, cls in CLASS_TYPES.items() if not issubclass(cls, CacheClass)}
    assert set(ELSEWHERE) == without


def test_a_reload_that_replaces_the_cache_ends_a_walk(
    force: InForce, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = force.segment.stores.caches["c"].cache
    assert cache.stats(0).entries == 0
    monkeypatch.setattr(sessions, "STEP", 0)  # a walk that never ends by itself

    async def both() -> None:
        walk = asyncio.ensure_future(SessionCommands(force).run({"action": "count", "class": "c"}))
        await asyncio.sleep(0.01)
        found = check_text(TEXT.replace("64", "128"), Path("x"))
        assert found.config is not None
        force.adopt(force.prepare(found.config))
        with pytest.raises(Refused, match="FLB-S086"):
            await walk

    asyncio.run(both())
