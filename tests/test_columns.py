"""Which columns workers have."""

import pytest

from fastlb.columns import COLUMNS_MAX, Columns
from fastlb.config import WORKERS_MAX


def test_workers_that_stay_keep_theirs() -> None:
    one = Columns()
    one.adopt(one.chosen(3))
    assert (one.places, one.leaving, one.in_use) == ((0, 1, 2), set(), 3)
    one.adopt(one.chosen(1))
    assert (one.places, one.leaving, one.in_use) == ((0,), {1, 2}, 3)
    assert one.chosen(3) == (0, 3, 4)
    one.free(1)
    assert one.chosen(3) == (0, 1, 3)


def test_renewed_are_all() -> None:
    one = Columns()
    one.adopt(one.chosen(2))
    one.adopt(one.chosen(2, renewed=True))
    assert (one.places, one.leaving) == ((2, 3), {0, 1})
    for column in (0, 1):
        one.free(column)
    assert one.chosen(2, renewed=True) == (0, 1)


def test_a_place_whose_worker_leaves_goes_to_another_column() -> None:
    one = Columns()
    one.adopt(one.chosen(2))
    one.leaving.add(0)
    assert one.chosen(2) == (1, 2)


def test_as_many_as_can_be_configured_can_be_renewed_once() -> None:
    one = Columns()
    one.adopt(one.chosen(WORKERS_MAX))
    one.adopt(one.chosen(WORKERS_MAX, renewed=True))
    assert one.in_use == COLUMNS_MAX
    with pytest.raises(OverflowError, match="128 workers are still there, 64 leave"):
        one.chosen(WORKERS_MAX, renewed=True)


def test_none_are_in_use_before_the_start() -> None:
    assert Columns().in_use == 0
