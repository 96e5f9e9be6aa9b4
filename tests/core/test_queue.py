"""Who waits for a node, and whose turn it is: over several workers that share a node table."""

import pytest

from fastlb._core._testing_queue import Lines
from tests.core.plans import Setting, nodes

UP, DRAINING, DOWN = 1, 2, 3
NO_LIMIT = 2**32 - 1


def lines(workers: int = 2, most: int = 2, **more) -> list[Lines]:
    """The workers' queues; two nodes with room for `most` connections."""
    image = Setting(nodes=nodes(2, max_connections=most), workers=workers, **more).image()
    first = Lines(image)
    return [first, *(Lines(image, index, first) for index in range(1, workers))]


def fill(line: Lines, *slots: int) -> None:
    for slot in slots or (0, 1):
        line.set_open(slot, 2)


def test_admission_is_by_the_sum_over_all_workers() -> None:
    a, b = lines()
    assert a.admit(0, 3)
    assert b.admit(0, 3)
    assert b.admit(0, 3)
    assert not a.admit(0, 3)
    assert not b.admit(0, 3)
    assert (a.open(0), b.open(0)) == (1, 2)
    assert a.admit(0, 4)


class TestOneWorker:
    def test_in_the_order_in_which_they_came(self) -> None:
        (line,) = lines(1)
        fill(line)
        for number in range(5):
            line.at(1000 + number)
            assert line.enter(number)
        assert line.run() == []
        line.set_open(1, 1)
        assert line.run(2) == [0, 1, 2]  # the third one is back
        assert line.run(0) == [2]
        assert line.run(9) == [2, 3, 4]

    def test_sessions_come_before_new_ones(self) -> None:
        (line,) = lines(1)
        fill(line)
        line.enter(1)
        line.at(1100)
        line.enter(2, node=0)
        line.set_open(0, 1)
        assert line.run() == [2]
        assert line.run() == []  # the room is taken
        line.set_open(0, 1)
        assert line.run() == [1]

    def test_room_on_a_node_that_sessions_wait_for_is_not_for_new_ones(self) -> None:
        (line,) = lines(1)
        fill(line)
        line.enter(1)
        line.enter(2, node=0)
        line.set_open(0, 1)
        assert line.run(0) == [2]
        line.set_open(1, 1)
        assert line.run(1) == [2, 1]

    def test_a_retry_does_not_hold_up_others(self) -> None:
        (line,) = lines(1)
        fill(line)
        line.enter(1, tried=[0])
        assert line.waiting(0, True) is None  # nor those of other workers
        line.at(1100)
        line.enter(2)
        assert line.waiting(0, True) == 1100
        line.set_open(0, 1)
        assert line.run() == [2]
        assert line.run() == []
        line.set_open(1, 1)
        assert line.run() == [1]

    @pytest.mark.parametrize("state", [DOWN, 4])
    def test_a_session_whose_node_is_lost_has_its_turn_at_once(self, state: int) -> None:
        (line,) = lines(1)
        fill(line)
        line.enter(1, node=0)
        line.enter(2, node=1)
        line.set_state(0, state)
        assert line.run() == [1]

    def test_nobody_waits_where_no_node_is_left(self) -> None:
        (line,) = lines(1)
        fill(line)
        line.enter(1)
        line.set_state(0, DRAINING)
        assert line.run() == []
        line.set_state(1, DOWN)
        assert line.run() == []  # for the draining one, which is full
        line.set_open(0, 1)
        assert line.run() == [1]
        line.enter(1)
        line.set_open(0, 2)
        line.set_state(0, DOWN)
        assert line.run() == [1]

    def test_no_room_on_an_ejected_node_while_another_is_well(self) -> None:
        (line,) = lines(1, passive={"failures": 1})
        fill(line)
        line.enter(1)
        line.eject(0)
        line.set_open(0, 1)
        assert line.run() == []
        line.set_open(1, 1)
        assert line.run() == [1]

    def test_room_on_an_ejected_node_where_all_are(self) -> None:
        (line,) = lines(1, passive={"failures": 1})
        fill(line)
        line.enter(1)
        line.eject(0)
        line.eject(1)
        assert line.run() == []
        line.set_open(0, 1)
        assert line.run() == [1]

    def test_many_that_have_no_use_for_the_room_are_passed_in_several_turns(self) -> None:
        image = Setting(nodes=nodes(40, max_connections=2), workers=1, queue=(1000, 1000)).image()
        line = Lines(image)
        fill(line, *range(40))
        for number in range(300):
            line.enter(number, tried=[0])
        line.enter(300)
        line.set_open(0, 1)
        turns = [line.run(1)]
        while line.due():
            turns.append(line.run(1))
        assert turns == [[], [], [], [300]]
        assert line.run() == []
        line.leave(100)  # where it would go on
        line.set_open(1, 1)
        assert line.run(0) == [101]

    def test_the_limit_is_that_of_the_plan_in_force(self) -> None:
        (line,) = lines(1)
        fill(line)
        line.enter(1, node=0)
        line.set_limit(0, 3)
        assert line.limit(0) == 3
        assert line.run() == [1]
        line.enter(1, node=0)
        line.set_limit(0, 0)
        assert line.run() == [1]
        line.set_limit(0, NO_LIMIT)  # it lacks the node: as the request's own plan says
        assert line.limit(0) == 2

    def test_many_take_several_turns(self) -> None:
        (line,) = lines(1, queue=(200, 1000))
        fill(line)
        for number in range(100):
            line.enter(number)
        line.set_limit(0, 0)
        assert line.run() == list(range(64))
        assert line.run() == list(range(64, 100))

    def test_counters_and_time(self) -> None:
        (line,) = lines(1, queue=(3, 500))
        fill(line)
        line.enter(0)
        line.at(1100)
        line.enter(1, node=1)
        line.enter(2, node=1)
        assert not line.enter(3)
        assert [line.timer(number) for number in range(4)] == [1500, 1600, 1600, 0]
        assert line.counters() == {
            "waiting": 3, "waited": 3, "waited_ms": 0, "full": 1, "timeouts": 0,
            "of_nodes": [0, 2, 0],
        }  # fmt: skip
        line.at(1200)
        line.leave(1)
        line.time_over(0)
        assert line.counters() == {
            "waiting": 1, "waited": 3, "waited_ms": 300, "full": 1, "timeouts": 1,
            "of_nodes": [0, 1, 0],
        }  # fmt: skip
        assert [line.timer(number) for number in range(3)] == [0, 0, 1600]
        assert (line.waiting(1), line.waiting(0, True)) == (1100, None)
        line.leave(2)
        assert line.waiting(1) is None

    def test_who_comes_back_has_its_old_place_and_what_is_left_of_its_time(self) -> None:
        (line,) = lines(1, queue=(9, 500))
        fill(line)
        line.enter(0, node=0)
        line.at(1100)
        line.enter(1, node=0)
        line.at(1200)
        line.set_open(0, 1)
        assert line.run(0) == [0]
        assert line.timer(0) == 1500
        assert line.run(1) == [0]
        line.at(1300)  # it could not be connected to, 100 ms later
        line.enter(0, node=1)
        assert line.timer(0) == 1600
        assert line.waiting(1) == 1100
        assert line.counters()["waited"] == 2

    def test_a_mere_choice_is_none_once_its_node_is_full(self) -> None:
        (line,) = lines(1)
        fill(line)
        line.enter(0, node=0, persistence=-1)
        assert line.counters()["of_nodes"] == [0, 0, 0]
        line.set_open(1, 1)
        assert line.run() == [0]


@pytest.mark.parametrize(
    ("queue", "workers", "each"), [(0, 2, 0), (1, 2, 1), (5, 2, 2), (9, 4, 2), (7, 1, 7)]
)
def test_each_worker_has_its_share_of_the_queue(queue: int, workers: int, each: int) -> None:
    for line in lines(workers, queue=(queue, 1000)):
        fill(line)
        assert [line.enter(number) for number in range(each + 1)] == [True] * each + [False]


class TestSeveralWorkers:
    def test_the_older_one_comes_first(self) -> None:
        a, b = lines()
        fill(a)
        a.enter(0)
        b.at(1100)
        a.at(1100)
        b.enter(1)
        a.set_open(0, 1)
        assert b.run() == []
        assert a.run(1) == [0]
        assert b.run(1) == [1]

    def test_equally_old_ones_do_not_wait_for_each_other(self) -> None:
        a, b = lines()
        fill(a)
        a.enter(0, node=0)
        b.at(1015)
        b.enter(1, node=0)
        a.set_open(0, 1)
        assert b.run(1) == [1]

    def test_a_session_elsewhere_comes_before_a_new_one_here(self) -> None:
        a, b = lines()
        fill(a)
        a.enter(0)
        b.at(1100)
        a.at(1100)
        b.enter(1, node=0)
        a.set_open(0, 1)
        assert a.run() == []
        assert b.run() == [1]

    def test_who_does_not_take_its_room_is_not_waited_for(self) -> None:
        a, b = lines()
        fill(a)
        a.enter(0)
        b.at(1100)
        b.enter(1)
        b.at(2000)
        assert b.run() == []  # there is no room
        a.set_open(0, 1)
        b.at(2010)
        assert b.run() == []
        b.at(2059)
        assert b.run() == []
        b.at(2060)
        assert b.run(1) == [1]

    def test_a_dead_worker_is_not_waited_for(self) -> None:
        a, b = lines(queue=(9, 500))
        fill(a)
        a.enter(0)
        b.at(1000 + 500 + 1000)
        b.enter(1)
        a.set_open(0, 1)
        assert b.run() == []
        b.at(1000 + 500 + 1001)
        assert b.run(1) == [1]
