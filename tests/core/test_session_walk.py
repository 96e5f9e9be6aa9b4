"""Walks over a session cache: what they see, keep and remove, in steps."""

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from fastlb._core._testing_session_cache import Probe
from fastlb._core.session_store import Cache
from fastlb._core.session_walk import Census, Recent, Removal, Walk
from fastlb._core.shm import Segment, SharedMemoryError


@pytest.fixture
def segment() -> Iterator[Segment]:
    with Segment.create() as made:
        yield made


@pytest.fixture
def cache(segment: Segment) -> tuple[Cache, Probe]:
    return Cache.create(segment, "c", 5000), Probe(segment, "c")


def whole(walk: Walk, step: int = 7) -> int:
    """Walks to the end; returns the count of steps."""
    steps = 1
    while walk.step(step):
        steps += 1
    return steps


def test_a_census_counts_each_address_whatever_the_steps(cache: tuple[Cache, Probe]) -> None:
    of, probe = cache
    pick = random.Random(1)
    wanted: Counter[int] = Counter()
    for number in range(3000):
        node = pick.randrange(1, 900)  # more addresses than the table begins with
        probe.store(number, node, 1)
        wanted[node] += 1
    found = []
    for step in (1000, 1, 5000):
        census = Census(of, 1, 0)
        whole(census, step)
        found.append({(row.ip, row.port): row.live for row in census.rows()})
    assert found[0] == found[1] == found[2]
    assert sorted(found[0].values()) == sorted(wanted.values())
    assert sum(found[0].values()) == 3000


def test_neighbouring_addresses_are_told_apart(cache: tuple[Cache, Probe]) -> None:
    of, probe = cache
    for host in range(1, 255):
        probe.store_ipv4(host, bytes([10, 0, 0, host]), 8080, 5)
    census = Census(of, 5, 0)
    whole(census)
    rows = census.rows()
    assert {row.ip for row in rows} == {f"10.0.0.{host}" for host in range(1, 255)}
    assert {(row.port, row.live, row.expired) for row in rows} == {(8080, 1, 0)}


def test_old_maps_are_expired_by_idle_time_and_by_deadline(cache: tuple[Cache, Probe]) -> None:
    of, probe = cache
    probe.store(1, 1, 100)
    probe.store(2, 1, 60)
    probe.store(3, 1, 90, 120)  # ends at tick 120 whatever its use
    probe.store(4, 1, 10)
    census = Census(of, 110, 50)
    whole(census)
    (row,) = census.rows()
    assert (row.live, row.expired, row.idle) == (2, 2, 10)
    later = Census(of, 120, 0)
    whole(later)
    assert [(row.live, row.expired) for row in later.rows()] == [(3, 1)]


def test_only_expired_maps_have_no_idle_time(cache: tuple[Cache, Probe]) -> None:
    of, probe = cache
    probe.store(1, 1, 1)
    census = Census(of, 100, 50)
    whole(census)
    assert [(row.live, row.expired, row.idle) for row in census.rows()] == [(0, 1, None)]


def test_the_census_of_an_empty_cache(cache: tuple[Cache, Probe]) -> None:
    census = Census(cache[0], 1, 0)
    assert whole(census) == 1
    assert census.rows() == []


@pytest.mark.parametrize("most", [1, 2, 10, 99, 100, 5000])
def test_the_most_recently_used_are_kept_in_order(cache: tuple[Cache, Probe], most: int) -> None:
    of, probe = cache
    used = list(range(100))
    random.Random(most).shuffle(used)
    for number, tick in enumerate(used):
        probe.store(number, 1, tick)
    recent = Recent(of, 200, 0, most)
    whole(recent)
    assert recent.live == 100
    assert [row.idle for row in recent.rows()] == list(range(101, 201))[:most]
    by_key = {Probe.key_bytes(number): tick for number, tick in enumerate(used)}
    assert all(by_key[row.key] == 200 - row.idle for row in recent.rows())


def test_a_list_leaves_expired_maps_out(cache: tuple[Cache, Probe]) -> None:
    of, probe = cache
    for number in range(20):
        probe.store(number, 1, number)
    recent = Recent(of, 30, 15, 100)
    whole(recent)
    assert (recent.live, len(recent.rows())) == (4, 4)


def test_a_list_of_nothing_is_refused(cache: tuple[Cache, Probe]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        Recent(cache[0], 1, 0, 0)


def test_filters(cache: tuple[Cache, Probe]) -> None:
    of, probe = cache
    for number in range(12):
        probe.store_ipv4(number, bytes([10, 0, 0, number % 2]), 80 + number % 3, 1)
    for ip, port, count in (
        ("10.0.0.0", None, 6), ("10.0.0.0", 80, 2), ("10.0.0.9", None, 0), ("::1", 80, 0),
    ):  # fmt: skip
        recent = Recent(of, 1, 0, 100, ip, port)
        whole(recent)
        assert recent.live == count
    one = Recent(of, 1, 0, 100, key=Probe.key_bytes(7))
    whole(one)
    assert [(row.key, row.ip, row.port) for row in one.rows()] == [
        (Probe.key_bytes(7), "10.0.0.1", 81)
    ]
    with pytest.raises(ValueError, match="16 bytes"):
        Recent(of, 1, 0, 100, key=b"short")


def test_removal_of_a_node_of_a_machine_and_of_all(cache: tuple[Cache, Probe]) -> None:
    of, probe = cache
    for number in range(12):
        probe.store_ipv4(number, bytes([10, 0, 0, number % 2]), 80 + number % 3, 1)
    counts = []
    for filters in (("10.0.0.0", 80), ("10.0.0.1",), ("10.0.0.1",), ()):
        removal = Removal(of, 1000, 5, *filters)
        whole(removal)
        counts.append(removal.removed)
    assert counts == [2, 6, 0, 4]
    assert of.stats(1).entries == 0
    of.verify()


def test_maps_made_meanwhile_do_not_hold_a_removal_up(segment: Segment) -> None:
    of = Cache.create(segment, "small", 64)
    probe = Probe(segment, "small")
    for number in range(64):
        probe.store(number, 1, 1)
    removal, number = Removal(of, 1, 0), 1000
    for _ in range(200):
        if not removal.step(1):
            break
        number += 1
        probe.store(number, 2, 1)
    else:
        raise AssertionError("a removal without end")
    of.verify()


def test_a_walk_over_a_closed_segment_is_an_error(cache: tuple[Cache, Probe]) -> None:
    of, probe = cache
    probe.store(1, 1, 1)
    census = Census(of, 1, 0)
    of.segment.close()
    with pytest.raises(SharedMemoryError, match="closed"):
        census.step(1)
