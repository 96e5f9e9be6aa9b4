"""Finding workers without a control process, and going on from what they have."""

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fastlb import adopt, manifest, worker_sockets
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


def hello(one: socket.socket, *fds: int, sockets: int = 0, kind: int = Kind.HELLO) -> None:
    data = HEADER.pack(kind, 0, 5) + HELLO.pack(3, 0, os.getpid(), sockets)
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
        assert adopt.columns_beside(found, [3]) == set()
        assert adopt.columns_beside(found, [0]) == {3}
        assert adopt.resumed(found, 1, state) is None
        assert "FLB-S133" in capsys.readouterr().err
        found[0].close()
    os.close(plan)
    force.close()


def test_silent_workers_of_unknown_pids_are_an_error(state: Path) -> None:
    adopt.end_silent(None, [])
    with pytest.raises(StartError, match="FLB-S141"):
        adopt.end_silent(None, [0])
    force = InForce(1, state)
    for column in (0, 9):  # nobody has written there, and no such column
        with pytest.raises(StartError, match="FLB-S141"):
            adopt.end_silent(force.segment, [column])
    force.close()
