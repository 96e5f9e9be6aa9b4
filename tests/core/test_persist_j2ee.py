"""Session ids of servlet containers: out of requests, out of responses, and what they decide."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlb._core._testing_decide import World
from fastlb._core.shm import Segment
from tests.core.plans import Class, Setting, get, state

CLIENT = "192.0.2.1"
ID = "1A530637289A03B07199A44E8D531427"


@pytest.fixture(scope="module")
def world():
    classes = [
        Class("shop", type="j2ee"),
        Class("whole", type="j2ee", route_separators=""),
        Class("renamed", type="j2ee", session_cookie="SID", session_parameter="sid"),
    ]
    with Segment.create() as segment:
        yield Setting(classes=classes).world(segment)


def key(world: World, id: str, index: int = 1) -> bytes:
    """The key of an id: as the class without separators finds it."""
    (found,) = world.find(index, CLIENT, get(f"Cookie: JSESSIONID={id}"))["keys"]
    return found


def cookie(value: str) -> str:
    return f"Cookie: JSESSIONID={value}"


@pytest.mark.parametrize(("fields", "target", "id", "twice"), [
    ([cookie("a")], "/", "a", False),
    ([cookie(ID)], "/", ID, False),
    ([cookie('"a"')], "/", "a", False),
    (["Cookie: x=y; JSESSIONID=a; z=1"], "/", "a", False),
    (["Cookie: x=y", cookie("a")], "/", "a", False),
    ([cookie("a; JSESSIONID=b")], "/", "a", True),
    ([cookie("a"), cookie("b")], "/", "a", True),
    ([cookie("a"), cookie("a")], "/", "a", True),
    ([cookie("; JSESSIONID=b")], "/", "b", True),
    ([cookie('""; JSESSIONID=b')], "/", "b", True),
    ([cookie(".route; JSESSIONID=b.route")], "/", "b", True),
    ([cookie("x" * 257), cookie("b")], "/", "b", True),
    ([cookie("x" * 256)], "/", "x" * 256, False),
    ([cookie("x" * 256 + ".route")], "/", "x" * 256, False),
    ([cookie("x" * 257)], "/", None, False),
    ([cookie("")], "/", None, False),
    (["Cookie: JSESSIONID"], "/", None, False),
    (["Cookie: jsessionid=a; JSessionId=b; XJSESSIONID=c; JSESSIONIDX=d"], "/", None, False),
    (["X-Cookie: JSESSIONID=a"], "/", None, False),
    ([cookie("a.node1")], "/", "a", False),
    ([cookie("a!123!456")], "/", "a", False),
    ([cookie("0000a:clone1:clone2")], "/", "0000a", False),
    ([cookie("a!1.2:3")], "/", "a", False),
    ([cookie("a%2Enode1")], "/", "a%2Enode1", False),
    ([cookie("a-b_c~d/e+f=")], "/", "a-b_c~d/e+f=", False),
    ([cookie("\xe4\xff")], "/", "\xe4\xff", False),
    ([], "/shop;jsessionid=a", "a", False),
    ([], "/shop;jsessionid=a.node1", "a", False),
    ([], "/shop;jsessionid=a.node1/cart;x=1?jsessionid=b", "a", False),
    ([], "/shop;x=1;jsessionid=a;y=2", "a", False),
    ([], "/shop;jsessionid=;jsessionid=.r;jsessionid=b", "b", False),
    ([], f"/shop;jsessionid={'x' * 257}/;jsessionid=b", "b", False),
    ([], "http://www.example.com/shop;jsessionid=a?b", "a", False),
    ([], "http://www.example.com?;jsessionid=a", None, False),
    ([], "/shop?;jsessionid=a", None, False),
    ([], "/shop?jsessionid=a", None, False),
    ([], "/shop;xjsessionid=a", None, False),
    ([], "/shop;JSESSIONID=a", None, False),
    ([], "/shop%3Bjsessionid=a", None, False),
    ([], "/shop;jsessionid", None, False),
    ([cookie("a")], "/shop;jsessionid=b", "a", False),
    ([cookie("")], "/shop;jsessionid=b", "b", False),
    ([cookie("a.x")], "/shop;jsessionid=a.y", "a", False),
    (["Cookie: other=1"], "/shop;jsessionid=b", "b", False),
])  # fmt: skip
def test_what_is_found(world: World, fields: list[str], target: str, id, twice: bool) -> None:
    found = world.find(0, CLIENT, get(*fields, target=target))
    assert found["keys"] == ([] if id is None else [key(world, id)])
    assert found["kind"] == ("nothing" if id is None else "key")
    assert (found["outcome"] == "no-key") is (id is None)
    assert found["duplicates"] is twice


def test_other_targets_and_no_head(world: World) -> None:
    asterisk = b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"
    authority = b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"
    for data in (asterisk, authority, None):
        assert world.find(0, CLIENT, data)["keys"] == []


def test_names_of_the_class(world: World) -> None:
    for fields, target in [(["Cookie: SID=a.b"], "/"), ([], "/;sid=a.b")]:
        (found,) = world.find(2, CLIENT, get(*fields, target=target))["keys"]
        assert found == key(world, "a")
    assert world.find(2, CLIENT, get(cookie("a"), target="/;jsessionid=a"))["keys"] == []


def test_without_separators_the_whole_value_is_the_id(world: World) -> None:
    assert key(world, "a.node1") != key(world, "a.node2") != key(world, "a")


def answer(*fields: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", "Content-Length: 0", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@pytest.mark.parametrize(("fields", "ids", "ended"), [
    ([], [], False),
    (["Set-Cookie: JSESSIONID=a; Path=/; HttpOnly"], ["a"], False),
    (["Set-Cookie: JSESSIONID=a.node1"], ["a"], False),
    (['Set-Cookie: JSESSIONID="a.node1"; Version=1'], ["a"], False),
    (["Set-Cookie: JSESSIONID=a; Max-Age=60"], ["a"], False),
    (["Set-Cookie: JSESSIONID=a", "Set-Cookie: JSESSIONID=b; Path=/x"], ["a", "b"], False),
    (["Set-Cookie: x=y", "Set-Cookie: JSESSIONID=b", "Set-Cookie: z=a"], ["b"], False),
    (["Set-Cookie: jsessionid=a", "Set-Cookie: XJSESSIONID=a"], [], False),
    (["Set-Cookie: x=JSESSIONID=a; JSESSIONID=b"], [], False),
    (["Set-Cookie: JSESSIONID=a; Max-Age=0"], [], True),
    (["Set-Cookie: JSESSIONID=a; Max-Age=-1"], [], True),
    (["Set-Cookie: JSESSIONID=; Expires=Thu, 01 Jan 1970 00:00:10 GMT"], [], True),
    (["Set-Cookie: JSESSIONID="], [], True),
    (["Set-Cookie: JSESSIONID=a; Max-Age=0", "Set-Cookie: JSESSIONID=b"], ["b"], True),
    (["Set-Cookie: JSESSIONID=a; Expires=Thu, 01 Jan 1970 00:00:10 GMT; Max-Age=9"], ["a"], False),
    (["Set-Cookie: JSESSIONID=.node1"], [], False),
    ([f"Set-Cookie: JSESSIONID={'x' * 257}"], [], False),
    (["Set-Cookie: JSESSIONID"], [], False),
    (["Set-Cookie:"], [], False),
    (["Location: /shop;jsessionid=a.node1?x=;jsessionid=b"], ["a"], False),
    (["Location: http://www.example.com:8080/shop;jsessionid=a"], ["a"], False),
    (["Location: //www.example.com/shop;jsessionid=a"], ["a"], False),
    (["Location: cart;jsessionid=a"], ["a"], False),
    (["Location: ;jsessionid=a#b"], ["a"], False),
    (["Location: /shop#;jsessionid=a"], [], False),
    (["Location: /shop?;jsessionid=a"], [], False),
    (["Location: /shop;xjsessionid=a"], [], False),
    (["Location: mailto:a;jsessionid=a"], [], False),
    (["Location: http://;jsessionid=a@www.example.com/"], [], False),
    (["Location:"], [], False),
    (["Content-Location: /shop;jsessionid=a", "Refresh: 1; url=/;jsessionid=a"], [], False),
    (["Set-Cookie: JSESSIONID=a.x", "Location: /;jsessionid=a.x"], ["a", "a"], False),
])  # fmt: skip
def test_what_is_learned(world: World, fields: list[str], ids: list[str], ended: bool) -> None:
    assert world.learn(0, answer(*fields, status="302 Found")) == (
        [key(world, id) for id in ids], ended,
    )  # fmt: skip


def test_more_than_fit_are_dropped(world: World) -> None:
    lines = [f"Set-Cookie: JSESSIONID=a{n}" for n in range(20)]
    assert world.learn(0, answer(*lines))[0] == [key(world, f"a{n}") for n in range(8)]


ids = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters=';,"/?#\x7f'
                            + "".join(map(chr, range(0x80, 0xA1)))), min_size=1,
              max_size=40)  # fmt: skip


@given(ids)
def test_all_spellings_of_an_id_are_one_key(world: World, id: str) -> None:
    found = world.find(0, CLIENT, get(cookie(id)))["keys"]
    learned, _ = world.learn(0, answer(f"Set-Cookie: JSESSIONID={id}; Path=/"))
    assert learned == found
    assert world.learn(0, answer(f"Location: /a;jsessionid={id}?b"))[0] == found
    if id.isascii():
        assert world.find(0, CLIENT, get(target=f"/a;jsessionid={id};b"))["keys"] == found
    stem = id.split(".")[0].split("!")[0].split(":")[0]
    assert found == ([key(world, stem)] if stem else [])


@given(st.binary(max_size=60).map(lambda raw: raw.translate(None, bytes(range(32)) + b"\x7f")))
def test_garbage(world: World, raw: bytes) -> None:
    text = raw.decode("latin-1")
    world.find(0, CLIENT, get(f"Cookie: {text}JSESSIONID={text};{text}"))
    world.learn(0, answer(f"Set-Cookie: {text}", f"Set-Cookie: JSESSIONID={text}",
                          f"Location: {text};jsessionid={text}"))  # fmt: skip


# ---- decisions ----


@pytest.fixture
def shop(make):
    return make(Class("shop", type="j2ee"))


def test_an_unknown_id_is_bound_on_its_request(shop: World) -> None:
    first = shop.decide(CLIENT, get(cookie("a.old")))
    assert (first.outcome, first.keys, len(shop.maps(0))) == ("new", [0], 1)
    for again in (get(cookie("a")), get(target="/;jsessionid=a.new")):
        made = shop.decide("192.0.2.9", again)
        assert (made.outcome, made.found_in, made.node) == ("hit", "cache", first.node)


def test_an_id_is_learned_from_its_response(shop: World) -> None:
    first = shop.decide(CLIENT, get())
    assert (first.outcome, first.keys, shop.maps(0)) == ("no-key", [], {})
    first.learn(answer("Set-Cookie: JSESSIONID=a.node1; Path=/"))
    assert list(shop.maps(0).values()) == ["10.0.0.1:80"]
    assert shop.decide(CLIENT, get(cookie("a.node1"))).outcome == "hit"


def test_a_renewed_id_stays_on_the_node(shop: World) -> None:
    shop.decide(CLIENT, get())
    first = shop.decide(CLIENT, get(cookie("a")))
    first.learn(answer("Set-Cookie: JSESSIONID=b"))
    made = shop.decide(CLIENT, get(cookie("b")))
    assert (made.outcome, made.node) == ("hit", first.node)


def test_a_deleted_cookie_ends_the_session(shop: World) -> None:
    shop.decide(CLIENT, get(cookie("a"))).learn(answer("Set-Cookie: JSESSIONID=; Max-Age=0"))
    assert shop.maps(0) == {}
    shop.decide(CLIENT, get(cookie("a"))).learn(
        answer("Set-Cookie: JSESSIONID=; Max-Age=0", "Set-Cookie: JSESSIONID=b; Path=/b")
    )
    assert list(shop.maps(0)) == [key_in(shop, "b")]


def key_in(world: World, id: str) -> bytes:
    return world.find(0, CLIENT, get(cookie(id)))["key"]


def test_the_cookie_wins_over_the_url(shop: World) -> None:
    nodes = [shop.decide(CLIENT, get(cookie(id))).node for id in "ab"]
    assert nodes[0] != nodes[1]
    assert shop.decide(CLIENT, get(cookie("b"), target="/;jsessionid=a")).node == nodes[1]


def test_the_map_decides_and_not_the_suffix(shop: World) -> None:
    first = shop.decide(CLIENT, get(cookie("a.node1")))
    state(shop, first.node, "down")
    moved = shop.decide(CLIENT, get(cookie("a.node1")))
    assert (moved.outcome, moved.node != first.node) == ("node-down", True)
    moved.learn(answer("Set-Cookie: JSESSIONID=a.node2"))
    state(shop, first.node, "up")
    for suffix in (".node1", ".node2", ""):
        assert shop.decide(CLIENT, get(cookie(f"a{suffix}"))).node == moved.node
    assert len(shop.maps(0)) == 1


def test_duplicates_reach_the_decision(shop: World) -> None:
    assert shop.decide(CLIENT, get(cookie("a; JSESSIONID=b"))).duplicates is True
    assert shop.decide(CLIENT, get(cookie("a"))).duplicates is False
