"""The algorithms: exact shares, and who is never asked."""

from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlb._core._testing_decide import World
from fastlb._core.node import set_returned
from fastlb._core.shm import Segment
from tests.core.plans import Node, Setting, nodes, state

ALGORITHMS = [
    "round-robin",
    "weighted-round-robin",
    "least-connections",
    "random-of-two",
    "fastest-response",
    "hash",
]
WORLD = Callable[..., World]


@pytest.fixture(scope="module")
def segment() -> Iterator[Segment]:
    with Segment.create() as made:
        yield made


@pytest.fixture
def world(segment: Segment) -> WORLD:
    def make(of: list[Node], algorithm: str, **more) -> World:
        return Setting(nodes=of, algorithm=algorithm, **more).world(segment)

    return make


def weighted(*weights: int) -> list[Node]:
    return [Node(f"10.0.0.{i + 1}:80", weight=weight) for i, weight in enumerate(weights)]


def share(world: World, count: int, tried=()) -> dict[int, int]:
    return dict(Counter(world.pick(0, tried, key * 0x9E3779B97F4A7C15 % 2**64)[0]
                        for key in range(count)))  # fmt: skip


# ---- round robin, with and without weights ----


@given(st.integers(1, 9), st.sets(st.integers(0, 8)))
def test_round_robin_is_exact(count: int, down: set[int]) -> None:
    with Segment.create() as segment:
        world = Setting(nodes=nodes(count)).world(segment)
        for slot in down & set(range(count)):
            state(world, slot, "down")
        up = sorted(set(range(count)) - down)
        if not up:
            assert world.pick() == (-1, False)
            return
        order = [world.pick()[0] for _ in range(3 * len(up))]
        assert order == up * 3


@given(st.lists(st.integers(0, 12), min_size=1, max_size=6).filter(any), st.data())
def test_weighted_round_robin_is_exact(weights: list[int], data: st.DataObject) -> None:
    """Also while some nodes are down: their share goes to the others by their weights."""
    down = data.draw(st.sets(st.integers(0, len(weights) - 1)))
    with Segment.create() as segment:
        world = Setting(nodes=weighted(*weights), algorithm="weighted-round-robin").world(segment)
        for slot in down:
            state(world, slot, "down")
        left = {i: w for i, w in enumerate(weights) if w and i not in down}
        if not left:
            assert world.pick() == (-1, False)
            return
        picked = [world.pick()[0] for _ in range(3 * sum(left.values()))]
        assert Counter(picked) == {i: 3 * w for i, w in left.items()}


def test_the_schedule_is_followed_around(world: WORLD) -> None:
    made = world(weighted(5, 1, 1), "weighted-round-robin")
    order = [made.pick()[0] for _ in range(21)]
    assert order == made.image.pools()[0]["schedule"] * 3


def test_shares_of_backups_are_exact_too(world: WORLD) -> None:
    of = [Node("10.0.0.1:80", weight=3), Node("10.0.0.2:80", weight=2, backup=True),
          Node("10.0.0.3:80", weight=1, backup=True)]  # fmt: skip
    made = world(of, "weighted-round-robin")
    assert share(made, 60) == {0: 60}
    state(made, 0, "down")
    assert share(made, 60) == {1: 40, 2: 20}
    state(made, 0, "up")
    assert share(made, 6) == {0: 6}


# ---- least connections ----


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 30)), min_size=1, max_size=6))
def test_least_connections_by_weight(of: list[tuple[int, int]]) -> None:
    with Segment.create() as segment:
        setting = Setting(nodes=weighted(*[w for w, _ in of]), algorithm="least-connections")
        world = setting.world(segment)
        for slot, (_, load) in enumerate(of):
            world.set_load(slot, 0, load // 2)
            world.set_load(slot, 1, load - load // 2)
        least = min(load / weight for weight, load in of)
        for _ in range(2 * len(of)):
            weight, load = of[world.pick()[0]]
            assert load / weight == pytest.approx(least)


def test_least_connections_fills_by_weight(world: WORLD) -> None:
    made = world(weighted(1, 2, 3), "least-connections")
    loads = [0, 0, 0]
    for _ in range(60):
        node, _ = made.pick()
        loads[node] += 1
        made.set_load(node, 0, loads[node])
    assert loads == [10, 20, 30]


def test_idle_nodes_take_turns_by_weight(world: WORLD) -> None:
    assert share(world(weighted(1, 2, 3), "least-connections"), 60) == {0: 10, 1: 20, 2: 30}
    assert share(world(nodes(3), "fastest-response"), 30) == {0: 10, 1: 10, 2: 10}


def test_load_of_workers_that_are_not_in_use_does_not_count(world: WORLD) -> None:
    made = world(nodes(2), "least-connections", workers=2)
    made.set_load(0, 2, 50)
    made.set_load(1, 1, 1)
    assert made.pick()[0] == 0


# ---- random of two, fastest response, hash ----


def test_random_of_two_is_even_and_prefers_the_idle(world: WORLD) -> None:
    made = world(nodes(4), "random-of-two")
    for count in share(made, 4000).values():
        assert count == pytest.approx(1000, rel=0.15)
    made.set_load(2, 0, 100)
    counts = share(made, 2000)
    assert 2 not in counts  # of two different nodes, the other one is less loaded
    assert set(counts) == {0, 1, 3}


@pytest.mark.parametrize("weights", [(1, 2), (2, 1), (1, 1, 4), (1, 9, 90)])
def test_random_of_two_shares_by_weight_while_all_are_idle(world: WORLD, weights) -> None:
    counts = share(world(weighted(*weights), "random-of-two"), 4000)
    for index, weight in enumerate(weights):
        assert counts[index] == pytest.approx(4000 * weight / sum(weights), rel=0.2, abs=30)


def test_random_of_two_prefers_the_less_loaded_for_its_weight(world: WORLD) -> None:
    made = world(weighted(1, 4), "random-of-two")
    made.set_load(1, 0, 3)
    made.set_load(0, 0, 1)
    assert share(made, 20) == {1: 20}
    made.set_load(0, 0, 0)
    assert share(made, 20) == {0: 20}


def test_random_of_two_with_one_left(world: WORLD) -> None:
    made = world(nodes(3), "random-of-two")
    state(made, 0, "down")
    state(made, 2, "disabled")
    assert share(made, 10) == {1: 10}


def test_fastest_response(world: WORLD) -> None:
    made = world(nodes(3), "fastest-response")
    for slot, us in enumerate((9000, 3000, 6000)):
        made.feed(slot, us)
    assert share(made, 10) == {1: 10}
    made.set_load(1, 0, 2)  # three times 3 ms are more than 6 ms
    assert share(made, 10) == {2: 10}
    made.set_load(2, 1, 1)
    assert made.pick()[0] in (0, 1)


def test_a_slow_node_is_tried_again(world: WORLD) -> None:
    made = world(nodes(2), "fastest-response")
    made.feed(0, 50_000)
    made.feed(1, 1_000)
    assert share(made, 5) == {1: 5}
    made.now_ms += 60_000
    made.feed(1, 1_000)  # the fast one had news, the slow one had none
    assert share(made, 5) == {0: 5}


def test_fastest_response_by_weight(world: WORLD) -> None:
    made = world(weighted(1, 4), "fastest-response")
    made.feed(0, 1000)
    made.feed(1, 3000)
    assert made.pick()[0] == 1


def test_clocks_that_disagree_do_no_harm(world: WORLD) -> None:
    made = world(nodes(2), "fastest-response")
    made.now_ms += 10_000
    made.feed(0, 5000)
    made.feed(1, 1000)
    made.now_ms -= 9_000
    assert made.pick()[0] == 1


def test_hash_stays(world: WORLD) -> None:
    made = world(nodes(5), "hash")
    keys = [i * 0x9E3779B97F4A7C15 % 2**64 for i in range(200)]
    assert made.picks(keys) == made.picks(keys)
    assert len(set(made.picks(keys))) == 5


# ---- rules for all of them ----


@pytest.mark.parametrize("algorithm", ALGORITHMS)
class TestEvery:
    def test_only_nodes_that_are_up(self, world: WORLD, algorithm: str) -> None:
        made = world(nodes(6), algorithm)
        for slot, name in enumerate(("down", "draining", "disabled", "free")):
            state(made, slot, name)
        assert set(share(made, 200)) == {4, 5}

    def test_weight_0_gets_no_new_session(self, world: WORLD, algorithm: str) -> None:
        made = world(weighted(0, 1, 2), algorithm)
        assert set(share(made, 200)) <= {1, 2}
        state(made, 1, "down")
        state(made, 2, "down")
        assert made.pick() == (-1, False)

    def test_tried_nodes_are_not_asked_again(self, world: WORLD, algorithm: str) -> None:
        made = world(nodes(4), algorithm)
        assert set(share(made, 100, [1, 3])) <= {0, 2}
        assert made.pick(0, [0, 1, 2, 3]) == (-1, False)

    def test_connection_limit(self, world: WORLD, algorithm: str) -> None:
        made = world(nodes(3, max_connections=5), algorithm)
        made.set_open(0, 0, 3)
        made.set_open(0, 1, 2)
        made.set_open(1, 0, 4)
        assert set(share(made, 60)) <= {1, 2}
        assert not made.waits(0, [0, 1, 2])
        made.set_open(1, 1, 1)
        made.set_open(2, 0, 99)
        assert made.pick() == (-1, False)
        assert made.waits()
        assert made.waits(0, [0, 1])
        for slot, name in enumerate(("down", "disabled", "down")):
            state(made, slot, name)
        assert not made.waits()

    def test_who_waits_comes_first(self, world: WORLD, algorithm: str) -> None:
        made = world(nodes(2, max_connections=5), algorithm, queue=(10, 500))
        made.set_waiting(0, 1, made.now_ms - 100)  # a session, for the first node
        assert set(share(made, 20)) == {1}
        made.set_waiting(0, 0, made.now_ms - 100, True)  # a new one, for any
        assert made.pick() == (-1, False)
        assert made.waits()
        assert made.pick(0, [], 0, True) == (1, False)
        made.set_waiting(0, 0, made.now_ms - 2000, True)  # whoever that was is dead
        made.set_waiting(0, 1, made.now_ms - 2000)
        assert set(share(made, 200)) <= {0, 1}
        assert made.pick(0, [1]) == (0, False)

    def test_backups_wait_for_the_last_primary(self, world: WORLD, algorithm: str) -> None:
        made = world([*nodes(2), Node("10.0.1.1:80", backup=True)], algorithm)
        assert 2 not in share(made, 60)
        state(made, 0, "down")
        assert share(made, 20) == {1: 20}
        state(made, 1, "disabled")
        assert share(made, 20) == {2: 20}
        assert made.pick(0, [2]) == (-1, False)

    def test_backups_take_what_is_too_much(self, world: WORLD, algorithm: str) -> None:
        of = [*nodes(1, max_connections=1), Node("10.0.1.1:80", backup=True)]
        made = world(of, algorithm)
        made.set_open(0, 0, 1)
        assert made.pick() == (1, False)

    def test_draining_nodes_are_the_last(self, world: WORLD, algorithm: str) -> None:
        made = world([*nodes(3), Node("10.0.1.1:80", backup=True)], algorithm)
        for slot in (0, 1):
            state(made, slot, "draining")
        assert set(share(made, 20)) == {2}
        state(made, 2, "down")
        assert share(made, 20) == {3: 20}
        state(made, 3, "down")
        picked = [made.pick(0, [], key * 0x9E3779B97F4A7C15 % 2**64) for key in range(40)]
        assert {draining for _, draining in picked} == {True}
        assert {node for node, _ in picked} <= {0, 1}
        assert made.pick(0, [0, 1]) == (-1, False)

    def test_draining_may_refuse(self, world: WORLD, algorithm: str) -> None:
        made = world(nodes(2), algorithm, refuse_last_draining=True)
        for slot in (0, 1):
            state(made, slot, "draining")
        assert made.pick() == (-1, False)

    def test_draining_nodes_of_weight_0_serve_at_the_very_last(
        self, world: WORLD, algorithm: str
    ) -> None:
        made = world(weighted(0, 0), algorithm)
        state(made, 0, "draining")
        assert made.pick() == (0, True)

    def test_ejected_nodes_count_as_down(self, world: WORLD, algorithm: str) -> None:
        of = [*nodes(3), Node("10.0.1.1:80", backup=True)]
        made = world(of, algorithm, passive={"failures": 5})
        made.eject(0)
        assert set(share(made, 60)) == {1, 2}
        made.eject(1)
        made.eject(2)
        assert share(made, 20) == {3: 20}
        made.now_ms += 1000  # due: the next request is a probe
        assert set(share(made, 60)) == {0, 1, 2}

    def test_where_nothing_else_is_usable_ejected_nodes_serve(
        self, world: WORLD, algorithm: str
    ) -> None:
        of = [*nodes(4), Node("10.0.1.1:80", backup=True)]
        made = world(of, algorithm, passive={"failures": 5})
        for slot in range(5):
            made.eject(slot)
        state(made, 0, "disabled")
        state(made, 1, "down")
        assert set(share(made, 200)) == {2, 3, 4}
        assert set(share(made, 100, [2, 3])) == {4}
        assert made.pick(0, [2, 3, 4]) == (-1, False)

    def test_draining_nodes_come_before_ejected_ones(self, world: WORLD, algorithm: str) -> None:
        made = world(nodes(2), algorithm, passive={"failures": 5})
        made.eject(0)
        state(made, 1, "draining")
        assert made.pick() == (1, True)
        made.eject(1)
        picked = {made.pick(0, [], key * 0x9E3779B97F4A7C15 % 2**64) for key in range(60)}
        assert picked == {(0, False), (1, True)}

    def test_an_ejected_node_is_nearer_than_a_draining_one_that_refuses(
        self, world: WORLD, algorithm: str
    ) -> None:
        made = world(nodes(2), algorithm, passive={"failures": 5}, refuse_last_draining=True)
        made.eject(0)
        made.eject(1)
        state(made, 1, "draining")
        assert made.pick() == (0, False)
        state(made, 0, "down")
        assert made.pick() == (-1, False)

    def test_a_node_that_is_only_full_is_waited_for(self, world: WORLD, algorithm: str) -> None:
        made = world([*nodes(2, max_connections=1)], algorithm, passive={"failures": 5})
        made.eject(0)
        made.set_open(1, 0, 1)
        assert made.pick() == (-1, False)

    def test_nobody_is_ejected_from_a_pool_that_is_not_watched(
        self, world: WORLD, algorithm: str
    ) -> None:
        made = world(nodes(2), algorithm)
        made.eject(0)
        assert set(share(made, 60)) == {0, 1}

    def test_a_pool_without_nodes(self, world: WORLD, algorithm: str) -> None:
        assert world([], algorithm).pick() == (-1, False)


# ---- slow start ----


@pytest.mark.parametrize("algorithm", [one for one in ALGORITHMS if one != "hash"])
def test_a_returning_node_sits_out_as_often_as_its_share_is_short(
    world: WORLD, algorithm: str
) -> None:
    made = world(nodes(2), algorithm, slow_start=10_000)
    made.set_load(0, 0, 1)  # and is not given all that it missed, for being idle
    made.feed(0, 2000)
    made.feed(1, 1000)
    set_returned(made.table_address, 1, made.now_ms)
    for passed, part in ((0, 0.1), (4000, 0.46), (10_000, 1)):
        made.now_ms += passed - (made.now_ms - 1_000_000)
        expected = {"round-robin": part / 2, "weighted-round-robin": part / (1 + part)}
        got = share(made, 2000)[1] / 2000
        assert got == pytest.approx(expected.get(algorithm, part), abs=0.05)


def test_where_all_return_nobody_sits_out(world: WORLD) -> None:
    made = world(nodes(2), "round-robin", slow_start=10_000)
    for slot in range(2):
        set_returned(made.table_address, slot, made.now_ms)
    assert sum(share(made, 200).values()) == 200
    state(made, 0, "down")
    assert share(made, 50) == {1: 50}


def test_a_hash_has_no_slow_start(world: WORLD) -> None:
    """Its keys would be with another node for that time only."""
    made = world(nodes(4), "hash", slow_start=10_000)
    keys = [i * 0x9E3779B97F4A7C15 % 2**64 for i in range(200)]
    before = made.picks(keys)
    set_returned(made.table_address, 1, made.now_ms)
    assert made.picks(keys) == before
