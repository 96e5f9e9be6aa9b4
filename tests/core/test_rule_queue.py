"""Calls go to the event loop's thread and come back, each once, and nobody sleeps over one."""

import select
import threading
from collections.abc import Iterator

import pytest

from fastlb._core._testing_rule_queue import DONE, WANTS_BODY, Queues


@pytest.fixture
def queues() -> Iterator[Queues]:
    made = Queues(100)
    yield made
    made.close()


def readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def test_calls_come_in_their_order_and_wake_once(queues: Queues) -> None:
    assert not readable(queues.fd)
    for number in (3, 1, 2):
        queues.put(number)
    assert readable(queues.fd)
    assert queues.take() == [3, 1, 2]
    assert not readable(queues.fd)
    assert queues.take() == []


def test_what_is_given_back_wakes_the_worker(queues: Queues) -> None:
    queues.put(1)
    queues.put(2)
    queues.take()
    assert not readable(queues.epoll)
    queues.give(2)
    queues.give(1, WANTS_BODY)
    assert readable(queues.epoll)
    assert queues.turn() == [(2, DONE), (1, WANTS_BODY)]
    assert not readable(queues.epoll)
    assert queues.turn() == []


def test_an_end_takes_the_place_of_a_wish(queues: Queues) -> None:
    """As of a rule that asks for a body in a task of its own, and returns."""
    queues.put(1)
    queues.take()
    queues.give(1, WANTS_BODY)
    queues.give(1, DONE)
    assert queues.turn() == [(1, DONE)]


def test_a_crowd_comes_back_in_several_turns(queues: Queues) -> None:
    """So that those who have no rule are served between them."""
    numbers = list(range(10))
    for number in numbers:
        queues.put(number)
    queues.take()
    for number in numbers:
        queues.give(number)
    turns = []
    while readable(queues.epoll):
        turns.append([number for number, _ in queues.turn()])
    assert [len(turn) for turn in turns] == [4, 4, 2]
    assert [number for turn in turns for number in turn] == numbers


def test_told_before_it_was_taken_comes_once(queues: Queues) -> None:
    queues.put(1)
    queues.tell(1)
    queues.tell(1)
    assert queues.take() == [1]
    queues.tell(1)
    queues.tell(1)
    assert readable(queues.fd)
    assert queues.take() == [1]


def test_told_while_its_end_is_on_its_way(queues: Queues) -> None:
    """The worker has freed it as soon as it saw the end: nobody may find it in a queue then."""
    queues.put(1)
    queues.take()
    queues.give(1)
    queues.tell(1)
    assert queues.take() == []
    assert queues.turn() == [(1, DONE)]
    assert queues.queued(1) == 0


def test_ended_before_what_it_was_told_was_taken(queues: Queues) -> None:
    for number in (1, 2, 3):
        queues.put(number)
    queues.take()
    for number in (1, 2, 3):
        queues.tell(number)
    queues.give(2)
    assert queues.take() == [1, 3]
    assert queues.turn() == [(2, DONE)]


def test_a_wish_and_a_cancellation_cross(queues: Queues) -> None:
    queues.put(1)
    queues.take()
    queues.give(1, WANTS_BODY)
    queues.tell(1)
    assert queues.turn() == []  # the wish is void
    assert queues.take() == [1]
    queues.tell(1)
    queues.give(1, WANTS_BODY)  # the other way round
    assert queues.turn() == []
    assert queues.take() == [1]
    queues.give(1)
    assert queues.turn() == [(1, DONE)]


def test_opened_twice_is_opened_once(queues: Queues) -> None:
    fd = queues.fd
    assert queues.open_again()
    assert queues.fd == fd


def test_what_came_back_before_the_end_is_handed_over() -> None:
    queues = Queues(3)
    queues.put(0)
    queues.put(1)
    queues.take()
    queues.give(1)
    assert queues.close() == [(1, DONE)]
    queues = Queues(3)
    assert not readable(queues.fd)
    assert not readable(queues.epoll)
    queues.close()


@pytest.mark.parametrize("seed", range(4))
def test_two_threads_lose_nothing(seed: int) -> None:
    """Thousands of calls, told and cancelled at any moment: each comes back exactly once."""
    count = 20_000
    queues = Queues(count, answers=True)
    given: list[int] = []
    loop = threading.Thread(target=lambda: given.append(queues.loop_side(seed + 77)), daemon=True)
    loop.start()
    assert queues.worker_side(seed) == count
    loop.join(60)
    assert given == [count]
    once, more, wishes, left = queues.totals()
    assert (once, more, left) == (count, 0, 0)
    assert wishes  # how many depends on which thread runs when
    queues.close()
