"""Finding workers without a control process, and going on from what they have."""

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fastlb import adopt, channel, manifest, worker_sockets
from fastlb.channel import HEADER, HELLO, Kind
from fastlb.errors import StartError
from fastlb.in_force import InForce
from fastlb.plan import seal


@pytest.fixture
def state(tmp_path: Path) -> Path:
    worker_sockets.make_directory(tmp_path)
    return tmp_path


def answering(listener: socket.socket, say: Callable[[socket.socket], None]) -> threading.Thread:
    def run() -> None:
        listener.setblocking(True)
        one, _ = listener.accept()
        with one:
            say(one)
            one.recv(1)  # until it is let go

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def hello(
    one: socket.socket,
    *fds: int,
    sockets: int = 0,
    kind: int = Kind.HELLO,
    generation: int = 5,
    column: int = 3,
    stopping: bool = False,
) -> None:
    data = HEADER.pack(kind, 0, generation) + HELLO.pack(column, stopping, os.getpid(), sockets)
    socket.send_fds(one, [data], list(fds))


def test_stale_files_are_removed(state: Path) -> None:
    worker_sockets.listen(state, 0).close()
    (worker_sockets.directory(state) / "other").touch()
    assert adopt.find(state) == ([], [])
    assert [path.name for path in worker_sockets.directory(state).iterdir()] == ["other"]


def test_without_the_directory_there_are_none(tmp_path: Path) -> None:
    assert adopt.find(tmp_path) == ([], [])


def test_a_socket_is_for_this_user_alone_however_long_its_path(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    worker_sockets.make_directory(deep)
    with worker_sockets.listen(deep, 7):
        (path,) = worker_sockets.directory(deep).iterdir()
        assert (path.name, path.stat().st_mode & 0o777) == ("7.sock", 0o600)
        assert path.parent.stat().st_mode & 0o777 == 0o700
        one = worker_sockets.connect(deep, 7, 1)
        assert one is not None
        one.close()


@pytest.mark.parametrize(
    "say",
    [
        lambda one: None,
        lambda one: one.send(b"x"),
        lambda one: hello(one),
        lambda one: hello(one, 0, kind=Kind.ACK),
        lambda one: hello(one, 0, sockets=1),
        lambda one: (hello(one, 0, sockets=1), one.send(HEADER.pack(Kind.HELD, 1, 0))),
    ],
)
def test_what_does_not_answer_as_a_worker_does_is_silent(
    state: Path, say: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adopt, "ANSWER_S", 0.2)
    before = len(os.listdir("/proc/self/fd"))
    with worker_sockets.listen(state, 3) as listener:
        thread = answering(listener, say)
        assert adopt.find(state) == ([], [3])
        thread.join(5)
    assert len(os.listdir("/proc/self/fd")) == before


def test_memory_that_is_not_as_it_says_is_not_gone_on_with(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    force = InForce(1, state)
    wrote = manifest.new(generation=5, caches={"x": manifest.CacheEntry("class.x", "ip", 64)})
    plan = seal(manifest.encode(wrote), 5)
    with worker_sockets.listen(state, 3) as listener:
        answering(listener, lambda one: hello(one, force.segment.fd, plan))
        found, silent = adopt.find(state)
        assert (len(found), silent) == (1, [])
        assert found[0].hello[:5] == (5, 3, False, os.getpid(), 0)
        assert adopt.columns_to_leave(found, found, [3]) == set()
        assert adopt.columns_to_leave(found, found, [0]) == {3}
        assert adopt.columns_to_leave(found, [], [3]) == {3}
        assert adopt.resumed(found, 1, state) is None
        assert "FLB-S133" in capsys.readouterr().err
        found[0].close()
    os.close(plan)
    force.close()


class Group:
    """Workers of one shared memory, as they would answer."""

    def __init__(self, state: Path, generation: int, **wrote: object) -> None:
        self.state, self.generation = state, generation
        self.force = InForce(1, state)
        self.written = manifest.new(
            generation=generation, slots=manifest.numbered(self.force.slots), **wrote
        )

    def found(self, column: int, stopping: bool = False) -> adopt.Found:
        plan = seal(manifest.encode(self.written), self.generation)
        here, there = channel.socket_pair()
        hello(
            there, self.force.segment.fd, plan,
            generation=self.generation, column=column, stopping=stopping,
        )  # fmt: skip
        os.close(plan)
        there.close()
        said = channel.receive_hello(here)
        assert said is not None
        return adopt.Found(said, os.pidfd_open(os.getpid()), here)


@pytest.fixture
def groups(state: Path):
    made: list[Group] = []

    def make(generation: int, **wrote: object) -> Group:
        made.append(Group(state, generation, **wrote))
        return made[-1]

    yield make
    for one in made:
        one.force.close()


@pytest.mark.parametrize("other", [None, "0:of another program"])
def test_those_that_serve_are_gone_on_with_and_not_those_that_leave(
    state: Path, groups: Callable[..., Group], other: str | None
) -> None:
    old, new = groups(57, places=[0, 1]), groups(1, places=[2, 3])
    old.written.layout = other or old.written.layout
    found = [
        old.found(0, stopping=True), new.found(2), old.found(1, stopping=True), new.found(3)
    ]  # fmt: skip
    resumed = adopt.resumed(found, 2, state)
    assert resumed is not None
    force, its = resumed
    assert [one.hello.column for one in its] == [2, 3]
    assert os.fstat(force.segment.fd).st_ino == os.fstat(new.force.segment.fd).st_ino
    assert (force.columns.places, adopt.generation(found)) == ((2, 3), 57)
    assert adopt.columns_to_leave(found, its, force.columns.places) == {0, 1}
    wrote = adopt.newest(found)
    assert wrote is not None
    assert wrote.generation == 1, "what was written down for those that serve"
    force.close()
    for one in found:
        one.close()


def test_memory_that_leaves_is_better_than_none(state: Path, groups: Callable[..., Group]) -> None:
    old, new = groups(57, places=[0]), groups(58, places=[2])
    new.written.layout = "0:of another program"
    found = [new.found(2), old.found(0, stopping=True)]
    resumed = adopt.resumed(found, 1, state)
    assert resumed is not None
    force, its = resumed
    assert [one.hello.column for one in its] == [0]
    assert adopt.columns_to_leave(found, its, force.columns.places) == {0, 2}
    force.close()
    for one in found:
        one.close()


def test_silent_workers_of_unknown_pids_are_an_error(state: Path) -> None:
    adopt.end_silent(None, [])
    with pytest.raises(StartError, match="FLB-S141"):
        adopt.end_silent(None, [0])
    force = InForce(1, state)
    for column in (0, 9):  # nobody has written there, and no such column
        with pytest.raises(StartError, match="FLB-S141"):
            adopt.end_silent(force.segment, [column])
    force.close()
