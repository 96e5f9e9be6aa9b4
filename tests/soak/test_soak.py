"""A short soak with every suite, and one of fifteen minutes with the deep tests."""

import time

import pytest

from .configuration import DRAIN_S
from .run import soak
from .world import World


@pytest.mark.parametrize(
    ("seconds", "seed"), [(10, 1), pytest.param(900, None, marks=pytest.mark.deep)]
)
def test_whatever_happens_nobody_loses_a_session_and_nothing_leaks(seconds, seed):
    report = soak(seconds, int(time.time()) if seed is None else seed)
    print(report.text())
    assert report.violations == [], report.text()
    assert report.requests > 50 * seconds


# --- that the soak would see it ---


def test_a_lost_websocket_needs_a_cause():
    now, world = time.monotonic(), World()
    assert not world.explains_loss("a", opened=now - 5, since=now)
    world.hurt("a")  # a node that is stopped, or removed, ends no connection
    assert not world.explains_loss("a", opened=now - 5, since=now)
    world.ends_connections("b")
    assert not world.explains_loss("a", opened=now - 5, since=now)
    world.ends_connections("a")
    assert world.explains_loss("a", opened=now - 5, since=now)
    assert not world.explains_loss("a", opened=now - 5, since=time.monotonic() + 1)


def test_a_worker_that_leaves_explains_what_ends_when_its_time_is_over():
    now, world = time.monotonic(), World()
    world.left.append((now - DRAIN_S + 5, now - DRAIN_S + 6))
    assert not world.had_to_leave(opened=now - 20), "too early"
    world.left.append((now - DRAIN_S - 1, now - DRAIN_S))
    assert world.had_to_leave(opened=now - 20)
    assert not world.had_to_leave(opened=now - 2), "it is on another worker"


def test_a_node_that_nobody_checked_may_still_count_as_down():
    world = World()
    world.hurt("a")
    world.well("a")
    well = world.well_since["a"] = world.well_since["a"] - 2
    world.checks_again(away_since=well + 10)
    assert world.well_since["a"] == well
    world.checks_again(away_since=well + 1)
    assert world.well_since["a"] > well
