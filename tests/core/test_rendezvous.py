"""Weighted rendezvous hashing: the logarithm, the spread, and who moves."""

import random
from collections import Counter
from decimal import Decimal, localcontext
from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlb._core import _testing_parts as core
from fastlb._core.shm import Segment
from tests.core.plans import Node, Setting, nodes, state

UNIT = 2**32


@given(st.integers(1, 2**64 - 1) | st.integers(0, 63).map(lambda bit: 1 << bit))
def test_logarithm(x: int) -> None:
    # A chord of 1/1024 of a doubling is at most 2^-22.4 below the curve.
    assert abs(core.log(x) / UNIT - (64 - log2(x))) < 2**-22


def test_logarithm_at_its_ends() -> None:
    assert core.log(0) == 64 * UNIT
    assert core.log(1) == 64 * UNIT
    assert core.log(2**63) == UNIT
    assert core.log(2**64 - 1) < 2


def test_logarithm_falls() -> None:
    last = core.log(0)
    for step in range(4096):
        now = core.log((2**64 - 1) * step // 4096 + 1)
        assert now <= last
        last = now


def test_every_machine_has_the_same_table() -> None:
    # Made with the C library's log2: its last bit must not decide about any entry.
    with localcontext() as context:
        context.prec = 40
        two = Decimal(2).ln()
        for step in range(1024):
            exact = (Decimal(1024 + step) / 1024).ln() / two * UNIT
            x = (1 << 63) + (step << 53)
            assert UNIT - core.log(x) == int(exact.to_integral_value()), step


@given(st.integers(0, 2**38), st.integers(1, 256), st.integers(0, 2**38), st.integers(1, 256))
def test_comparison_is_exact(draw: int, weight: int, best: int, best_weight: int) -> None:
    assert core.beats(draw, weight, best, best_weight) == (draw * best_weight < best * weight)


def test_mix_is_a_permutation_of_keys() -> None:
    seen = {core.mix(key, 0x1234567890ABCDEF) for key in range(10000)}
    assert len(seen) == 10000


@pytest.fixture(scope="module")
def keys() -> list[int]:
    rng = random.Random(20260101)
    return [rng.getrandbits(64) for _ in range(100_000)]


def picks(segment: Segment, of: list[Node], keys: list[int], down: int = -1) -> list[int]:
    world = Setting(nodes=of, algorithm="hash").world(segment)
    if down >= 0:
        state(world, down, "down")
    return world.picks(keys)


@pytest.fixture(scope="module")
def segment():
    with Segment.create() as made:
        yield made


def test_spread_follows_the_weights(segment: Segment, keys: list[int]) -> None:
    weights = [1, 2, 3, 4]
    of = [Node(f"10.0.0.{i}:80", weight=weight) for i, weight in enumerate(weights)]
    counts = Counter(picks(segment, of, keys))
    for node, weight in enumerate(weights):
        assert counts[node] == pytest.approx(len(keys) * weight / 10, rel=0.05)


def test_extreme_weights(segment: Segment, keys: list[int]) -> None:
    of = [Node("10.0.0.1:80", weight=256), Node("10.0.0.2:80", weight=16)]
    counts = Counter(picks(segment, of, keys[:50_000]))
    assert counts[1] == pytest.approx(50_000 * 16 / 272, rel=0.05)


def test_who_moves(segment: Segment, keys: list[int]) -> None:
    keys = keys[:20_000]
    before = picks(segment, nodes(5), keys)
    without = picks(segment, nodes(5), keys, down=2)
    moved = [i for i in range(len(keys)) if before[i] != without[i]]
    assert moved == [i for i in range(len(keys)) if before[i] == 2]
    gained = Counter(without[i] for i in moved)
    for node in (0, 1, 3, 4):
        assert gained[node] == pytest.approx(len(moved) / 4, rel=0.15)
    more = picks(segment, nodes(6), keys)
    moved = [i for i in range(len(keys)) if before[i] != more[i]]
    assert {more[i] for i in moved} == {5}
    assert len(moved) == pytest.approx(len(keys) / 6, rel=0.05)


def test_order_does_not_matter(segment: Segment, keys: list[int]) -> None:
    keys = keys[:5_000]
    of = nodes(5)
    forward = [of[i].address for i in picks(segment, of, keys)]
    of.reverse()
    assert [of[i].address for i in picks(segment, of, keys)] == forward


def test_keys_that_follow_each_other_are_spread(segment: Segment) -> None:
    counts = Counter(picks(segment, nodes(4), list(range(20_000))))
    for node in range(4):
        assert counts[node] == pytest.approx(5_000, rel=0.06)
