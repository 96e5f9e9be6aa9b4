"""Which workers count as silent, and when they are ended."""

import asyncio
import signal
from collections.abc import Callable

import pytest

from fastlb.silence import HELD_UP_S, Silence
from fastlb.worker_process import SILENT_S, Worker


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Told(Worker):
    """A process that is none; `signals` that it got."""

    def __init__(self, column: int) -> None:
        super().__init__(column, 4000 + column, -1, None)  # type: ignore[arg-type]
        self.signals: list[int] = []

    def signal(self, number: signal.Signals) -> None:
        self.signals.append(number)


class Workers:
    """As many as there are, of which some speak."""

    def __init__(self, clock: Clock, count: int) -> None:
        self.running = {column: Told(column) for column in range(count)}
        self.clock = clock
        self.speaking = set(self.running)
        self.ever_ready = True
        self.lent: list[int] = []
        self.settled = self.pings = 0
        for one in self.running.values():
            one.heard = clock.now

    def hear(self, worker: Worker) -> None:
        if worker.column in self.speaking:
            worker.heard = self.clock.now

    def ping(self) -> None:
        self.pings += 1

    def lend(self, column: int) -> None:
        self.lent.append(column)

    def settle(self) -> None:
        self.settled += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    one = Clock()
    monkeypatch.setattr("fastlb.silence.time", one)
    return one


Look = Callable[..., None]


@pytest.fixture
def workers(clock: Clock) -> Workers:
    return Workers(clock, 2)


@pytest.fixture
def look(clock: Clock, workers: Workers, monkeypatch: pytest.MonkeyPatch) -> Look:
    silence = Silence(workers)  # type: ignore[arg-type]
    monkeypatch.setattr("fastlb.silence.ABORT_S", 0.01)

    def looks(times: int, timeout_s: float = 0, passes: float = 1.0) -> None:
        async def main() -> None:
            for _ in range(times):
                clock.now += passes
                silence.look(timeout_s)
            await asyncio.sleep(0.03)

        asyncio.run(main())

    return looks


def test_who_speaks_is_never_silent(workers: Workers, look: Look) -> None:
    look(100, timeout_s=2)
    assert [one.silent_s for one in workers.running.values()] == [0, 0]
    assert (workers.lent, workers.pings) == ([], 100)


def test_one_that_is_silent_is_lent_for_once_and_settled_when_it_is_back(
    workers: Workers, look: Look, capsys: pytest.CaptureFixture[str]
) -> None:
    workers.speaking = {0}
    look(int(SILENT_S) - 1)
    assert (workers.lent, workers.running[1].answers) == ([], True)
    look(20)
    assert (workers.lent, workers.settled, workers.running[1].answers) == ([1], 1, False)
    assert workers.running[1].signals == []
    workers.speaking = {0, 1}
    look(1)
    assert (workers.settled, workers.running[1].answers) == (2, True)
    said = capsys.readouterr().err
    assert said.count("FLB-S143") == 1
    assert "answers again after 23 s" in said


def test_it_is_aborted_then_killed_once(
    workers: Workers, look: Look, capsys: pytest.CaptureFixture[str]
) -> None:
    workers.speaking = {0}
    look(29, timeout_s=30)
    assert workers.running[1].signals == []
    look(9, timeout_s=30)
    assert workers.running[1].signals == [signal.SIGABRT, signal.SIGKILL]
    assert workers.running[0].signals == []
    assert capsys.readouterr().err.count("FLB-S144") == 1


def test_one_that_ends_by_itself_is_not_killed(workers: Workers, look: Look) -> None:
    workers.speaking = {0}
    one = workers.running[1]
    one.signal = lambda number: workers.running.pop(1) and one.signals.append(number)  # type: ignore[method-assign,func-returns-value]
    look(31, timeout_s=30)
    assert one.signals == [signal.SIGABRT]


def test_time_in_which_this_process_did_not_run_does_not_count(
    workers: Workers, look: Look
) -> None:
    workers.speaking = set()
    look(20, timeout_s=2, passes=HELD_UP_S)
    assert [one.silent_s for one in workers.running.values()] == [0, 0]


def test_a_first_start_takes_the_time_that_it_takes(workers: Workers, look: Look) -> None:
    workers.speaking = set()
    workers.ever_ready = False
    look(100, timeout_s=30)
    assert [one.signals for one in workers.running.values()] == [[], []]
