"""Connections to nodes: how they begin, who gets an idle one, and when it is closed."""

import errno
import os
import resource
import socket
from collections.abc import Iterator

import pytest

from fastlb._core import _testing_upstream as core
from fastlb._core._testing_rig import Rig
from tests.harness.wait import until
from tests.harness.worker import listen

SLOT = 7


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


class Node:
    """A listening socket and what it accepted, which stays open as long as the test."""

    def __init__(self) -> None:
        self.listener = listen()
        self.listener.settimeout(5)
        self.accepted: list[socket.socket] = []

    def accept(self) -> socket.socket:
        one, _ = self.listener.accept()
        one.settimeout(5)
        self.accepted.append(one)
        return one


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node()
    yield made
    for one in (made.listener, *made.accepted):
        one.close()


def address(node: Node) -> tuple[str, int]:
    return node.listener.getsockname()


def opened(rig: Rig, node: Node, slot: int = SLOT):
    """(the connection, the node's end of it)."""
    link = core.connect(rig, slot, address(node))
    assert not isinstance(link, int), os.strerror(link)
    until(lambda: rig.turn() and link.writable, "the connection")
    assert link.connected() == 0
    return link, node.accept()


# --- opening ---


def test_connecting_becomes_busy(rig: Rig, node) -> None:
    link = core.connect(rig, SLOT, address(node))
    assert link.state == "connecting"
    until(lambda: rig.turn() and link.writable, "the connection")
    assert link.connected() == 0
    assert (link.state, link.requests) == ("busy", 1)
    assert core.counters(rig, SLOT) == {"connects": 1, "reuses": 0, "open": 1}
    link.close()
    assert core.counters(rig, SLOT)["open"] == 0


def test_refused_is_found_at_the_first_event(rig: Rig) -> None:
    with listen() as gone:
        where = gone.getsockname()
    link = core.connect(rig, SLOT, where)
    assert rig.turn(5000)
    assert link.connected() == errno.ECONNREFUSED
    assert link.state == "connecting"
    link.close()


def test_no_way_there_is_known_at_once(rig: Rig) -> None:
    error = core.connect(rig, SLOT, ("255.255.255.255", 80))
    assert error in (errno.ENETUNREACH, errno.EACCES)
    assert core.counters(rig, SLOT) == {"connects": 0, "reuses": 0, "open": 0}


def test_no_descriptor_is_known_at_once(rig: Rig, node) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, most[1]))
    try:
        assert core.connect(rig, SLOT, address(node)) == errno.EMFILE
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, most)
    assert core.counters(rig, SLOT)["open"] == 0


def test_node_that_does_not_answer_stays_in_progress(rig: Rig) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.create_connection(full.getsockname(), 5):
            links = [core.connect(rig, SLOT, full.getsockname()) for _ in range(3)]
            rig.turn(100)
            waiting = [link for link in links if not link.writable]
            assert waiting  # their SYN is dropped while the queue is full
            assert {link.state for link in waiting} == {"connecting"}
            for link in links:
                link.close()


def test_ipv6(rig: Rig) -> None:
    with socket.socket(socket.AF_INET6) as listener:
        listener.bind(("::1", 0))
        listener.listen()
        link = core.connect(rig, SLOT, listener.getsockname()[:2])
        until(lambda: rig.turn() and link.writable, "the connection")
        assert link.connected() == 0
        link.close()


def test_small_messages_are_not_held_back(rig: Rig, node) -> None:
    link, _ = opened(rig, node)
    with socket.socket(fileno=os.dup(link.fd)) as ours:
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert not os.get_blocking(link.fd)
    assert not os.get_inheritable(link.fd)
    link.close()


# --- the pool ---


def test_last_used_is_borrowed_first(rig: Rig, node) -> None:
    links = [opened(rig, node)[0] for _ in range(3)]
    for link in links:
        link.give_back()
    assert core.idle(rig, SLOT) == (3, 3)
    for link in reversed(links):
        assert core.borrow(rig, SLOT, address(node)) == link
        assert (link.state, link.requests) == ("busy", 2)
    assert core.borrow(rig, SLOT, address(node)) is None
    assert core.idle(rig, SLOT) == (0, 0)
    assert core.counters(rig, SLOT)["reuses"] == 3
    for link in links:
        link.close()


def test_each_slot_has_its_own(rig: Rig, node) -> None:
    link, _ = opened(rig, node)
    link.give_back()
    assert core.borrow(rig, SLOT + 1, address(node)) is None
    assert core.borrow(rig, SLOT, address(node)) == link
    link.close()


def test_any_of_the_pool_may_end(rig: Rig, node) -> None:
    for gone in range(3):
        pairs = [opened(rig, node) for _ in range(3)]
        for link, _ in pairs:
            link.give_back()
        pairs[gone][1].close()
        until(lambda: rig.turn() or core.idle(rig, SLOT)[0] == 2, "the end noticed")
        left = [link for at, (link, _) in enumerate(pairs) if at != gone]
        assert core.borrow(rig, SLOT, address(node)) == left[1]
        assert core.borrow(rig, SLOT, address(node)) == left[0]
        assert core.borrow(rig, SLOT, address(node)) is None
        for link in left:
            link.close()
        for _, accepted in pairs:
            accepted.close()


@pytest.mark.parametrize("how", ["bytes", "end", "reset"])
def test_idle_connection_that_says_anything_is_closed(rig: Rig, node, how: str) -> None:
    link, accepted = opened(rig, node)
    link.give_back()
    if how == "bytes":
        accepted.sendall(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    elif how == "end":
        accepted.shutdown(socket.SHUT_WR)
    else:
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        accepted.close()
    assert rig.turn(5000)
    assert core.borrow(rig, SLOT, address(node)) is None
    assert core.counters(rig, SLOT)["open"] == 0
    accepted.close()


def test_room_to_write_does_not_close_an_idle_one(rig: Rig, node) -> None:
    link, accepted = opened(rig, node)
    with socket.socket(fileno=os.dup(link.fd)) as ours:
        sent = 0
        while True:
            try:
                sent += ours.send(bytes(1 << 16))
            except BlockingIOError:
                break
    link.give_back()
    while sent > 0:
        sent -= len(accepted.recv(1 << 20))
    until(rig.turn, "the edge")
    assert core.borrow(rig, SLOT, address(node)) == link
    link.close()


def test_connections_of_another_address_in_the_slot_are_closed(rig: Rig, node) -> None:
    links = [opened(rig, node)[0] for _ in range(2)]
    for link in links:
        link.give_back()
    host, port = address(node)
    assert core.borrow(rig, SLOT, (host, port + 1)) is None
    assert core.idle(rig, SLOT) == (0, 0)
    assert core.counters(rig, SLOT)["open"] == 0


def test_pool_has_an_end(rig: Rig, node) -> None:
    made = []
    for _ in range(core.IDLE_MAX + 2):
        link = core.connect(rig, SLOT, address(node))
        made.append(link)
        node.accept()
    until(lambda: rig.turn() == 0, "all connected")
    for link in made:
        assert link.connected() == 0
        link.give_back()
    assert core.idle(rig, SLOT) == (core.IDLE_MAX, core.IDLE_MAX)
    assert core.counters(rig, SLOT)["open"] == core.IDLE_MAX


def test_worker_that_stops_pools_nothing(rig: Rig, node) -> None:
    link, accepted = opened(rig, node)
    rig.stopping = True
    link.give_back()
    assert core.idle(rig, SLOT) == (0, 0)
    assert accepted.recv(1) == b""


def test_idle_ones_are_dropped_by_slot_and_all(rig: Rig, node) -> None:
    for slot in (1, 1, 2, 4095):
        opened(rig, node, slot)[0].give_back()
    core.drop_idle(rig, 1)
    assert [core.idle(rig, slot)[0] for slot in (1, 2, 4095)] == [0, 1, 1]
    core.drop_all_idle(rig)
    assert [core.idle(rig, slot)[0] for slot in (1, 2, 4095)] == [0, 0, 0]
    assert core.counters(rig, 1)["open"] == 0


@pytest.mark.parametrize("hard", [False, True])
def test_close_says_how(rig: Rig, node, hard: bool) -> None:
    link, accepted = opened(rig, node)
    link.close(hard)
    assert link.state == "closed"
    if hard:
        with pytest.raises(ConnectionResetError):
            accepted.recv(1)
    else:
        assert accepted.recv(1) == b""


def test_closed_one_is_used_again_only_after_its_turn(rig: Rig, node) -> None:
    first, _ = opened(rig, node)
    first.close()
    second = core.connect(rig, SLOT, address(node))
    assert second != first  # an event of the same turn may still point to it
    core.bury(rig)
    third = core.connect(rig, SLOT, address(node))
    assert third == first
    second.close()
    third.close()
