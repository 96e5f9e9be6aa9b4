"""A short soak with every suite, and one of fifteen minutes with the deep tests."""

import time

import pytest

from .run import soak


@pytest.mark.parametrize(
    ("seconds", "seed"), [(10, 1), pytest.param(900, int(time.time()), marks=pytest.mark.deep)]
)
def test_whatever_happens_nobody_loses_a_session_and_nothing_leaks(seconds, seed):
    report = soak(seconds, seed)
    print(report.text())
    assert report.violations == [], report.text()
    assert report.requests > 50 * seconds
