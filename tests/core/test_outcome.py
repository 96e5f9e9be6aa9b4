"""Names of outcomes, places and causes."""

import re

import pytest

from fastlb._core import _testing_parts as core
from fastlb._core.outcome import cause_names, outcome_names


@pytest.mark.parametrize("which", ["outcome", "found_in", "cause"])
def test_every_number_has_a_word_of_its_own(which: str) -> None:
    names = core.names(which)
    assert names[:2] == names[-2:] == ["unknown", "unknown"]
    inner = names[2:-2]
    assert len(set(inner)) == len(inner)
    assert all(re.fullmatch(r"[a-z][a-z0-9]*(-[a-z]+)*", name) for name in inner if name)
    assert inner.count("") == (1 if which == "cause" else 0)


def test_the_lists_are_the_same_words() -> None:
    assert outcome_names() == core.names("outcome")[2:-2]
    assert cause_names() == core.names("cause")[2:-2]
    assert cause_names()[0] == ""


def test_words_that_operators_know() -> None:
    assert {"new", "hit", "expired", "tampered", "other-class", "node-down", "draining",
            "moved"} <= set(outcome_names())  # fmt: skip
