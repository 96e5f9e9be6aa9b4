"""The timer wheel against a list of deadlines."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb._core._testing_parts import Wheel

SLOT = 16
HORIZON = 4096 * SLOT
COUNT = 6


class Model:
    """When each timer is due: never before its deadline, at most a slot after it."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.wheel = Wheel(COUNT, now)
        self.deadlines: dict[int, int] = {}
        self.latest: dict[int, int] = {}

    def set(self, timer: int, deadline: int) -> None:
        self.wheel.set(timer, deadline)
        self.deadlines[timer] = deadline
        # What is overdue when it is set waits for the next slot after the one run last.
        self.latest[timer] = max(deadline // SLOT, self.now // SLOT) + 1

    def clear(self, timer: int, unfile: bool) -> None:
        self.wheel.clear(timer)
        if unfile:
            self.wheel.unfile(timer)
        self.deadlines.pop(timer, None)

    def run(self, now: int) -> None:
        self.now = now
        fired = self.wheel.run(now)
        assert len(set(fired)) == len(fired), "one timer twice"
        for timer in fired:
            assert self.deadlines.pop(timer) <= now, "before its deadline"
        for timer in self.deadlines:
            assert now // SLOT < self.latest[timer], "missed"

    def sleep(self) -> int:
        wait = self.wheel.next_ms(self.now)
        if self.deadlines:
            soonest = min(max(self.latest[timer] * SLOT, self.now) for timer in self.deadlines)
            assert 0 <= wait <= soonest - self.now, "would oversleep"
        assert self.wheel.filed >= len(self.deadlines)
        if self.wheel.filed == 0:
            assert wait == -1
        return wait


delays = (
    st.integers(-100, 200) | st.integers(0, 5000) | st.integers(HORIZON - 50, HORIZON + 50)
    | st.integers(0, 4 * HORIZON)
)  # fmt: skip
pauses = (
    st.integers(0, 40)
    | st.integers(0, 3000)
    | st.integers(HORIZON - 40, HORIZON + 40)
    | (st.integers(0, 10 * HORIZON))
)
steps = st.lists(
    st.tuples(st.just("set"), st.integers(0, COUNT - 1), delays)
    | st.tuples(st.just("clear"), st.integers(0, COUNT - 1), st.booleans())
    | st.tuples(st.just("run"), st.just(0), pauses)
    | st.tuples(st.just("late"), st.just(0), pauses)
    | st.tuples(st.just("sleep"), st.just(0), st.just(0)),
    max_size=40,
)


@settings(max_examples=300)
@given(st.integers(1, 10**6) | st.just(2**40), steps)
def test_against_a_list(start: int, steps: list[tuple]) -> None:
    model = Model(start)
    for what, timer, value in steps:
        if what == "set":
            model.set(timer, max(model.now + value, 1))
        elif what == "clear":
            model.clear(timer, value)
        elif what == "run":
            model.run(model.now + value)
        elif what == "late":
            # The clock was read before the timers ran: what is set now has the new time.
            now = model.now + value
            model.wheel.set(0, now + 10)
            model.deadlines[0] = now + 10
            model.latest[0] = (now + 10) // SLOT + 1
            model.run(now)
        else:
            wait = model.sleep()
            if wait > 0:
                model.run(model.now + wait)
    # A loop that sleeps as long as it is told to fires everything, and ends.
    for _ in range(200):
        wait = model.sleep()
        if wait < 0:
            break
        model.run(model.now + wait)
    assert model.deadlines == {}
    assert model.wheel.filed == 0


def test_moving_a_deadline_forward_costs_one_wakeup() -> None:
    wheel = Wheel(1, 0)
    wheel.set(0, 100)
    for deadline in range(200, 1000, 100):
        wheel.set(0, deadline)
    assert wheel.run(112) == []
    assert wheel.next_ms(112) == 912 - 112
    assert wheel.run(911) == []
    assert wheel.run(912) == [0]


def test_moving_a_deadline_back_is_seen_at_once() -> None:
    wheel = Wheel(1, 0)
    wheel.set(0, 50000)
    wheel.set(0, 20)
    assert wheel.next_ms(0) == 32
    assert wheel.run(32) == [0]
    assert wheel.next_ms(32) == -1


def test_a_timer_that_sets_itself_fires_once_per_run() -> None:
    wheel = Wheel(1, 0)
    wheel.set(0, 10, again=11)
    assert wheel.run(16) == [0]
    assert wheel.run(16) == []
    assert wheel.run(32) == [0]


def test_a_callback_may_stop_others_of_its_slot() -> None:
    wheel = Wheel(3, 0)
    wheel.set(0, 5, stops=1)
    wheel.set(1, 5)
    wheel.set(2, 5)
    assert wheel.run(16) == [0, 2]
    assert wheel.filed == 0


def test_a_callback_may_set_itself_beyond_the_horizon() -> None:
    wheel = Wheel(1, 0)
    wheel.set(0, 5, again=16 + 3 * HORIZON)
    assert wheel.run(16) == [0]
    now, fired = 16, []
    while not fired:
        now += wheel.next_ms(now)
        fired = wheel.run(now)
    assert 16 + 3 * HORIZON <= now <= 16 + 3 * HORIZON + SLOT


@pytest.mark.parametrize("pause", [HORIZON - 16, HORIZON, HORIZON + 16, 100 * HORIZON])
def test_a_long_pause_fires_what_is_due_and_nothing_else(pause: int) -> None:
    wheel = Wheel(3, 1000)
    wheel.set(0, 1050)
    wheel.set(1, 1000 + pause + 500)
    wheel.set(2, 1000 + pause - 20)
    assert sorted(wheel.run(1000 + pause)) == [0, 2]
    assert wheel.run(1000 + pause + 516) == [1]


def test_stopped_timers_are_gone() -> None:
    wheel = Wheel(2, 0)
    wheel.unfile(0)
    wheel.set(0, 10)
    wheel.unfile(0)
    wheel.unfile(0)
    assert wheel.filed == 0
    assert wheel.run(1000) == []
