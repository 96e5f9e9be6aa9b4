"""How many retries a pool may have: a floor, and a share of the last seconds' requests."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb._core._testing_health import Budget

FLOOR = 100
WINDOW_MS = 5000


def taken(budget: Budget, percent: int = 20, most: int = 10_000) -> int:
    """How many it gives until it refuses."""
    count = 0
    while count < most and budget.take(percent):
        count += 1
    return count


def test_a_small_site_may_retry() -> None:
    assert taken(Budget()) == FLOOR


@pytest.mark.parametrize("percent", [1, 20, 100])
def test_a_share_of_the_requests_on_top(percent: int) -> None:
    budget = Budget()
    budget.requests(5000)
    assert taken(budget, percent) == FLOOR + 50 * percent
    assert not budget.take(percent)
    budget.requests(100)
    assert taken(budget, percent) == percent


def test_it_comes_back_with_time() -> None:
    budget = Budget()
    budget.requests(1000)
    assert taken(budget) == 300
    budget.now_ms += WINDOW_MS
    assert taken(budget) == 50  # both counts are half of what they were
    budget.now_ms += 10 * WINDOW_MS
    assert taken(budget) == FLOOR
    budget.now_ms += 1000 * WINDOW_MS
    assert taken(budget) == FLOOR


def test_requests_of_long_ago_allow_nothing() -> None:
    budget = Budget()
    budget.requests(100_000)
    budget.now_ms += 40 * WINDOW_MS
    assert taken(budget) == FLOOR


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400), st.integers(0, 12_000)),
             min_size=1, max_size=12),
    st.integers(1, 100),
)  # fmt: skip
def test_retries_never_are_a_multiple_of_the_requests(steps: list, percent: int) -> None:
    """Over any time: at most the share of the requests, and a floor for each window begun."""
    budget = Budget(WINDOW_MS * 1000)
    first, requests, retries = budget.now_ms, 0, 0
    for asked, wanted, pause in steps:
        budget.requests(asked)
        requests += asked
        retries += sum(budget.take(percent) for _ in range(wanted))
        windows = (budget.now_ms - first) // WINDOW_MS + 1
        # What is halved away of the retries is at most that much again.
        assert retries <= windows * FLOOR + 2 * requests * percent // 100
        budget.now_ms += pause
