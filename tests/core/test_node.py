"""The node table as the control plane writes and reads it."""

import ctypes

import pytest

from fastlb._core import node

SLOT_BYTES = 64 + 4 * 64


@pytest.fixture
def table():
    memory = ctypes.create_string_buffer(node.NODE_TABLE_BYTES)
    return memory, ctypes.addressof(memory)


def set_load(memory, slot, worker, load):
    at = slot * SLOT_BYTES + 64 + 4 * worker
    memory[at : at + 4] = load.to_bytes(4, "little")


@pytest.mark.parametrize("state", sorted(node.STATES))
def test_states_are_kept_by_name(table, state):
    _, at = table
    node.open_slot(at, 7, "up")
    node.set_state(at, 7, state)
    assert node.get_state(at, 7) == state
    assert node.read_slot(at, 7, 2)["state"] == state


def test_load_is_the_sum_over_workers(table):
    memory, at = table
    node.open_slot(at, 4095, "up")
    for worker in range(3):
        set_load(memory, 4095, worker, 10 + worker)
    assert node.read_slot(at, 4095, 3)["connections"] == 33
    assert node.read_slot(at, 4095, 2)["connections"] == 21


def test_a_dead_workers_load_is_forgotten_everywhere(table):
    memory, at = table
    for slot in (0, 1, 4095):
        node.open_slot(at, slot, "up")
        set_load(memory, slot, 1, 5)
        set_load(memory, slot, 0, 2)
    node.clear_worker_column(at, 1)
    assert [node.read_slot(at, slot, 2)["connections"] for slot in (0, 1, 4095)] == [2, 2, 2]


def test_a_slot_that_is_opened_again_begins_anew(table):
    memory, at = table
    node.open_slot(at, 3, "up")
    set_load(memory, 3, 0, 9)
    node.free_slot(at, 3)
    with pytest.raises(KeyError):
        node.get_state(at, 3)
    node.open_slot(at, 3, "draining")
    assert node.read_slot(at, 3, 1) == {
        "state": "draining", "connections": 0, "response_us": 0, "used_at_ms": 0,
    }  # fmt: skip


@pytest.mark.parametrize("slot", [-1, 4096])
def test_there_is_no_slot_outside_the_table(table, slot):
    _, at = table
    for call in (lambda: node.open_slot(at, slot, "up"), lambda: node.read_slot(at, slot, 1)):
        with pytest.raises(ValueError, match="no slot"):
            call()
    with pytest.raises(ValueError, match="no slot"):
        node.get_state(0, 0)
