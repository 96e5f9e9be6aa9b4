"""The node table, as the control plane writes it and the workers count in it."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlb._core import node
from fastlb._core._testing_decide import World
from fastlb._core.shm import Segment
from tests.core.plans import Setting

LAST = 4095


@pytest.fixture
def world() -> Iterator[World]:
    with Segment.create() as segment:
        yield Setting().world(segment)


def test_states(world: World) -> None:
    table = world.table_address
    for name in ("up", "draining", "down", "disabled"):
        node.set_state(table, LAST, name)
        assert node.get_state(table, LAST) == name
    with pytest.raises(KeyError):
        node.set_state(table, LAST, "asleep")


def test_a_free_slot_can_be_read(world: World) -> None:
    table = world.table_address
    node.open_slot(table, 5, "up")
    node.free_slot(table, 5)
    assert node.get_state(table, 5) == "free"
    assert node.read_slot(table, 5, 2)["state"] == "free"


def test_opening_forgets_who_had_the_slot(world: World) -> None:
    table = world.table_address
    world.set_load(7, 1, 99)
    world.set_open(7, 1, 3)  # idle ones, which their worker will close
    world.feed(7, 1000)
    node.open_slot(table, 7, "draining")
    assert node.read_slot(table, 7, 128) == {
        "state": "draining", "connections": 0, "open": 3, "response_us": 0, "used_at_ms": 0,
        "failures": 0, "ejections": 0, "ejected_until_ms": 0, "returned_at_ms": 0,
    }  # fmt: skip


def test_a_node_that_returned_is_what_it_was_before_it_was_ejected(world: World) -> None:
    table = world.table_address
    node.open_slot(table, 7, "up")
    world.eject(7, ms=500, times=3)
    assert node.read_slot(table, 7, 1)["ejections"] == 3
    assert node.read_slot(table, 7, 1)["ejected_until_ms"] == world.now_ms + 500
    node.set_returned(table, 7, 1234)
    found = node.read_slot(table, 7, 1)
    assert (found["returned_at_ms"], found["ejections"], found["ejected_until_ms"]) == (1234, 0, 0)


def test_load_is_the_sum_over_the_workers_in_use(world: World) -> None:
    for worker in range(128):
        world.set_load(3, worker, worker + 1)
    assert world.load(3, 0) == 0
    assert world.load(3, 2) == 3
    assert world.load(3, 128) == 128 * 129 // 2
    assert node.read_slot(world.table_address, 3, 2)["connections"] == 3


def test_a_dead_workers_load_is_forgotten(world: World) -> None:
    for slot in (0, LAST):
        world.set_load(slot, 0, 5)
        world.set_load(slot, 63, 7)
    node.clear_worker_column(world.table_address, 63)
    for slot in (0, LAST):
        assert world.load(slot, 128) == 5


@pytest.mark.parametrize("slot", [-1, LAST + 1, 10**6])
def test_slots_outside_of_the_table(world: World, slot: int) -> None:
    table = world.table_address
    for function in (node.get_state, node.free_slot):
        with pytest.raises(ValueError, match="slot"):
            function(table, slot)
    with pytest.raises(ValueError, match="slot"):
        node.open_slot(table, slot, "up")
    with pytest.raises(ValueError, match="slot"):
        node.open_slot(0, 1, "up")


@pytest.mark.parametrize("worker", [-1, 128, 10**6])
def test_workers_outside_of_the_table(world: World, worker: int) -> None:
    with pytest.raises(ValueError, match="worker"):
        node.clear_worker_column(world.table_address, worker)


@pytest.mark.parametrize("workers", [-1, 129])
def test_more_columns_than_there_are(world: World, workers: int) -> None:
    with pytest.raises(ValueError, match="worker"):
        node.read_slot(world.table_address, 0, workers)


@given(st.lists(st.integers(0, 60_000_000), min_size=1, max_size=60))
def test_average_stays_among_what_was_measured(fed: list[int]) -> None:
    with Segment.create() as segment:
        world = Setting().world(segment)
        for us in fed:
            average = world.feed(0, us)
            assert average > 0  # 0 would mean: unknown
        assert min(fed) - 8 <= average <= max(fed) + 8


def test_average_forgets_by_eighths(world: World) -> None:
    world.feed(0, 8000)
    assert world.feed(0, 16000) == pytest.approx(9000, abs=2)
    for _ in range(60):
        average = world.feed(0, 100)
    assert average == pytest.approx(100, abs=4)  # halves of an eighth are lost


@pytest.mark.parametrize("start", [1, 200])
def test_average_reaches_what_is_measured_from_either_side(world: World, start: int) -> None:
    world.feed(0, start)
    for _ in range(60):
        average = world.feed(0, 100)
    assert average == pytest.approx(100, abs=4)
