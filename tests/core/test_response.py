"""Response heads as the client gets them."""

import pytest

from fastlb._core._testing_message import Desk
from fastlb._core.shm import Segment
from tests.core.plans import Class, Setting, get


@pytest.fixture(scope="module")
def segment():
    with Segment.create() as made:
        yield made


@pytest.fixture
def desk(segment: Segment) -> Desk:
    desk = Desk(Setting().world(segment))
    desk.load(get())
    return desk


def raw(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode("latin-1")


def test_nothing_is_changed(desk: Desk) -> None:
    head = raw('HTTP/1.1 200 All Right\nDate:  x \nset-cookie: a=b\nSet-Cookie: c=d\nETag: "1"\n\n')
    assert desk.response(head) == head


def test_1_0_becomes_1_1(desk: Desk) -> None:
    assert desk.response(raw("HTTP/1.0 404 No\nConnection: keep-alive\nA: b\n\n")) == raw(
        "HTTP/1.1 404 No\nA: b\n\n")  # fmt: skip


@pytest.mark.parametrize(("persists", "minor", "line"), [
    (True, 1, ""),
    (False, 1, "Connection: close\n"),
    (True, 0, "Connection: keep-alive\n"),
    (False, 0, "Connection: close\n"),
])  # fmt: skip
def test_our_own_connection_field(desk: Desk, persists: bool, minor: int, line: str) -> None:
    desk.set(client_persists=persists, version_minor=minor)
    head = raw("HTTP/1.1 200 OK\nConnection: close, x-a\nX-A: 1\nB: 2\n\n")
    assert desk.response(head) == raw(f"HTTP/1.1 200 OK\nB: 2\n{line}\n")


def test_switching_protocols(desk: Desk) -> None:
    head = raw("HTTP/1.1 101 Switching\nConnection: upgrade\nUpgrade: websocket\nA: b\n\n")
    assert desk.response(head) == raw(
        "HTTP/1.1 101 Switching\nUpgrade: websocket\nA: b\nConnection: Upgrade\n\n")  # fmt: skip


def test_an_offered_upgrade_is_between_the_node_and_us(desk: Desk) -> None:
    head = raw("HTTP/1.1 200 OK\nUpgrade: h2c\nConnection: upgrade\nA: b\n\n")
    assert desk.response(head) == raw("HTTP/1.1 200 OK\nA: b\n\n")


def test_chunks_that_are_decoded_are_not_announced(desk: Desk) -> None:
    head = raw("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nA: b\n\n")
    assert desk.response(head) == head
    desk.set(decode=1, version_minor=0, client_persists=False)
    assert desk.response(head) == raw("HTTP/1.1 200 OK\nA: b\nConnection: close\n\n")


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_1_0_client_never_hears_of_a_coding(desk: Desk, method: str) -> None:
    """Also where no body follows: in answers to HEAD, and in 304s."""
    desk.load(get().replace(b"GET", method.encode()))
    desk.set(version_minor=0, client_persists=False)
    status = "200 OK" if method == "HEAD" else "304 Not Modified"
    head = raw(f"HTTP/1.1 {status}\nTransfer-Encoding: chunked\nA: b\n\n")
    assert desk.response(head) == raw(f"HTTP/1.1 {status}\nA: b\nConnection: close\n\n")


@pytest.mark.parametrize(
    ("line", "out"),
    [
        ("Transfer-Encoding: chunked \t", "Transfer-Encoding: chunked"),
        ("Content-Length: \t5 ", "Content-Length: 5"),
        ("content-length:\t5", "content-length: 5"),
        ("content-length:5", "content-length:5"),
        ("A: \tb\t", "A: \tb\t"),
    ],
)
def test_white_space_around_framing_goes(desk: Desk, line: str, out: str) -> None:
    """http.client and llhttp do not take "chunked" with a tab behind it for what it is."""
    head = "HTTP/1.1 200 OK\n{}\nC: d\n\n"
    assert desk.response(raw(head.format(line))) == raw(head.format(out))


@pytest.mark.parametrize("line", ["Transfer-Encoding:\tchunked\t", "Content-Length: \t5 "])
def test_nothing_is_left_of_framing_that_goes(desk: Desk, line: str) -> None:
    """A space in its place would fold the next line."""
    head = raw(f"HTTP/1.1 204 No Content\nA: b\n{line}\nC: d\n\n")
    assert desk.response(head) == raw("HTTP/1.1 204 No Content\nA: b\nC: d\n\n")
    desk.set(decode=1, version_minor=0, client_persists=False)
    if line.startswith("T"):
        assert desk.response(head.replace(b"204 No Content", b"200 OK")) == raw(
            "HTTP/1.1 200 OK\nA: b\nC: d\nConnection: close\n\n"
        )


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_space_that_some_nodes_leave_out(desk: Desk, version: str) -> None:
    assert desk.response(raw(f"HTTP/{version} 200\nA: b\n\n")) == raw("HTTP/1.1 200 \nA: b\n\n")
    assert desk.response(raw(f"HTTP/{version} 100\n\n"), interim=True) == raw("HTTP/1.1 100 \n\n")


@pytest.mark.parametrize(("fields", "out"), [
    ("A: b\n", "A: b\nVia: 1.1 fastlb\n"),
    ("Via: 1.0 x\nA: b\n", "Via: 1.0 x, 1.1 fastlb\nA: b\n"),
    ("via: 1.0 x\nA: b\nVia: 1.1 y\n", "via: 1.0 x\nA: b\nVia: 1.1 y, 1.1 fastlb\n"),
    ("Connection: via\nVia: 1.1 y\n", "Via: 1.1 fastlb\n"),
])  # fmt: skip
def test_via_where_it_is_asked_for(segment: Segment, fields: str, out: str) -> None:
    desk = Desk(Setting(forwarded_fields=("via",)).world(segment))
    desk.load(get())
    assert desk.response(raw(f"HTTP/1.1 200 OK\n{fields}\n")) == raw(f"HTTP/1.1 200 OK\n{out}\n")


def test_via_names_the_version_of_the_node(segment: Segment) -> None:
    desk = Desk(Setting(forwarded_fields=("via",)).world(segment))
    desk.load(get())
    desk.set(client_persists=False)
    assert desk.response(raw("HTTP/1.0 200 OK\nVia: 1.1 x\n\n")) == raw(
        "HTTP/1.1 200 OK\nVia: 1.1 x, 1.0 fastlb\nConnection: close\n\n")  # fmt: skip


def test_interim_responses_get_nothing_of_ours(segment: Segment) -> None:
    cls = Class("shop", type="transparent")
    setting = Setting(classes=[cls], decision=[("0.0.0.0", 0)])
    world = setting.world(segment)
    desk = Desk(world)
    desk.load(get())
    desk.decided(world.decide("192.0.2.1", get()))
    desk.set(client_persists=False)
    head = raw("HTTP/1.0 103 Early\nLink: </a>\nConnection: close\n\n")
    assert desk.response(head, interim=True) == raw("HTTP/1.1 103 Early\nLink: </a>\n\n")
    assert b"Set-Cookie" in desk.response(raw("HTTP/1.1 200 OK\n\n"))


def test_the_decision_is_shown_to_whom_it_may_concern(segment: Segment) -> None:
    cls = Class("shop", type="transparent", fallback="by-ip")
    setting = Setting(classes=[cls, Class("by-ip")], decision=[("192.0.2.0", 24)])
    world = setting.world(segment)
    made = world.decide("192.0.2.1", get())
    for peer, shown in (("192.0.2.1", True), ("198.51.100.1", False)):
        desk = Desk(world, peer)
        desk.load(get())
        desk.decided(made)
        out = desk.response(raw("HTTP/1.1 200 OK\n\n")).decode()
        line = "X-FastLB-Decision: outcome=new; found-in=none; class=shop; node=10.0.0.1:80\r\n"
        assert (line in out) == shown
        assert ("X-FastLB" in out) == shown
    desk = Desk(world)
    desk.load(get())
    desk.decided(world.decide("192.0.2.1", get()))
    assert b"outcome=hit; found-in=cache; class=by-ip; node=10.0.0.1:80\r\n" in desk.response(
        raw("HTTP/1.1 200 OK\n\n"))  # fmt: skip


def test_more_cuts_than_there_is_room_for(desk: Desk) -> None:
    listed = ", ".join(f"x{i}" for i in range(30))
    fields = "".join(f"x{i % 30}: {i}\nY: {i}\n" for i in range(70))
    assert desk.response(raw(f"HTTP/1.1 200 OK\nConnection: {listed}\n{fields}\n")) == "full"
