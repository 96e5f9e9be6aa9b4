"""Both directions of a tunnel: bytes, half-closes, resets, and what an open one holds."""

import contextlib
import socket
import struct
from collections.abc import Iterator

import pytest

from fastlb._core import _testing_tunnel as core
from fastlb._core._testing_relay import Way
from fastlb._core._testing_rig import End, Rig
from tests.harness.worker import listen


class Tunnel:
    """A client's and a node's connection with their peers, and the flows between them."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        with listen() as listener:
            self.client, self.client_end = self._pair(listener)
            self.node, self.node_end = self._pair(listener)
        self.up, self.down = Way(rig, "none"), Way(rig, "none")
        core.start(self.up)
        core.start(self.down)
        rig.settle()

    def _pair(self, listener: socket.socket) -> tuple[socket.socket, End]:
        peer = socket.create_connection(listener.getsockname(), 5)
        ours, _ = listener.accept()
        ours.setblocking(False)
        return peer, End(self.rig, ours.detach())

    def run(self) -> str:
        self.rig.settle()
        return core.run(self.rig, self.client_end, self.node_end, self.up, self.down)

    def close(self) -> None:
        self.up.end()
        self.down.end()
        self.client.close()
        self.node.close()


@pytest.fixture
def tunnel() -> Iterator[Tunnel]:
    rig = Rig()
    made = Tunnel(rig)
    yield made
    made.close()
    rig.close()


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_both_ways_in_one_run(tunnel: Tunnel) -> None:
    tunnel.client.sendall(b"to the node")
    tunnel.node.sendall(b"to the client")
    assert tunnel.run() == "open"
    assert tunnel.node.recv(100) == b"to the node"
    assert tunnel.client.recv(100) == b"to the client"
    assert (tunnel.up.sent, tunnel.down.sent) == (11, 13)


def test_open_and_silent_it_holds_nothing(tunnel: Tunnel) -> None:
    assert tunnel.run() == "open"
    tunnel.client.sendall(b"x")
    assert tunnel.run() == "open"
    assert (tunnel.rig.borrowed, tunnel.rig.pipes) == (0, 0)


@pytest.mark.parametrize("first", ["client", "node"])
def test_half_close_is_passed_on_and_the_other_way_goes_on(tunnel: Tunnel, first: str) -> None:
    one, other = tunnel.client, tunnel.node
    if first == "node":
        one, other = other, one
    one.sendall(b"last words")
    one.shutdown(socket.SHUT_WR)
    assert tunnel.run() == "open"
    assert other.recv(100) == b"last words"
    assert other.recv(100) == b""
    assert (tunnel.rig.borrowed, tunnel.rig.pipes) == (0, 0)
    for answer in (b"answer", b"and more"):
        other.sendall(answer)
        assert tunnel.run() == "open"
        assert one.recv(100) == answer
    other.shutdown(socket.SHUT_WR)
    assert tunnel.run() == "ended"


def test_both_half_close_at_once(tunnel: Tunnel) -> None:
    for peer in (tunnel.client, tunnel.node):
        peer.sendall(b"bye")
        peer.shutdown(socket.SHUT_WR)
    assert tunnel.run() == "ended"
    tunnel.client_end.close()  # which says that we have ended, too
    tunnel.node_end.close()
    for peer in (tunnel.client, tunnel.node):
        assert peer.recv(100) == b"bye"
        assert peer.recv(100) == b""


@pytest.mark.parametrize("who", ["client", "node"])
def test_reset_breaks_it(tunnel: Tunnel, who: str) -> None:
    reset(getattr(tunnel, who))
    assert tunnel.run() == "broken"


def test_end_waits_for_what_the_other_side_has_not_taken(tunnel: Tunnel) -> None:
    data = bytes(range(256)) * 4096
    tunnel.client.setblocking(False)
    said = 0
    while True:
        try:
            said += tunnel.client.send(data[said % len(data) :])
        except BlockingIOError:
            if tunnel.run() == "open" and "writable" not in tunnel.node_end.ready:
                break
    tunnel.client.shutdown(socket.SHUT_WR)
    heard = bytearray()
    while True:
        assert tunnel.run() in ("open", "again")
        try:
            piece = tunnel.node.recv(1 << 20)
        except TimeoutError:
            continue
        if not piece:
            break
        heard += piece
    assert len(heard) == said
    assert bytes(heard[: len(data)]) == data[: len(heard)]


def test_much_gives_way_to_others(tunnel: Tunnel) -> None:
    tunnel.client.setblocking(False)
    tunnel.node.setblocking(False)
    results = set()
    for _ in range(2000):
        for peer in (tunnel.client, tunnel.node):
            with contextlib.suppress(BlockingIOError):
                while True:
                    peer.send(bytes(1 << 20))
        tunnel.rig.turn()
        results.add(core.run(
            tunnel.rig, tunnel.client_end, tunnel.node_end, tunnel.up, tunnel.down
        ))  # fmt: skip
        if "again" in results:
            break
        for peer in (tunnel.client, tunnel.node):
            with contextlib.suppress(BlockingIOError):
                peer.recv(1 << 22)
    assert "again" in results
    assert results <= {"again", "open"}


def test_a_client_that_is_reset_while_the_node_takes_nothing(tunnel: Tunnel) -> None:
    tunnel.client.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while tunnel.run() in ("open", "again"):
            tunnel.client.send(bytes(1 << 20))
    reset(tunnel.client)
    assert tunnel.run() == "broken"


def test_what_a_node_said_before_its_reset_is_still_taken(tunnel: Tunnel) -> None:
    tunnel.node.setblocking(False)
    said = 0
    for _ in range(10000):
        with contextlib.suppress(BlockingIOError):
            while True:
                said += tunnel.node.send(bytes(1 << 18))
        if tunnel.run() == "open" and "writable" not in tunnel.client_end.ready:
            break
    held = tunnel.rig.borrowed + tunnel.rig.pipes
    assert held  # of it, the client has not taken all
    reset(tunnel.node)
    tunnel.client.sendall(b"to nobody")
    taken = tunnel.down.sent
    assert tunnel.run() == "open"
    tunnel.client.setblocking(False)
    for _ in range(10000):
        with contextlib.suppress(BlockingIOError):
            tunnel.client.recv(1 << 20)
        if tunnel.run() == "broken":
            break
    else:
        raise AssertionError("it never ended")
    assert taken < tunnel.down.sent <= said
