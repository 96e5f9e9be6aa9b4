"""The words for outcomes and causes, which the log, the status and the docs share."""

import re
from pathlib import Path

from fastlb._core.outcome import cause_names, outcome_names

HEADER = (Path(__file__).parents[2] / "fastlb/_core/outcome.pxd").read_text()


def words(prefix: str) -> list[str]:
    """The names of an enum in words: OUTCOME_NODE_DOWN is node-down."""
    found = re.findall(rf"^    {prefix}_([A-Z_]+)", HEADER, re.MULTILINE)
    return [name.lower().replace("_", "-") for name in found]


def test_each_outcome_has_its_own_word():
    assert outcome_names() == words("OUTCOME")


def test_each_cause_has_its_own_word_and_no_cause_has_none():
    assert cause_names() == ["", *words("CAUSE")[1:]]
