"""Counters read from a block of memory that a worker would write."""

import ctypes

import pytest

from fastlb._core import stats
from fastlb._core.outcome import cause_names, outcome_names


@pytest.fixture
def block() -> ctypes.Array:
    return (ctypes.c_uint64 * (stats.STATS_BYTES // 8))()


def test_all_counters_are_64_bits(block: ctypes.Array) -> None:
    assert 8 * len(block) == stats.STATS_BYTES


def test_a_cleared_block_is_zero(block: ctypes.Array) -> None:
    block[0], block[len(block) - 1] = 42, 43
    stats.clear_worker(ctypes.addressof(block))
    assert not any(block)


def test_words_of_a_worker(block: ctypes.Array) -> None:
    at = ctypes.addressof(block)
    for i in range(17):
        block[i] = 100 + i
    for i in range(len(cause_names())):
        block[17 + i] = i
    read = stats.read_worker(at)
    assert read["pid"] == 100
    assert read["generation"] == 102
    assert read["gil_acquisitions"] == 104
    assert read["buffers_refused"] == 108
    assert read["connections"] == read["objects"]["clients"] == 109
    assert read["objects"]["pipes"] == 113
    assert read["objects"]["tls_streams"] == 114
    assert read["objects"]["rule_calls"] == 115
    assert read["objects"]["rule_states"] == 116
    assert read["requests"] == 0
    assert read["causes"] == {name: i for i, name in enumerate(cause_names()) if i}


def test_every_counter_has_its_own_place(block: ctypes.Array) -> None:
    """With each word numbered, no number is read twice, and none outside of its own table."""
    at = ctypes.addressof(block)
    for i in range(len(block)):
        block[i] = i
    servers = [stats.read_virtual_server(at, slot) for slot in (0, 1, 255)]
    nodes = [stats.read_node(at, slot) for slot in (0, 1, 4095)]
    classes = [stats.read_class(at, slot) for slot in (0, 1, 255)]
    rules = [stats.read_rule(at, slot) for slot in (0, 1, 127)]
    pools = [stats.read_pool(at, slot) for slot in (0, 1, 4095)]
    seen: list[int] = []
    for one in (*servers, *nodes, *pools, *classes, *rules):
        for value in one.values():
            seen += (
                value if isinstance(value, list)
                else value.values() if isinstance(value, dict) else [value]
            )  # fmt: skip
    assert len(set(seen)) == len(seen)
    assert max(seen) == len(block) - 1
    assert servers[1]["connections"] - servers[0]["connections"] == 16
    assert nodes[1]["requests"] - nodes[0]["requests"] == 14
    assert pools[1]["waited"] - pools[0]["waited"] == 7
    assert list(classes[0]["outcomes"]) == outcome_names()
    assert rules[1]["calls"] - rules[0]["calls"] == 7
    assert min(seen) > 17 + len(cause_names())  # behind the worker's own


def test_requests_are_those_of_all_virtual_servers(block: ctypes.Array) -> None:
    at = ctypes.addressof(block)
    for slot, count in ((0, 5), (7, 11), (255, 1)):
        for i in range(len(block)):
            block[i] = i
        place = stats.read_virtual_server(at, slot)["requests"]
        stats.clear_worker(at)
        block[place] = count
        assert stats.read_worker(at)["requests"] == count
        assert stats.read_virtual_server(at, slot)["requests"] == count


def test_a_retired_worker_keeps_what_counts_events(block: ctypes.Array) -> None:
    at = ctypes.addressof(block)
    for i in range(len(block)):
        block[i] = 3
    stats.retire_worker(at)
    read = stats.read_worker(at)
    assert read["pid"] == read["connections"] == 0
    assert not any(read["objects"].values())
    assert read["turns"] == read["retries"] == 3
    for slot in (0, 255):
        server = stats.read_virtual_server(at, slot)
        assert (server["connections"], server["accepted"], server["requests"]) == (0, 3, 3)
        tls = {"handshakes": 3, "resumed": 3, "tls13": 3, "failed": 3, "waiting": 0}
        assert server["tls"] == tls
    for slot in (0, 4095):
        node = stats.read_node(at, slot)
        assert (node["idle"], node["requests"]) == (0, 3)
    assert stats.read_class(at, 255)["ended"] == 3
    for slot in (0, 127):
        rule = stats.read_rule(at, slot)
        assert (rule["waiting"], rule["calls"], rule["busy_us"]) == (0, 3, 3)


def test_several_workers_are_summed_word_by_word(block: ctypes.Array) -> None:
    other = type(block)()
    for i in range(len(block)):
        block[i], other[i] = i, 1_000_000 - i  # of each word the sum is the same
    two = [ctypes.addressof(block), ctypes.addressof(other)]
    for name in ("virtual_server", "node", "pool", "rule", "class"):
        read = getattr(stats, f"read_{name}")
        once, twice = read(two[0], 1), read([two[0]] * 2, 1)
        assert read([two[0]], 1) == once
        assert {key for key in once if once[key] == twice[key]} == set()
        values = [read(two, slot) for slot in (0, 1, 127)]
        assert set(map(str, leaves(values))) == {"1000000"}


def leaves(value: object) -> list[object]:
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return [leaf for one in inner for leaf in leaves(one)]
    return [value]


@pytest.mark.parametrize("slot", [-1, 10**6])
def test_slots_outside_of_the_block(block: ctypes.Array, slot: int) -> None:
    for read in (stats.read_virtual_server, stats.read_node, stats.read_class, stats.read_rule):
        with pytest.raises(ValueError, match="slot"):
            read(ctypes.addressof(block), slot)


def test_no_block() -> None:
    with pytest.raises(ValueError, match="address"):
        stats.read_worker(0)
