"""Finding workers without a control process, and going on from what they have."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from fastlb import adopt, channel, manifest, worker_sockets
from fastlb.channel import HEADER, HELLO, Kind
from fastlb.errors import StartError
from fastlb.in_force import InForce
from fastlb.plan import seal
from tests.control.running import until


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
    pid: int | None = None,
) -> None:
    pid = os.getpid() if pid is None else pid
    data = HEADER.pack(kind, 0, generation) + HELLO.pack(column, stopping, pid, sockets)
    socket.send_fds(one, [data], list(fds))


@pytest.fixture
def as_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process passes for one."""
    monkeypatch.setattr(worker_sockets, "is_worker", lambda *_: True)


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
        lambda one: hello(one, 0, pid=0),
        lambda one: hello(one, 0, 0, pid=0xFFFFFFFF),
        lambda one: hello(one, 0, 0, pid=1 << 22),
    ],
)
@pytest.mark.usefixtures("as_worker")
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


def test_another_process_is_not_taken_over(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adopt, "ANSWER_S", 0.2)
    before = len(os.listdir("/proc/self/fd"))
    with worker_sockets.listen(state, 3) as listener:
        thread = answering(listener, lambda one: hello(one, 0, 0, pid=1))
        assert adopt.find(state) == ([], [3])
        thread.join(5)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.usefixtures("as_worker")
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
    adopt.end_silent(state, None, [])
    with pytest.raises(StartError, match="FLB-S141"):
        adopt.end_silent(state, None, [0])
    force = InForce(1, state)
    for column in (0, 9):  # nobody has written there, and no such column
        with pytest.raises(StartError, match="FLB-S141"):
            adopt.end_silent(state, force.segment, [column])
    force.close()


@pytest.fixture
def process():
    """One whose command line is that of a worker."""
    code = "import sys; sys.stdin.read()"
    command = [sys.executable, "-c", code, "fastlb.worker_main"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as one:
        yield one
        one.kill()


def test_it_is_known_which_process_a_silent_worker_is(
    state: Path, process: "subprocess.Popen[bytes]"
) -> None:
    worker_sockets.note(state, 0, 1)
    worker_sockets.note(state, 0, process.pid)
    until(lambda: worker_sockets.noted(state, 0) == process.pid, "its own command line")
    adopt.end_silent(state, None, [0], 30)
    assert process.wait(5) == -9


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "1",
        "{pid} 5",
        "-1 {began}",
        "1 {began}",
        "{me} {mine}",
        "{pid} {began} 3",
        "9" * 99,
    ],
)
def test_another_process_is_nobody_s_worker(
    state: Path, process: "subprocess.Popen[bytes]", text: str
) -> None:
    worker_sockets.note(state, 0, process.pid)
    file = worker_sockets.directory(state) / "0.pid"
    _, began = file.read_text().split()
    worker_sockets.note(state, 1, os.getpid())
    me, mine = (worker_sockets.directory(state) / "1.pid").read_text().split()
    file.write_text(text.format(pid=process.pid, began=began, me=me, mine=mine))
    assert worker_sockets.noted(state, 0) is None


def test_a_pid_file_that_is_none_is_no_matter(state: Path) -> None:
    path = worker_sockets.directory(state) / "0.pid"
    os.mkfifo(path)
    assert worker_sockets.noted(state, 0) is None
    path.unlink()
    path.mkdir()
    worker_sockets.note(state, 0, os.getpid())
    assert worker_sockets.noted(state, 0) is None
    path.rmdir()
    path.symlink_to(state / "elsewhere")
    worker_sockets.note(state, 0, os.getpid())
    assert not (state / "elsewhere").exists()


def test_a_worker_whose_queue_is_full_is_silent(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adopt, "ANSWER_S", 0.1)
    asked = []
    with worker_sockets.listen(state, 3):
        with suppress(BlockingIOError):
            for _ in range(100):
                one = worker_sockets.connect(state, 3, 0)
                assert one is not None
                asked.append(one)
        assert len(asked) < 100
        assert adopt.find(state) == ([], [3])
        for one in asked:
            one.close()


@pytest.mark.usefixtures("as_worker")
def test_where_nobody_answers_all_have_more_time(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adopt, "ANSWER_S", 0.2)
    force = InForce(1, state)
    with worker_sockets.listen(state, 3) as listener:

        def late(one: socket.socket) -> None:
            time.sleep(0.4)
            hello(one, force.segment.fd)

        answering(listener, late)
        (found,), silent = adopt.find(state, 20)
        assert silent == []
        found.close()
    force.close()
