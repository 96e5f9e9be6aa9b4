"""Request heads as the node gets them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlb._core._testing_message import Desk
from fastlb._core.shm import Segment
from tests.core.plans import Class, Setting, get

PEER = "192.0.2.1"
LONGEST = "2001:db8:1111:2222:3333:4444:5555:6666"
SCRATCH = 24 * 1024  # bytes of a worker's scratch memory
COOKIE = Class("shop", type="transparent")
NAME = COOKIE.cookie_name
OURS = f"X-Forwarded-For: {PEER}\r\nX-Forwarded-Proto: http\r\n"


@pytest.fixture
def segment():
    with Segment.create() as made:
        yield made


@pytest.fixture
def edited(segment: Segment):
    def edit(head: bytes, *classes: Class, peer: str = PEER, before: int = 0, **more) -> str:
        world = Setting(classes=list(classes), **more).world(segment)
        desk = Desk(world, peer)
        desk.decided(world.decide(peer or "::", head))
        out = desk.request(head, before)
        return out if out == "full" else out.decode("latin-1")

    return edit


def raw(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode("latin-1")


def test_nothing_is_changed_but_what_is_added(edited) -> None:
    head = "GET /a?b HTTP/1.1\nhOsT:  www.example.com \nX-Odd:\t a  b \nX-Odd: c\nACCEPT: */*\n\n"
    text = raw(head).decode()
    assert edited(raw(head)) == text[:-2] + OURS + "\r\n"


def test_empty_lines_before_the_request_line_go(edited) -> None:
    assert edited(raw("\n\nGET / HTTP/1.1\nHost: a\n\n")) == (
        f"GET / HTTP/1.1\r\nHost: a\r\n{OURS}\r\n"
    )


def test_a_head_that_does_not_begin_at_the_buffers_start(edited) -> None:
    head = get("A: b")
    assert edited(head, before=1000) == edited(head)


def test_white_space_around_framing_goes(edited) -> None:
    for line, out in (
        ("Transfer-Encoding:  chunked\t", "Transfer-Encoding: chunked"),
        ("Content-Length:\t5 \t", "Content-Length: 5"),
    ):
        assert edited(get(line, "A: \tb\t")) == (
            f"GET / HTTP/1.1\r\nHost: www.example.com\r\n{out}\r\nA: \tb\t\r\n{OURS}\r\n"
        )


# ---- the version and the Host ----


def test_1_0_becomes_1_1_and_gets_a_host(edited) -> None:
    assert edited(raw("GET / HTTP/1.0\nA: b\n\n")) == (
        f"GET / HTTP/1.1\r\nHost: 10.0.0.1:80\r\nA: b\r\n{OURS}\r\n"
    )
    assert edited(raw("GET / HTTP/1.0\nHost: x\n\n")).startswith("GET / HTTP/1.1\r\nHost: x\r\n")


@pytest.mark.parametrize(("head", "host"), [
    ("GET http://b.example:81/x HTTP/1.1\nHost: a.example\n\n", "Host: b.example:81\r\n"),
    ("GET http://b.example/x HTTP/1.0\nA: b\n\n", "Host: b.example\r\nA: b\r\n"),
    ("GET http://b.example/x HTTP/1.1\nHost:\n\n", "Host:b.example\r\n"),
])  # fmt: skip
def test_the_targets_authority_is_the_host(edited, head: str, host: str) -> None:
    out = edited(raw(head))
    assert out.split("\r\n", 1)[1].startswith(host)
    assert out.count("ost:") == 1
    assert out.split("\r\n")[0] == head.split("\n")[0].replace("1.0", "1.1")


def test_a_very_long_authority_never_overruns(edited) -> None:
    """Put in as a Host, it fills all but a few bytes of the scratch memory."""
    answers = set()
    for count in range(SCRATCH - 160, SCRATCH + 1):
        out = edited(raw(f"GET http://{'a' * count}/ HTTP/1.0\n\n"), peer=LONGEST)
        answers.add(out == "full")
        assert out == "full" or f"\r\nX-Forwarded-For: {LONGEST}\r\n" in out
    assert answers == {True, False}


# ---- hop by hop ----


@pytest.mark.parametrize("fields", [
    ["Connection: close"],
    ["Connection: keep-alive", "Keep-Alive: timeout=5"],
    ["Proxy-Connection: keep-alive"],
    ["TE: trailers", "Connection: TE"],
    ["Connection: X-Mine, x-other", "X-Mine: 1", "X-OTHER: 2"],
    ["Upgrade: h2c"],
])  # fmt: skip
def test_hop_by_hop_fields_go(edited, fields: list[str]) -> None:
    assert edited(get("A: b", *fields, "C: d")) == (
        f"GET / HTTP/1.1\r\nHost: www.example.com\r\nA: b\r\nC: d\r\n{OURS}\r\n"
    )


def test_an_upgrade_stays_one(edited) -> None:
    out = edited(get("Connection: Upgrade, X-Mine", "Upgrade: websocket", "X-Mine: 1"))
    assert "Upgrade: websocket\r\n" in out
    assert "Connection: Upgrade\r\n" in out
    assert "X-Mine" not in out


# ---- X-Forwarded-* ----


def test_the_peer_is_the_last_of_the_list(edited) -> None:
    out = edited(get("X-Forwarded-For: 1.1.1.1", "A: b", "x-forwarded-for: 2.2.2.2", "C: d"))
    assert f"X-Forwarded-For: 1.1.1.1\r\nA: b\r\nx-forwarded-for: 2.2.2.2, {PEER}\r\nC: d" in out
    assert out.count(PEER) == 1


@pytest.mark.parametrize(("peer", "text"), [
    ("2001:db8::1", "2001:db8::1"), ("::ffff:10.0.0.1", "10.0.0.1"),
    ("255.255.255.255", "255.255.255.255"),
])  # fmt: skip
def test_addresses_as_they_are_written(edited, peer: str, text: str) -> None:
    assert f"X-Forwarded-For: {text}\r\n" in edited(get(), peer=peer)


def test_a_peer_without_address_adds_none(edited) -> None:
    assert "Forwarded-For" not in edited(get(), peer="")
    assert "X-Forwarded-For: 1.1.1.1\r\n" in edited(get("X-Forwarded-For: 1.1.1.1"), peer="")


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("listed", ["X-Forwarded-For", "X-Forwarded-Proto", "x-forwarded-for, a"])
def test_a_client_cannot_list_our_fields_as_hop_by_hop(edited, listed: str, trusted: bool) -> None:
    head = get(f"Connection: {listed}", "X-Forwarded-For: 1.1.1.1", "X-Forwarded-Proto: https",
               "A: b")  # fmt: skip
    out = edited(head, trusted=[("192.0.2.0", 24)] if trusted else [])
    lines = out.split("\r\n")
    assert lines[-2:] == ["", ""]
    assert all(": " in line for line in lines[1:-2]), out
    addresses = [line for line in lines if line.lower().startswith("x-forwarded-for:")]
    assert len(addresses) == 1
    assert addresses[0].endswith(PEER)
    assert len([line for line in lines if line.startswith("X-Forwarded-Proto: ")]) == 1


def test_whose_proto_is_believed(edited) -> None:
    head = get("X-Forwarded-Proto: https", "x-forwarded-proto: gopher")
    assert edited(head).count("roto: ") == 1
    assert "X-Forwarded-Proto: http\r\n" in edited(head)
    believed = edited(head, trusted=[("192.0.2.0", 24)])
    assert "X-Forwarded-Proto: https\r\nx-forwarded-proto: gopher\r\n" in believed
    assert believed.count("roto: ") == 2
    assert "X-Forwarded-Proto: https\r\n" in edited(get(), protocol="https")


# ---- cookies ----


@pytest.mark.parametrize(("cookies", "left"), [
    ([f"{NAME}=x"], None),
    ([f"a=1; {NAME}=x; b=2"], ["a=1; b=2"]),
    ([f"a=1; {NAME}=x; {NAME}=y; b=2"], ["a=1; b=2"]),
    ([f"{NAME}=x", "a=1"], ["a=1"]),
    (["a=1; b=2"], ["a=1; b=2"]),
    ([f"{NAME.lower()}=x"], [f"{NAME.lower()}=x"]),
])  # fmt: skip
def test_our_cookie_is_hidden(edited, cookies: list[str], left: list[str] | None) -> None:
    out = edited(get(*[f"Cookie: {one}" for one in cookies], "A: b"), COOKIE)
    found = [line[8:] for line in out.split("\r\n") if line.startswith("Cookie: ")]
    assert found == (left or [])


def test_our_cookie_may_be_shown(edited) -> None:
    shown = Class("shop", type="transparent", flags=())
    assert f"Cookie: {NAME}=x\r\n" in edited(get(f"Cookie: {NAME}=x"), shown)


def test_cookies_of_the_whole_chain_are_hidden(edited) -> None:
    first = Class("shop", type="transparent", fallback="ip")
    second = Class("ip", fallback="second")
    third = Class("second", type="transparent")
    head = get(f"Cookie: {third.cookie_name}=1; a=2; {NAME}=3; b=4")
    assert "Cookie: a=2; b=4\r\n" in edited(head, first, second, third)


def test_a_cookie_field_listed_as_hop_by_hop_goes_as_a_whole(edited) -> None:
    listed = get("Connection: Cookie", f"Cookie: a=2; {NAME}=3")
    assert "ookie" not in edited(listed, COOKIE)


# ---- too much ----


def test_more_cuts_than_there_is_room_for(edited) -> None:
    listed = ", ".join(f"x{i}" for i in range(30))
    many = [f"x{i % 30}: {i}\r\nY: {i}" for i in range(70)]
    assert edited(get(f"Connection: {listed}", *many[:10])) != "full"
    assert edited(get(f"Connection: {listed}", *many[:60])).count("Y: ") == 60
    assert edited(get(f"Connection: {listed}", *many)) == "full"


names = st.sampled_from([
    "X-Forwarded-For", "X-Forwarded-Proto", "Connection", "Keep-Alive", "TE", "Upgrade", "Cookie",
    "A", "B", "Proxy-Connection", "Expect",
])  # fmt: skip
values = st.sampled_from([
    "", "a", "x-forwarded-for", "x-forwarded-proto, a", "cookie", "upgrade", "close, b", "expect",
    "1.1.1.1", f"{NAME}=x", f"a=b; {NAME}=y",
])  # fmt: skip


@given(st.lists(st.tuples(names, values), max_size=8), st.sampled_from(["1.0", "1.1"]),
       st.booleans())  # fmt: skip
def test_what_comes_out_is_a_head(fields: list, version: str, trusted: bool) -> None:
    """Whatever comes in: each line is one that came in, or one of ours."""
    head = get(*[f"{name}: {value}" for name, value in fields], version=version)
    with Segment.create() as segment:
        setting = Setting(classes=[COOKIE], trusted=[("192.0.2.0", 24)] if trusted else [])
        world = setting.world(segment)
        desk = Desk(world, PEER)
        desk.decided(world.decide(PEER, head))
        out = desk.request(head).decode()
    first, *lines = out.split("\r\n")
    assert first == "GET / HTTP/1.1"
    assert lines[-2:] == ["", ""]
    came = {f"{name}: {value}" for name, value in fields} | {"Host: www.example.com"}
    ours = {"Host: 10.0.0.1:80", "Connection: Upgrade", "X-Forwarded-Proto: http", "Cookie: a=b",
            f"X-Forwarded-For: {PEER}"}  # fmt: skip
    for line in lines[:-2]:
        assert line in came or line in ours or line.endswith(f", {PEER}"), out
    assert sum(line.lower().startswith("x-forwarded-for:") and PEER in line for line in lines) == 1
    assert not any(line.startswith("Cookie:") and NAME in line for line in lines)


# ---- Max-Forwards ----


@pytest.mark.parametrize(("method", "value", "out"), [
    ("OPTIONS", "5", "4"),
    ("TRACE", " 10 ", "9"),
    ("TRACE", "1", "0"),
    ("OPTIONS", "007", "6"),
    ("OPTIONS", "9" * 40, "999999"),
    ("OPTIONS", "many", "many"),
    ("OPTIONS", "-1", "-1"),
    ("GET", "5", "5"),
    ("DELETE", "0", "0"),
])  # fmt: skip
def test_each_hop_counts(edited, method: str, value: str, out: str) -> None:
    head = raw(f"{method} / HTTP/1.1\nHost: a\nmax-forwards:{value}\nA: b\n\n")
    found = edited(head).split("\r\n")[2]
    assert found.split(":")[1].strip() == out


def test_no_other_field_is_counted(edited) -> None:
    lines = "Max-Forward: 5\nMax-Forwards2: 5\nX-Max-Forwards: 5\n"
    assert raw(lines).decode() in edited(raw(f"OPTIONS / HTTP/1.1\nHost: a\n{lines}\n"))
