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
