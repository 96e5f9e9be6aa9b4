"""One socket at a time: what is remembered of its edges, and what a read or write makes of it."""

import os
import select
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb._core import _testing_stream as core
from fastlb._core._testing_rig import End, Rig
from tests.harness.worker import listen


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


def connected(kind: str = "tcp") -> tuple[socket.socket, socket.socket]:
    """(ours, non-blocking; the peer's)."""
    if kind == "unix":
        ours, peer = socket.socketpair()
    else:
        with listen() as listener:
            peer = socket.create_connection(listener.getsockname(), 5)
            ours, _ = listener.accept()
    ours.setblocking(False)
    peer.settimeout(5)
    return ours, peer


@pytest.fixture(params=["tcp", "unix"])
def ends(rig: Rig, request) -> Iterator[tuple[End, socket.socket]]:
    ours, peer = connected(request.param)
    with peer:
        yield End(rig, ours.detach()), peer


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# --- edges ---


def test_registered_socket_reports_room(rig: Rig, ends) -> None:
    end, _ = ends
    assert end.ready == set()
    rig.turn(1000)
    assert end.ready == {"writable"}


def test_bytes_make_it_readable_once(rig: Rig, ends) -> None:
    end, peer = ends
    peer.sendall(b"abc")
    rig.settle()
    assert end.ready == {"readable", "writable"}
    assert rig.turn() == 0


@pytest.mark.parametrize(
    ("events", "ready"),
    [
        ("in", {"readable"}),
        ("out", {"writable"}),
        ("pri", {"readable", "urgent"}),
        ("rdhup", {"readable", "hup"}),
        ("hup", {"readable", "hup"}),
        ("err", {"readable", "hup", "error"}),
    ],
)
def test_what_each_event_is_noted_as(rig: Rig, ends, events: str, ready: set[str]) -> None:
    end, _ = ends
    end.note(core.EVENTS[events])
    assert end.ready == ready


# --- reading ---


def test_short_read_has_emptied_the_socket(rig: Rig, ends) -> None:
    end, peer = ends
    peer.sendall(b"abc")
    rig.settle()
    assert core.recv(end, 100) == b"abc"
    assert "readable" not in end.ready
    peer.sendall(b"more")
    rig.settle()
    assert "readable" in end.ready


def test_full_read_may_have_left_something(rig: Rig, ends) -> None:
    end, peer = ends
    peer.sendall(b"abcd")
    rig.settle()
    assert core.recv(end, 2) == b"ab"
    assert "readable" in end.ready
    assert core.recv(end, 2) == b"cd"
    assert "readable" in end.ready  # nobody has said otherwise
    assert core.recv(end, 2) == "again"
    assert "readable" not in end.ready


def test_short_read_before_an_end_has_read_it_too(rig: Rig, ends) -> None:
    end, peer = ends
    peer.sendall(b"last")
    peer.shutdown(socket.SHUT_WR)
    rig.settle()
    assert {"readable", "hup"} <= end.ready
    assert core.recv(end, 100) == b"last"
    assert {"readable", "eof"} <= end.ready  # to be told, but no call is needed for it
    assert core.recv(end, 100) == "end"
    assert "readable" not in end.ready
    assert "eof" in end.ready
    assert core.recv(end, 100) == "end"


def test_full_read_before_an_end_leaves_it_to_be_read(rig: Rig, ends) -> None:
    end, peer = ends
    peer.sendall(b"last")
    peer.shutdown(socket.SHUT_WR)
    rig.settle()
    assert core.recv(end, 4) == b"last"
    assert "eof" not in end.ready
    assert core.recv(end, 4) == "end"


def test_short_read_before_a_reset_is_no_end(rig: Rig) -> None:
    ours, peer = connected()
    end = End(rig, ours.detach())
    peer.sendall(b"last")
    reset(peer)
    rig.settle()
    assert core.recv(end, 100) == b"last"
    assert "eof" not in end.ready
    assert core.recv(end, 100) == "failed"


@pytest.mark.parametrize("ends", ["tcp"], indirect=True)
@pytest.mark.parametrize("finished", [False, True])
def test_urgent_data_hides_nothing_behind_it(rig: Rig, ends, finished: bool) -> None:
    end, peer = ends
    peer.sendall(b"before")
    peer.send(b"!", socket.MSG_OOB)
    peer.sendall(b"behind")
    if finished:
        peer.shutdown(socket.SHUT_WR)
    rig.settle()
    found = b""
    while "readable" in end.ready:
        got = core.recv(end, 100)
        found += got if isinstance(got, bytes) else b""
    assert found == b"beforebehind"
    assert ("eof" in end.ready) == finished


def test_reset_is_a_failure_after_an_edge(rig: Rig) -> None:
    ours, peer = connected()
    end = End(rig, ours.detach())
    reset(peer)
    rig.settle()
    assert {"readable", "error"} <= end.ready
    assert core.recv(end, 10) == "failed"
    assert "readable" not in end.ready


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=8), st.integers(1, 4000))
def test_every_byte_is_read_whatever_the_pieces(pieces: list[int], room: int) -> None:
    # Reading only while `readable` is set, as the callers do, must lose nothing.
    rig = Rig()
    ours, peer = connected("unix")
    with peer:
        end = End(rig, ours.detach())
        sent, got = b"", b""
        for number, size in enumerate(pieces):
            piece = bytes([number]) * size
            peer.sendall(piece)
            sent += piece
            if number % 2:
                rig.turn()
                got += drain(end, room)
        peer.shutdown(socket.SHUT_WR)
        rig.turn()
        got += drain(end, room)
        assert got == sent
        assert "eof" in end.ready
        rig.close()


def drain(end: End, room: int) -> bytes:
    got = b""
    while "readable" in end.ready:
        piece = core.recv(end, room)
        if isinstance(piece, str):
            continue
        got += piece
    return got


# --- writing ---


def test_a_muted_one_tells_of_no_bytes_until_it_is_heard_again(rig: Rig, ends) -> None:
    end, peer = ends
    rig.settle()
    peer.send(b"first")
    assert rig.turn(1000) == 1
    core.mute(rig, end)
    core.mute(rig, end)
    rig.settle()
    peer.send(b"second")
    assert rig.turn(50) == 0
    assert end.ready == {"readable", "writable", "muted"}
    assert drain(end, 100) == b"firstsecond"
    core.unmute(rig, end)
    rig.settle()
    assert end.ready == {"writable"}
    peer.send(b"third")
    assert rig.turn(1000) == 1
    assert drain(end, 100) == b"third"
    core.unmute(rig, end)
    assert rig.turn() == 0


def test_what_came_while_it_was_muted_is_told_of_then(rig: Rig, ends) -> None:
    end, peer = ends
    rig.settle()
    peer.send(b"first")
    assert rig.turn(1000) == 1
    core.mute(rig, end)
    rig.settle()
    assert drain(end, 100) == b"first"
    peer.send(b"second")
    assert rig.turn(50) == 0
    core.unmute(rig, end)
    assert rig.turn(1000) == 1
    assert drain(end, 100) == b"second"


def test_whole_send_keeps_it_writable(rig: Rig, ends) -> None:
    end, peer = ends
    rig.settle()
    assert core.send(end, b"one ", b"two ", b"three") == 13
    assert core.send(end, b"!") == 1
    assert peer.recv(14, socket.MSG_WAITALL) == b"one two three!"
    assert "writable" in end.ready


def test_vectors_arrive_in_order(rig: Rig, ends) -> None:
    end, peer = ends
    rig.settle()
    assert core.send(end, b"a", b"bb", b"", b"ccc") == 6
    assert peer.recv(6, socket.MSG_WAITALL) == b"abbccc"


def test_partial_send_waits_for_an_edge(rig: Rig, ends) -> None:
    end, peer = ends
    rig.settle()
    piece = bytes(1 << 20)
    total = 0
    while "writable" in end.ready:
        sent = core.send(end, piece, piece)
        assert sent >= 0
        total += sent
    assert core.send(end, piece) == 0  # full: no bytes, and no failure
    got = 0
    while got < total:
        got += len(peer.recv(1 << 20))
    rig.settle()
    assert "writable" in end.ready


def test_send_to_one_that_reads_no_more_fails_without_a_signal(rig: Rig, ends) -> None:
    end, peer = ends
    rig.settle()
    peer.close()
    results = {core.send(end, b"x")}
    rig.settle()
    results.add(core.send(end, b"x"))
    assert "failed" in results
    assert "error" in end.ready
    assert "writable" not in end.ready


def test_shutdown_is_the_peers_end_and_reading_goes_on(rig: Rig, ends) -> None:
    end, peer = ends
    core.shutdown(end)
    assert peer.recv(10) == b""
    peer.sendall(b"still")
    rig.settle()
    assert core.recv(end, 100) == b"still"


@pytest.mark.parametrize("hard", [False, True])
def test_close_says_how(rig: Rig, hard: bool) -> None:
    ours, peer = connected()
    with peer:
        End(rig, ours.detach()).close(hard)
        if hard:
            with pytest.raises(ConnectionResetError):
                peer.recv(1)
        else:
            assert peer.recv(1) == b""


# --- pipes ---


def test_bytes_through_a_pipe(rig: Rig) -> None:
    (ours, peer), (other, reader) = connected(), connected()
    source, target = End(rig, ours.detach()), End(rig, other.detach())
    with peer, reader:
        peer.sendall(b"spliced")
        rig.settle()
        pipe = core.PipeOf(rig)
        assert pipe.fill(source, 4) == 4
        assert pipe.bytes == 4
        assert "readable" in source.ready  # a short count says nothing here
        assert pipe.fill(source, 100) == 3
        assert pipe.empty(target) == 7
        assert pipe.bytes == 0
        assert reader.recv(100) == b"spliced"
        assert pipe.fill(source, 100) == "again"
        assert "readable" not in source.ready
        peer.shutdown(socket.SHUT_WR)
        rig.settle()
        assert pipe.fill(source, 100) == "end"
        assert pipe.fill(source, 100) == "end"
        pipe.give_back()


def test_full_target_leaves_bytes_in_the_pipe(rig: Rig) -> None:
    (ours, peer), (other, reader) = connected(), connected()
    other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    source, target = End(rig, ours.detach()), End(rig, other.detach())
    with peer, reader:
        rig.settle()
        pipe = core.PipeOf(rig)
        sent = 0
        while "writable" in target.ready:
            assert sent < 100 << 20
            if pipe.bytes == 0:
                peer.sendall(bytes(50_000))
                rig.turn(10)
                assert pipe.fill(source, 1 << 20) > 0
            result = pipe.empty(target)
            assert result >= 0
            sent += result
        assert pipe.bytes > 0
        assert pipe.empty(target) == 0
        pipe.give_back()
        assert rig.free_pipes == 0  # with bytes of a broken transfer it is not used again


def test_pipes_are_counted_and_used_again(rig: Rig) -> None:
    pipe = core.PipeOf(rig)
    fds = pipe.fds
    assert (rig.pipes, rig.free_pipes) == (1, 0)
    pipe.give_back()
    assert (rig.pipes, rig.free_pipes) == (0, 1)
    again = core.PipeOf(rig)
    assert again.fds == fds
    assert not any(os.get_blocking(fd) for fd in fds)
    again.give_back()


def test_reset_source_and_gone_target_fail(rig: Rig) -> None:
    (ours, peer), (other, reader) = connected(), connected()
    source, target = End(rig, ours.detach()), End(rig, other.detach())
    peer.sendall(b"x")
    rig.settle()
    pipe = core.PipeOf(rig)
    assert pipe.fill(source, 1) == 1
    reset(peer)
    reset(reader)
    select.select([target.fd], [], [], 5)
    rig.settle()
    assert pipe.fill(source, 1) == "failed"
    assert pipe.empty(target) == "failed"
    pipe.give_back()


# --- the end of a stream ---


def test_the_end_right_behind_the_bytes_is_seen_with_them(rig: Rig, ends) -> None:
    end, peer = ends
    peer.sendall(b"abc")
    peer.shutdown(socket.SHUT_WR)
    rig.settle()
    assert core.recv(end, 100) == b"abc"
    assert {"eof", "readable"} <= end.ready
    assert core.recv(end, 100) == "end"


def test_a_full_read_says_nothing_about_the_end(rig: Rig, ends) -> None:
    end, peer = ends
    peer.sendall(b"abcdef")
    peer.shutdown(socket.SHUT_WR)
    rig.settle()
    assert core.recv(end, 3) == b"abc"
    assert "eof" not in end.ready
    assert core.recv(end, 3) == b"def"
    assert "eof" not in end.ready
    assert core.recv(end, 3) == "end"


def test_a_reset_behind_the_bytes_is_no_end(rig: Rig) -> None:
    ours, peer = connected()
    end = End(rig, ours.detach())
    peer.sendall(b"abc")
    reset(peer)
    rig.settle()
    assert core.recv(end, 100) in (b"abc", "failed")
    assert "eof" not in end.ready
    assert core.recv(end, 100) == "failed"
