"""Words for how a worker ended, and the channel's messages."""

import os
import socket

import pytest

from fastlb import channel
from fastlb.channel import ENTRY, HEADER, Entry, Kind, Message
from fastlb.workers import how_it_ended


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "ended with exit status 0"),
        (3, "ended with exit status 3"),
        (-11, "was killed by SIGSEGV"),
        (-50, "was killed by signal 50"),
    ],
)
def test_how_a_worker_ended(status: int, words: str) -> None:
    assert how_it_ended(status) == words


@pytest.fixture
def ends():
    ours, theirs = channel.socket_pair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_a_plan_goes_with_the_descriptors_of_new_listeners(ends) -> None:
    ours, theirs = ends
    reader, writer = os.pipe()
    with socket.socket() as listener:
        channel.send_plan(ours, 9, writer, [(Entry(7, 2), listener.fileno())])
        data, fds, _, _ = socket.recv_fds(theirs, 4096, 10)
        assert HEADER.unpack_from(data) == (Kind.PLAN, 1, 9)
        assert list(ENTRY.iter_unpack(data[HEADER.size :])) == [(7, 2)]
        assert [os.fstat(fd).st_ino for fd in fds] == [
            os.fstat(writer).st_ino,
            os.fstat(listener.fileno()).st_ino,
        ]
    for fd in (reader, writer, *fds):
        os.close(fd)


def test_the_largest_plan_fits_in_one_message(ends) -> None:
    from fastlb.config import LISTENERS_MAX

    ours, theirs = ends
    with socket.socket() as one:
        all_ = [(Entry(n, 0), one.fileno()) for n in range(LISTENERS_MAX)]
        channel.send_plan(ours, 1, one.fileno(), all_)
        _, fds, flags, _ = socket.recv_fds(theirs, 4096, 253)
        assert (len(fds), flags & socket.MSG_CTRUNC) == (LISTENERS_MAX + 1, 0)
        for fd in fds:
            os.close(fd)


def test_answers_and_the_end(ends) -> None:
    ours, theirs = ends
    with pytest.raises(BlockingIOError):
        channel.receive(ours)
    theirs.send(HEADER.pack(Kind.ACK, 0, 5))
    assert channel.receive(ours) == Message(Kind.ACK, 0, 5)
    theirs.send(b"short")
    assert channel.receive(ours) is None
    theirs.close()
    assert channel.receive(ours) is None


def test_the_numbers_are_those_of_the_core() -> None:
    from pathlib import Path

    header = (Path(channel.__file__).parent / "_core/channel.pxd").read_text()
    for kind in Kind:
        assert f"CHANNEL_{kind.name} = {kind.value} " in header
