"""The pattern that a monitor's body has to match."""

import pytest

from fastlb.monitor_link import Failed
from fastlb.monitor_match import matches


def test_a_pattern_that_takes_for_ever_is_given_up() -> None:
    with pytest.raises(Failed, match="takes longer than"):
        matches("(a+)+$", b"a" * 60 + b"!")
    assert matches("^gr(e+)n$", b"green")
    assert not matches("green", b"red")
