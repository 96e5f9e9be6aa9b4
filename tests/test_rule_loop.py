"""The event loop of async rules: what rules do in it, to it, and against it.

Calls are made by hand here (`rule_calls`).
"""

import asyncio
import contextvars
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastlb import rule_log, rule_loop
from fastlb.rule_loop import RuleLoop
from fastlb.rule_watch import RuleOverdue
from tests.rule_calls import LONG_S, WAIT_S, CallRun, Calls, until


@pytest.fixture
def calls() -> Iterator[Calls]:
    made = Calls()
    yield made
    os.close(made.fd)


@pytest.fixture
def loop(calls: Calls) -> Iterator[RuleLoop]:
    made = RuleLoop(calls.take, calls.fd)
    made.start()
    yield made
    assert made.stop(WAIT_S)


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []

    def report(name: str, error: BaseException, subject: str = "rule") -> None:
        found.append(f"{subject}: {type(error).__name__}: {error}")

    monkeypatch.setattr(rule_log, "report", report)
    return found


async def fine(run: CallRun) -> None:
    await asyncio.sleep(0)


async def forever(run: CallRun) -> None:
    await asyncio.sleep(LONG_S)


async def wrong(run: CallRun) -> None:
    raise ValueError("as it is")


@pytest.mark.parametrize("nicer", [False, True])
def test_the_thread_gives_way_to_the_one_that_serves(calls: Calls, nicer: bool) -> None:
    """Where that one never waits for it."""
    found: list[int] = []

    async def look(run: CallRun) -> None:
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    made = RuleLoop(calls.take, calls.fd, nicer=nicer)
    made.start()
    calls.put(CallRun(look)).wait()
    assert made.stop(WAIT_S)
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert found == [min(19, own + rule_loop.NICER * nicer)]


def test_rules_of_a_call_run_in_their_order(loop: RuleLoop, calls: Calls) -> None:
    run = calls.put(CallRun(fine, wrong, fine))
    assert run.wait() == [
        "begin 0", "ended 0", "begin 1", "failed 1", "begin 2", "ended 2", "finish"]  # fmt: skip


def test_a_chain_ends_where_it_is_told_to(loop: RuleLoop, calls: Calls) -> None:
    run = CallRun(wrong, fine)
    run.goes_on = False
    assert calls.put(run).wait() == ["begin 0", "failed 0", "finish"]

    async def answers(run: CallRun) -> str:
        return "answered"

    assert calls.put(CallRun(answers, fine)).wait() == ["begin 0", "ended 0", "finish"]


def test_calls_go_on_beside_each_other(loop: RuleLoop, calls: Calls) -> None:
    gate: list[asyncio.Event] = []

    async def waits(run: CallRun) -> None:
        gate.append(asyncio.Event())
        await gate[0].wait()

    parked = [calls.put(CallRun(waits)) for _ in range(10)]
    until(lambda: len(gate) == 10)
    for _ in range(10):
        calls.put(CallRun(fine)).wait()
    assert not any(run.over.is_set() for run in parked)

    async def opens(run: CallRun) -> None:
        gate[0].set()

    calls.put(CallRun(opens)).wait()
    assert all(run.wait()[-1] == "finish" for run in parked)


def test_ten_thousand_parked(loop: RuleLoop, calls: Calls) -> None:
    """And then all clients leave at once."""
    parked = [calls.put(CallRun(forever)) for _ in range(10_000)]
    for run in parked:
        run.wait_begun()
    for run in parked:
        run.ended_early = True
        calls.put(run)
    for run in parked:
        assert run.wait() == ["begin 0", "cancelled 0", "finish"]
    assert loop._calls == {}


def test_many_that_come_at_once_are_no_hold(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the watchdog, what runs between two waits is one rule that holds it."""
    parked = [calls.put(CallRun(forever)) for _ in range(300)]
    begun = [0]
    note = lambda: begun.append(sum(bool(run.notes) for run in parked))  # noqa: E731
    monkeypatch.setattr(rule_loop.rule_watchdog, "loop_idle", note)
    made = RuleLoop(calls.take, calls.fd)
    made.start()
    parked[-1].wait_begun()
    assert made.stop(WAIT_S)
    assert (
        0
        < max(after - before for before, after in itertools.pairwise(begun))
        <= rule_loop.CALLS_PER_TURN
    )


def test_an_exception_among_many_that_come_loses_none(loop: RuleLoop, calls: Calls) -> None:
    """As that which is to end a rule, and is late."""
    runs, hear, late = [CallRun(fine) for _ in range(3)], loop._hear, [RuleOverdue()]

    def disturbed(run: Any) -> None:
        if run is runs[1] and late:
            raise late.pop()
        hear(run)

    loop._hear = disturbed  # type: ignore[method-assign]
    for run in runs:
        calls.put(run)
    assert [run.wait()[-1] for run in runs] == ["finish"] * 3


def test_cancelled_before_it_has_begun(loop: RuleLoop, calls: Calls) -> None:
    run = CallRun(fine)
    run.ended_early = True
    assert calls.put(run).wait() == ["finish"]


def test_told_many_times(loop: RuleLoop, calls: Calls) -> None:
    run = calls.put(CallRun(forever))
    run.wait_begun()
    run.ended_early = True
    for _ in range(100):  # before it has been given back: the core's queue makes sure of that
        calls.queue.put(run)
    os.eventfd_write(calls.fd, 1)
    assert run.wait() == ["begin 0", "cancelled 0", "finish"]


def test_time_out_of_each_rule(loop: RuleLoop, calls: Calls) -> None:
    run = calls.put(CallRun(forever, forever, fine, timeout=0.02))
    assert run.wait() == [
        "begin 0", "late 0", "begin 1", "late 1", "begin 2", "ended 2", "finish"]  # fmt: skip
    assert str(run.errors[0]) == "it ran for longer than [rules] timeout, 0.02 s"
    assert run.errors[0].__traceback__ is not None


def test_a_rule_that_swallows_its_cancellation(loop: RuleLoop, calls: Calls) -> None:
    """It is late, whatever it does then; and one whose client has left is cancelled."""
    stays: list[asyncio.Event] = []

    async def swallows(run: CallRun) -> None:
        stays.append(asyncio.Event())
        try:
            await asyncio.sleep(LONG_S)
        except asyncio.CancelledError:
            await stays[-1].wait()

    async def lets_go(run: CallRun) -> None:
        for event in stays:
            event.set()

    late = calls.put(CallRun(swallows, fine, timeout=0.02))
    left = calls.put(CallRun(swallows, fine))
    until(lambda: len(stays) == 2)
    left.ended_early = True
    calls.put(left)
    calls.put(CallRun(fine)).wait()
    time.sleep(0.05)
    assert not late.over.is_set()
    assert not left.over.is_set()
    calls.put(CallRun(lets_go)).wait()
    assert late.wait() == ["begin 0", "late 0", "begin 1", "ended 1", "finish"]
    assert left.wait() == ["begin 0", "cancelled 0", "finish"]


def test_a_rule_that_cancels_itself(loop: RuleLoop, calls: Calls) -> None:
    async def cancels(run: CallRun) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    async def cancels_and_waits(run: CallRun) -> None:
        await cancels(run)
        await asyncio.sleep(LONG_S)

    async def awaits_cancelled(run: CallRun) -> None:
        other = asyncio.ensure_future(asyncio.sleep(LONG_S))
        other.cancel()
        await other

    run = calls.put(CallRun(cancels, fine, cancels_and_waits, fine, awaits_cancelled, fine))
    assert run.wait() == [
        "begin 0", "ended 0", "begin 1", "ended 1", "begin 2", "failed 2", "begin 3", "ended 3",
        "begin 4", "failed 4", "begin 5", "ended 5", "finish"]  # fmt: skip


def test_time_outs_and_groups_of_a_rule_work(loop: RuleLoop, calls: Calls) -> None:
    seen: list[str] = []

    async def uses(run: CallRun) -> None:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(LONG_S)
        except TimeoutError:
            seen.append("its own")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(LONG_S))
                group.create_task(wrong(run))
        except* ValueError:
            seen.append("group")
        seen.append(await asyncio.to_thread(lambda: "thread"))
        reader, writer = os.pipe()
        process = await asyncio.create_subprocess_exec("true")
        seen.append(str(await process.wait()))
        os.close(reader)
        os.close(writer)

    async def after_a_time_out(run: CallRun) -> None:
        async with asyncio.timeout(LONG_S):
            await asyncio.sleep(0)
        seen.append("after")

    run = calls.put(CallRun(uses, after_a_time_out))
    assert run.wait()[-2:] == ["ended 1", "finish"]
    assert seen == ["its own", "group", "thread", "0", "after"]
    late = calls.put(CallRun(forever, after_a_time_out, timeout=0.02))
    assert late.wait()[-2:] == ["ended 1", "finish"]


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), MemoryError(), GeneratorExit(), BaseException()]
)
def test_what_is_no_exception(loop: RuleLoop, calls: Calls, error: BaseException) -> None:
    async def raises(run: CallRun) -> None:
        raise error

    run = calls.put(CallRun(raises, fine))
    assert "failed 0" in run.wait()
    assert run.notes[-1] == "finish"
    assert calls.put(CallRun(fine)).wait() == ["begin 0", "ended 0", "finish"]


def test_what_is_no_coroutine(loop: RuleLoop, calls: Calls) -> None:
    def plain(run: CallRun) -> None:
        pass

    assert calls.put(CallRun(plain, fine)).wait()[1:3] == ["failed 0", "begin 1"]


def test_endless_recursion(loop: RuleLoop, calls: Calls) -> None:
    async def again(run: CallRun) -> None:
        await again(run)

    assert calls.put(CallRun(again, fine)).wait()[1:3] == ["failed 0", "begin 1"]


def test_tasks_that_a_rule_starts_go_on_after_it(
    loop: RuleLoop, calls: Calls, reports: list[str]
) -> None:
    import gc

    done = threading.Event()

    async def later() -> None:
        await asyncio.sleep(0.05)
        done.set()

    async def fails() -> None:
        raise ValueError("nobody sees it")

    async def starts(run: CallRun) -> None:
        asyncio.create_task(later())  # noqa: RUF006  # as users do
        asyncio.create_task(fails())  # noqa: RUF006  # as users do

    calls.put(CallRun(starts)).wait()
    gc.collect()
    assert done.wait(WAIT_S)
    gc.collect()
    until(lambda: reports == ["a task or callback of the rules: ValueError: nobody sees it"])
    until(lambda: not loop._tasks)


def test_callbacks_that_fail_are_reported(loop: RuleLoop, calls: Calls, reports: list[str]) -> None:
    async def schedules(run: CallRun) -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        asyncio.get_running_loop().call_exception_handler({"message": "odd"})

    calls.put(CallRun(schedules)).wait()
    until(lambda: len(reports) == 2)
    assert "RuntimeError: odd" in reports[0]
    assert "ZeroDivisionError" in reports[1]


def test_context_variables_are_each_call_s_own(loop: RuleLoop, calls: Calls) -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
    seen: list[str] = []

    async def sets(run: CallRun) -> None:
        seen.append(user.get())
        user.set("anna")

    async def reads(run: CallRun) -> None:
        seen.append(user.get())

    calls.put(CallRun(sets, reads)).wait()
    calls.put(CallRun(reads)).wait()
    assert seen == ["nobody", "anna", "nobody"]


def test_the_body_comes_later(loop: RuleLoop, calls: Calls) -> None:
    bodies: list[bytes] = []

    async def reads(run: CallRun) -> None:
        run.body = asyncio.get_running_loop().create_future()
        bodies.append(await run.body)

    run = calls.put(CallRun(reads))
    until(lambda: run.body is not None)
    calls.put(run)
    assert run.wait() == ["begin 0", "ended 0", "finish"]
    assert bodies == [b"all of it"]


# ---- against the loop ----


async def stops(run: CallRun) -> None:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0)


async def exits_in_a_task(run: CallRun) -> None:
    async def leave() -> None:
        raise SystemExit("all of you")

    task = asyncio.create_task(leave())
    await asyncio.wait([task])


async def exits_in_a_callback(run: CallRun) -> None:
    def leave() -> None:
        raise KeyboardInterrupt

    asyncio.get_running_loop().call_soon(leave)
    await asyncio.sleep(0.01)


@pytest.mark.parametrize("rule", [stops, exits_in_a_task, exits_in_a_callback])
def test_the_thread_goes_on(
    loop: RuleLoop, calls: Calls, reports: list[str], rule: Callable[..., Any]
) -> None:
    waiting = calls.put(CallRun(forever))
    waiting.wait_begun()
    assert calls.put(CallRun(rule)).wait()[-1] == "finish"
    assert calls.put(CallRun(fine)).wait() == ["begin 0", "ended 0", "finish"]
    assert len([line for line in reports if "the event loop of the rules" in line]) == 1
    assert not waiting.over.is_set()
    assert loop.is_alive


def test_a_loop_that_is_closed_is_replaced(
    loop: RuleLoop, calls: Calls, reports: list[str]
) -> None:
    waiting = calls.put(CallRun(forever))
    waiting.wait_begun()

    async def closes(run: CallRun) -> None:
        running = asyncio.get_running_loop()
        again = fine(run)
        for forbidden in (running.close, lambda: asyncio.run(again)):
            with pytest.raises(RuntimeError):
                forbidden()
        again.close()

        def close() -> None:
            while True:
                try:
                    return running.close()
                except RuntimeError:
                    time.sleep(0.001)

        threading.Thread(target=close).start()
        running.stop()

    assert calls.put(CallRun(closes)).wait()[-1] == "finish"
    assert "failed 0" in waiting.wait()
    assert calls.put(CallRun(fine)).wait() == ["begin 0", "ended 0", "finish"]
    assert loop.is_alive


@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
def test_all_tasks_cancelled_by_one_rule(loop: RuleLoop, calls: Calls) -> None:
    async def cancels(run: CallRun) -> None:
        for _ in range(5):
            calls.put(later := CallRun(fine))
            late.append(later)
        loop._on_calls()  # so that some have not begun
        for task in asyncio.all_tasks():
            task.cancel()

    late: list[CallRun] = []
    waiting = [calls.put(CallRun(forever)) for _ in range(5)]
    for run in waiting:
        run.wait_begun()
    assert calls.put(CallRun(cancels)).wait()[-1] == "finish"
    for run in waiting:
        assert run.wait() == ["begin 0", "failed 0", "finish"]
    for run in late:
        assert run.wait() == ["finish"]


# ---- the end ----


def test_the_end_cancels_all(calls: Calls) -> None:
    loop = RuleLoop(calls.take, calls.fd)
    loop.start()
    ends: list[str] = []

    async def in_order(run: CallRun) -> None:
        try:
            await asyncio.sleep(LONG_S)
        finally:
            await asyncio.sleep(0)
            ends.append("closed")

    async def starts(run: CallRun) -> None:
        asyncio.create_task(in_order(run))  # noqa: RUF006  # as users do

    runs = [calls.put(CallRun(in_order)) for _ in range(10)]
    calls.put(CallRun(starts)).wait()
    for run in runs:
        run.wait_begun()
    late = calls.put(CallRun(forever))
    assert loop.stop(WAIT_S)
    for run in runs:
        assert run.wait() == ["begin 0", "cancelled 0", "finish"]
    assert late.wait()[-1] == "finish"
    assert ends == ["closed"] * 11


def test_the_end_does_not_wait_for_who_will_not(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rule_loop, "RULES_END_S", 0.05)
    loop = RuleLoop(calls.take, calls.fd)
    loop.start()

    async def stubborn(run: CallRun) -> None:
        while True:
            try:
                await asyncio.sleep(LONG_S)
            except asyncio.CancelledError:
                continue

    run = calls.put(CallRun(stubborn))
    run.wait_begun()
    assert loop.stop(WAIT_S)
    assert run.wait() == ["begin 0", "failed 0", "finish"]


def test_the_end_leaves_behind_what_blocks(calls: Calls) -> None:
    loop = RuleLoop(calls.take, calls.fd)
    loop.start()
    gate = threading.Event()

    async def blocks(run: CallRun) -> None:
        gate.wait(WAIT_S)

    run = calls.put(CallRun(blocks))
    run.wait_begun()
    assert not loop.stop(0.05)
    gate.set()
    run.wait()
    loop._thread.join(WAIT_S)
    assert not loop.is_alive


def test_no_descriptor_is_left(calls: Calls) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        loop = RuleLoop(calls.take, calls.fd)
        loop.start()
        calls.put(CallRun(fine)).wait()
        assert loop.stop(WAIT_S)
    assert len(os.listdir("/proc/self/fd")) == before
