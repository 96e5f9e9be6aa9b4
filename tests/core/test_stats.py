"""The counters of a worker as their reader sees them."""

import ctypes

import pytest

from fastlb._core import stats
from fastlb._core.outcome import cause_names, outcome_names


@pytest.fixture
def block():
    memory = (ctypes.c_uint64 * (stats.STATS_BYTES // 8))()
    return memory, ctypes.addressof(memory)


def test_an_empty_block_is_all_zero(block):
    _, at = block
    worker = stats.read_worker(at)
    assert (worker["pid"], worker["requests"], worker["gil_acquisitions"]) == (0, 0, 0)
    assert worker["causes"] == {}
    assert set(stats.read_class(at, 255)["outcomes"]) == set(outcome_names())
    assert set(stats.read_node(at, 4095).values()) == {0}


def test_every_counter_has_a_place_of_its_own(block):
    memory, at = block
    for index in range(len(memory)):
        memory[index] = index
    worker = stats.read_worker(at)
    assert [worker[name] for name in ("pid", "started_ms", "generation", "turns")] == [0, 1, 2, 3]
    places = [*stats.read_node(at, 0).values(), *stats.read_node(at, 1).values()]
    for slot in (0, 1):
        server = stats.read_virtual_server(at, slot)
        places += [*server.pop("statuses"), *server.values()]
        cls = stats.read_class(at, slot)
        places += [*cls.pop("outcomes").values(), *cls.values()]
    assert len(set(places)) == len(places)
    assert max(places) < len(memory)


def test_failures_are_named(block):
    memory, at = block
    for index in range(len(memory)):
        memory[index] = 1
    named = [name for name in cause_names() if name]
    assert set(named) <= set(stats.read_worker(at)["causes"])


def test_the_end_of_a_worker_ends_what_it_had_open_and_no_event(block):
    memory, at = block
    for index in range(len(memory)):
        memory[index] = 5
    stats.retire_worker(at)
    worker = stats.read_worker(at)
    assert (worker["pid"], worker["connections"]) == (0, 0)
    assert set(worker["objects"].values()) == {0}
    assert worker["retries"] == 5
    server, node = stats.read_virtual_server(at, 255), stats.read_node(at, 4095)
    assert (server["connections"], server["requests"]) == (0, 5)
    assert (node["idle"], node["requests"]) == (0, 5)
    stats.clear_worker(at)
    assert set(memory) == {0}


def test_no_address_is_refused():
    with pytest.raises(ValueError, match="no address"):
        stats.read_worker(0)
