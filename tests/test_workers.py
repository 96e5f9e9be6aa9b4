"""Words for how a worker ended, and the channel's messages."""

import asyncio
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from fastlb import channel
from fastlb.access_log import AccessLog
from fastlb.channel import ENTRY, HEADER, Entry, Kind, Message
from fastlb.columns import Columns
from fastlb.listeners import Listener
from fastlb.slots import ListenerKey
from fastlb.units import read_inet
from fastlb.worker_process import Worker
from fastlb.workers import CurrentPlan, Workers, how_it_ended


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
    header = (Path(channel.__file__).parent / "_core/channel.pxd").read_text()
    for kind in Kind:
        assert f"CHANNEL_{kind.name} = {kind.value} " in header


class Meeting:
    """The workers' side of some channels, without processes."""

    def __init__(self, state: Path, count: int, log: int) -> None:
        columns = Columns()
        columns.adopt(columns.chosen(count))
        self.sockets = [socket.socket() for _ in range(count)]
        address = read_inet("127.0.0.1:80", "")
        listeners = SimpleNamespace(open={address: Listener(address, self.sockets)})
        self.workers = Workers(
            columns, state, None, listeners, AccessLog(log, False), lambda: None  # type: ignore[arg-type]
        )  # fmt: skip
        self.workers._plan = CurrentPlan(1, -1, ((0, ListenerKey("a", address)),))
        self.theirs = []
        for column in range(count):
            ours, theirs = channel.socket_pair()
            self.theirs.append(theirs)
            one = Worker(column, 1, -1, ours, sent=1, acknowledged=1)
            one.sockets = {Entry(0, column)}
            self.workers.running[column] = one

    def fill(self, column: int) -> None:
        """Nothing more fits into its channel, until it is read."""
        with suppress(BlockingIOError):
            while True:
                channel.send(self.workers.running[column].channel, Message(Kind.PING, 0, 0))

    async def heard(self, column: int) -> list[Kind]:
        """What there is, read, but for the filling; and what comes within a moment then."""
        kinds, one = [], self.theirs[column]
        one.setblocking(False)
        for _ in range(2):
            with suppress(BlockingIOError):
                while True:
                    data, fds, _, _ = socket.recv_fds(one, 4096, 10)
                    kinds.append(Kind(HEADER.unpack_from(data)[0]))
                    for fd in fds:
                        os.close(fd)
            await asyncio.sleep(0.1)
        return [kind for kind in kinds if kind is not Kind.PING]

    def close(self) -> None:
        for one in self.workers.every:
            one.channel.close()
        for other in (*self.theirs, *self.sockets):
            other.close()
        self.workers.access_log.close()


@pytest.fixture
def meeting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fastlb.workers.RETRY_S", 0.01)
    made = Meeting(tmp_path, 2, -1)
    yield made
    made.close()


def test_a_new_log_reaches_a_worker_whose_channel_was_full(meeting: Meeting) -> None:
    async def main() -> list[list[Kind]]:
        meeting.fill(0)
        meeting.workers.use_log(AccessLog(os.open("/dev/null", os.O_WRONLY), False))
        return [await meeting.heard(column) for column in (0, 1)]

    assert asyncio.run(main()) == [[Kind.LOG], [Kind.LOG]]


def test_a_log_is_sent_to_nobody_who_has_ended(meeting: Meeting) -> None:
    async def main() -> list[Kind]:
        meeting.fill(0)
        meeting.workers.use_log(AccessLog(os.open("/dev/null", os.O_WRONLY), False))
        meeting.workers.running.pop(0).channel.close()
        return await meeting.heard(1)

    assert asyncio.run(main()) == [Kind.LOG]


def test_sockets_are_lent_to_a_worker_whose_channel_was_full(meeting: Meeting) -> None:
    async def main() -> list[Kind]:
        meeting.fill(1)
        meeting.workers.running.pop(0).channel.close()
        meeting.workers.lend(0)
        assert meeting.workers.running[1].sockets == {Entry(0, 1)}
        return await meeting.heard(1)

    assert asyncio.run(main()) == [Kind.SOCKETS]
    assert meeting.workers.running[1].sockets == {Entry(0, 0), Entry(0, 1)}


def test_sockets_that_came_with_a_refused_plan_are_not_the_worker_s(meeting: Meeting) -> None:
    async def main() -> None:
        one = meeting.workers.running[0]
        one.offered = {Entry(0, 0)}
        meeting.theirs[0].send(HEADER.pack(Kind.REFUSED, 0, 1))
        meeting.workers.hear(one)
        assert one.sockets == set()
        assert meeting.workers.running[1].sockets == {Entry(0, 0), Entry(0, 1)}, "lent"
        one.refused, one.sent = 0, 0
        before = meeting.workers._plan
        assert before is not None
        meeting.workers._plan = CurrentPlan(2, meeting.sockets[0].fileno(), before.listeners)
        for worker in meeting.workers.running.values():
            meeting.workers._tell(worker)
            meeting.theirs[worker.column].send(HEADER.pack(Kind.ACK, 0, 2))
            meeting.workers.hear(worker)
        assert one.sockets == {Entry(0, 0)}
        assert meeting.workers.running[1].sockets == {Entry(0, 1)}

    asyncio.run(main())


def test_a_process_that_may_not_be_ended_is_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(signal, "pidfd_send_signal", refused)
    Worker(0, 1, -1, None).signal(signal.SIGKILL)  # type: ignore[arg-type]
