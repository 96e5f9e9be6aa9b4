"""Declared keys: each part where it stands, lists of parts, and what a response teaches.

A key is opaque, so it is compared: with the key of an `ip` class, which is a hash of the same
16 bytes, or with the key that a rule would set to the very bytes expected.
"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlb._core._testing_decide import World
from fastlb._core.shm import Segment
from tests.core.plans import Class, Setting, get

CLIENT = "192.0.2.1"
WHEN = 1_800_000_000
Part = tuple[str, str]

SINGLE: list[Part] = [
    ("header", "X-User"), ("cookie", "SID"), ("query", "sid"), ("path", "1"), ("path", "2"),
    ("path", "12"), ("host", ""), ("sni", ""), ("source", ""), ("destination", ""),
    ("header", "Host"), ("header", "Cookie"), ("query", "s-%d"), ("cookie", "a.b"),
]  # fmt: skip
LISTS: list[list[Part]] = [
    [("source", ""), ("header", "User-Agent")],
    [("header", "User-Agent"), ("source", "")],
    [("cookie", "A"), ("cookie", "B")],
    [("source", ""), ("destination", "")],
    [("header", "X-A"), ("header", "X-A")],
    [("header", "X-A"), ("header", "X-B")],
]
LEARNED: list[Part] = [("cookie", "SID"), ("header", "X-Session")]


def name_of(part: Part) -> str:
    return ":".join(part).rstrip(":")


@pytest.fixture(scope="module")
def world():
    classes = [Class(name_of(part), type="universal", key=[part]) for part in SINGLE]
    classes += [Class(f"list-{i}", type="universal", key=parts) for i, parts in enumerate(LISTS)]
    classes += [Class(f"learn-{name_of(p)}", type="universal", learn=[p]) for p in LEARNED]
    classes += [Class("by-ip", ipv6_prefix=128), Class("by-rule", type="universal")]
    with Segment.create() as segment:
        yield Setting(classes=classes).world(segment)


def index(name: str) -> int:
    names = [name_of(part) for part in SINGLE] + [f"list-{i}" for i in range(len(LISTS))]
    names += [f"learn-{name_of(part)}" for part in LEARNED]
    return [*names, "by-ip", "by-rule"].index(name)


def ask(world: World, name: str, data: bytes | None = None, **more: Any) -> bytes | None:
    """The key of a class; None where there is none."""
    found = world.find(index(name), more.pop("client", CLIENT), data, **more)
    if found["kind"] == "nothing":
        assert found["outcome"] == "no-key"
        return None
    assert (found["kind"], len(found["keys"])) == ("key", 1)
    return found["key"]


def key_of(world: World, value: bytes) -> bytes:
    """The key of these bytes alone."""
    made = ask(world, "by-rule", key=value)
    assert made is not None
    return made


def shows(world: World, name: str, data: bytes | None, value: bytes | None, **more: Any) -> None:
    assert ask(world, name, data, **more) == (None if value is None else key_of(world, value))


# ---- header ----


@pytest.mark.parametrize(("fields", "value"), [
    (["X-User: alice"], b"alice"),
    (["x-uSER: alice"], b"alice"),
    (["X-User:alice"], b"alice"),
    (["X-User: \t alice \t "], b"alice"),
    (["X-User: a l i c e"], b"a l i c e"),
    (["X-User: \xe9\xff"], b"\xe9\xff"),
    (["X-User: " + "a" * 7000], b"a" * 7000),
    (["X-User: one", "X-User: two"], b"one"),
    (["X-User: ", "X-User: two"], None),
    (["X-User:"], None),
    (["X-Users: a", "X-Use: b", "Y-User: c"], None),
    (["A: X-User"], None),
    ([], None),
])  # fmt: skip
def test_header(world: World, fields: list[str], value: bytes | None) -> None:
    shows(world, "header:X-User", get(*fields), value)


def test_headers_that_the_proxy_knows(world: World) -> None:
    data = get("Host: A.example:80", "Cookie: SID=1")
    shows(world, "header:Host", data, b"A.example:80")
    shows(world, "header:Cookie", data, b"SID=1")


# ---- cookie ----

COOKIES: list[tuple[list[str], bytes | None, bool]] = [
    (["SID=abc"], b"abc", False),
    (["a=b; SID=abc; c=d"], b"abc", False),
    (["a=b", "SID=abc"], b"abc", False),
    (['SID="abc"'], b"abc", False),
    (["SID = abc ;x=y"], b"abc", False),
    (["SID=a=b=="], b"a=b==", False),
    (["SID=a,b"], b"a,b", False),
    (["SID=a, b=c"], b"a", False),
    (["SID=%41+b"], b"%41+b", False),
    (["SID=\xe9"], b"\xe9", False),
    (["SID=" + "x" * 6000], b"x" * 6000, False),
    (["$Version=1; SID=abc; $Path=/"], b"abc", False),
    (["SID=one; SID=two"], b"one", True),
    (["SID=one", "SID=two"], b"one", True),
    (["SID=; SID=two"], b"two", True),
    (['SID=""; a=b', "SID=two"], b"two", True),
    (["SID=; SID=; SID=three"], b"three", True),
    (["SID=one; SID="], b"one", True),
    (["SID="], None, False),
    (['SID=""'], None, False),
    (["SID=; SID="], None, True),
    (["SID"], None, False),
    (["sid=abc"], None, False),
    (["XSID=abc; SIDX=abc; x=SID=abc"], None, False),
    ([";;;,"], None, False),
    ([], None, False),
]


@pytest.mark.parametrize(("values", "value", "twice"), COOKIES)
def test_cookie(world: World, values: list[str], value: bytes | None, twice: bool) -> None:
    data = get(*(f"Cookie: {one}" for one in values))
    shows(world, "cookie:SID", data, value)
    assert world.find(index("cookie:SID"), CLIENT, data)["duplicates"] is twice


def test_a_cookie_with_a_dot(world: World) -> None:
    shows(world, "cookie:a.b", get("Cookie: axb=1; a.b=2"), b"2")


def test_thousands_of_empty_cookies_are_read_once(world: World) -> None:
    many = "SID=; " * 6000
    shows(world, "cookie:SID", get(f"Cookie: {many}SID=x"), b"x")


# ---- query ----


@pytest.mark.parametrize(("target", "value"), [
    ("/?sid=abc", b"abc"),
    ("/?a=b&sid=abc&c=d", b"abc"),
    ("http://h.example/a?sid=abc", b"abc"),
    ("http://h.example?sid=abc", b"abc"),
    ("/?sid=a+b%20c", b"a+b%20c"),
    ("/?sid=a=b", b"a=b"),
    ("/?sid=a;b", b"a;b"),
    ("/?sid=a?b/c", b"a?b/c"),
    ("/?sid=one&sid=two", b"one"),
    ("/??&&sid=abc&&", b"abc"),
    ("/?sid=&sid=two", None),
    ("/?sid&sid=two", None),
    ("/?sid=", None),
    ("/?sid", None),
    ("/?xsid=a&sidx=b&SID=c&si=d", None),
    ("/?%73id=abc", None),
    ("/?", None),
    ("/", None),
    ("/sid=abc", None),
    ("/?a=sid=abc", None),
])  # fmt: skip
def test_query(world: World, target: str, value: bytes | None) -> None:
    shows(world, "query:sid", get(target=target), value)


def test_a_query_name_is_raw_too(world: World) -> None:
    shows(world, "query:s-%d", get(target="/?s-d=1&s-%d=2"), b"2")


# ---- path ----


@pytest.mark.parametrize(("target", "first", "second"), [
    ("/a/b/c", b"a", b"b"),
    ("/a", b"a", None),
    ("/a/", b"a", None),
    ("/a//c", b"a", None),
    ("//b", None, b"b"),
    ("/", None, None),
    ("/?a/b", None, None),
    ("/a?/b", b"a", None),
    ("/a;v=1/b;c", b"a;v=1", b"b;c"),
    ("/./../x", b".", b".."),
    ("/%61/a%2Fb", b"%61", b"a%2Fb"),
    ("http://h.example/a/b", b"a", b"b"),
    ("http://h.example", None, None),
    ("http://h.example?a/b", None, None),
])  # fmt: skip
def test_path(world: World, target: str, first: bytes | None, second: bytes | None) -> None:
    shows(world, "path:1", get(target=target), first)
    shows(world, "path:2", get(target=target), second)


def test_a_far_segment(world: World) -> None:
    shows(world, "path:12", get(target="/1/2/3/4/5/6/7/8/9/10/11/12/13"), b"12")
    shows(world, "path:12", get(target="/1/2/3/4/5/6/7/8/9/10/11"), None)


def test_a_target_without_a_path(world: World) -> None:
    data = b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n"
    for name in ("path:1", "query:sid"):
        shows(world, name, data, None)


# ---- host and sni ----


@pytest.mark.parametrize(("host", "value"), [
    ("www.example.com", b"www.example.com"),
    ("WWW.Example.COM", b"www.example.com"),
    ("www.example.com:8080", b"www.example.com"),
    ("www.example.com:", b"www.example.com"),
    ("www.example.com.", b"www.example.com"),
    ("www.example.com.:80", b"www.example.com"),
    ("www.example.com..", b"www.example.com."),
    ("192.0.2.7:80", b"192.0.2.7"),
    ("192.0.2.7", b"192.0.2.7"),
    ("12", b"12"),
    ("[2001:DB8::1]:443", b"[2001:db8::1]"),
    ("[2001:db8::1]", b"[2001:db8::1]"),
    ("A" * 63 + "B" * 64 + "C" * 65, b"a" * 63 + b"b" * 64 + b"c" * 65),
    (".", None),
])  # fmt: skip
def test_host(world: World, host: str, value: bytes | None) -> None:
    shows(world, "host", get(f"Host: {host}"), value)
    if value is not None:
        shows(world, "host", get("Host: other", target=f"http://{host}/"), value)


def test_no_host(world: World) -> None:
    shows(world, "host", get(version="1.0"), None)
    shows(world, "host", get("Host: A.example", version="1.0"), b"a.example")


def test_sni(world: World) -> None:
    shows(world, "sni", None, b"www.example.com", sni=b"WWW.example.com")
    shows(world, "sni", None, b"www.example.com", sni=b"www.example.com.")
    shows(world, "sni", get(), None)
    shows(world, "sni", None, None, sni=b".")
    # One name is one key, wherever it is said: a class may serve http and tls.
    assert ask(world, "sni", None, sni=b"A.b") == ask(world, "host", get("Host: a.B:81"))


@given(st.text("ABCdef.-019", min_size=1, max_size=300))
def test_folding_any_length(world: World, name: str) -> None:
    lower = name.lower().encode().removesuffix(b".")
    shows(world, "sni", None, lower or None, sni=name.encode())


# ---- source and destination ----


def test_source(world: World) -> None:
    for client in ("192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "2001:db8::2"):
        assert ask(world, "source", client=client) == ask(world, "by-ip", client=client)
    assert ask(world, "source", client="::") is None  # a unix socket


def test_destination(world: World) -> None:
    one = ask(world, "destination", local="192.0.2.9")
    assert one == key_of(world, bytes(10) + b"\xff\xff\xc0\x00\x02\x09" + b"\xbb\x01")  # 443
    assert one != ask(world, "destination", local="192.0.2.10")
    assert ask(world, "destination") is None
    assert ask(world, "destination", local="::") is None


def test_where_there_is_no_head(world: World) -> None:
    for part in SINGLE:
        if part[0] not in ("source", "sni", "destination"):
            shows(world, name_of(part), None, None)


# ---- lists ----


def test_a_list_needs_each_part(world: World) -> None:
    agent = get("User-Agent: browser")
    assert ask(world, "list-0", agent) is not None
    assert ask(world, "list-0", agent, client="::") is None
    assert ask(world, "list-0", get()) is None
    assert ask(world, "list-3", local="192.0.2.9") is not None
    assert ask(world, "list-3") is None


def test_order_counts(world: World) -> None:
    agent = get("User-Agent: browser")
    assert ask(world, "list-0", agent) != ask(world, "list-1", agent)


texts = st.text('ab=; "', max_size=5).map(str.strip)


@given(st.tuples(texts, texts), st.tuples(texts, texts))
def test_a_list_is_its_parts_and_nothing_else(world: World, one, other) -> None:
    """Lengths are part of the key: "ab" and "c" are not "a" and "bc"."""
    keys = [ask(world, "list-5", get(f"X-A: {a}", f"X-B: {b}")) for a, b in (one, other)]
    assert [key is None for key in keys] == ["" in pair for pair in (one, other)]
    if None not in keys:
        assert (keys[0] == keys[1]) == (one == other)


def test_a_part_may_stand_there_twice(world: World) -> None:
    once = ask(world, "list-4", get("X-A: 1"))
    assert once is not None
    assert once != key_of(world, b"11")


def test_duplicates_of_any_part_are_seen(world: World) -> None:
    found = world.find(index("list-2"), CLIENT, get("Cookie: A=1; B=2; B=3"))
    assert (found["kind"], found["duplicates"]) == ("key", True)
    found = world.find(index("list-2"), CLIENT, get("Cookie: A=1; B=2"))
    assert found["duplicates"] is False


# ---- a rule's key ----


def test_a_rules_key_goes_before_the_declared_one(world: World) -> None:
    data = get("X-User: alice")
    assert ask(world, "header:X-User", data, key=b"bob") == key_of(world, b"bob")
    assert ask(world, "list-0", get(), key=b"bob") == key_of(world, b"bob")


def test_an_empty_one_is_no_key(world: World) -> None:
    assert ask(world, "header:X-User", get("X-User: alice"), key=b"") is None


def test_no_rule_and_nothing_declared(world: World) -> None:
    assert ask(world, "by-rule", get("X-User: alice")) is None


# ---- learning ----


def answer(*fields: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", *fields, "", ""]).encode("latin-1")


PAST = "Expires=Thu, 01 Jan 1970 00:00:00 GMT"


@pytest.mark.parametrize(("fields", "values", "ended"), [
    (["SID=abc"], [b"abc"], False),
    (["SID=abc; Path=/; HttpOnly"], [b"abc"], False),
    (['SID="abc"; Path=/'], [b"abc"], False),
    (["SID = abc ; Path=/"], [b"abc"], False),
    (["SID=abc; Max-Age=60"], [b"abc"], False),
    (["other=x", "SID=abc", "another=y"], [b"abc"], False),
    (["SID=one; Path=/a", "SID=two; Path=/b"], [b"one", b"two"], False),
    (["SID=x; Max-Age=0"], [], True),
    (["SID=deleted; " + PAST], [], True),
    (["SID=; Max-Age=0"], [], True),
    (["SID=old; Max-Age=0; Path=/old", "SID=new; Path=/"], [b"new"], True),
    (["SID="], [], False),
    (['SID=""'], [], False),
    (["sid=abc", "SIDX=a", "XSID=b", "SID", "=SID"], [], False),
    (["other=x; " + PAST], [], False),
    ([], [], False),
])  # fmt: skip
def test_learning_from_cookies(
    world: World, fields: list[str], values: list[bytes], ended: bool
) -> None:
    data = answer(*(f"Set-Cookie: {one}" for one in fields))
    keys = [key_of(world, value) for value in values]
    assert world.learn(index("learn-cookie:SID"), data) == (keys, ended)


def test_a_flood_of_set_cookies_is_bounded(world: World) -> None:
    data = answer(*(f"Set-Cookie: SID={n}" for n in range(150)))
    keys, ended = world.learn(index("learn-cookie:SID"), data)
    assert keys == [key_of(world, str(n).encode()) for n in range(8)]
    assert not ended


@pytest.mark.parametrize(("fields", "values"), [
    (["X-Session: abc"], [b"abc"]),
    (["x-session:  abc "], [b"abc"]),
    (["X-Session: ", "X-Session: abc", "X-Session: def"], [b"abc"]),
    (["X-Session:"], []),
    (["X-Sessions: abc", "Set-Cookie: X-Session=abc"], []),
    ([], []),
])  # fmt: skip
def test_learning_from_a_header(world: World, fields: list[str], values: list[bytes]) -> None:
    keys = [key_of(world, value) for value in values]
    assert world.learn(index("learn-header:X-Session"), answer(*fields)) == (keys, False)


values = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters=";,\x7f"), min_size=1
).filter(lambda text: not any(0x7F <= ord(c) <= 0x9F for c in text))


@given(values)
def test_a_learned_cookie_comes_back_as_the_same_key(world: World, value: str) -> None:
    keys, _ = world.learn(index("learn-cookie:SID"), answer(f"Set-Cookie: SID={value}; Path=/"))
    key = ask(world, "cookie:SID", get(f"Cookie: SID={value}"))
    assert keys == ([] if key is None else [key])
