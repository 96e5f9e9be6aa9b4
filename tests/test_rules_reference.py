"""The reference of rules is what their docstrings say."""

import sys

import pytest

from tests.harness.rules import ROOT

sys.path.insert(0, str(ROOT / "ci"))

import rules_reference


def test_it_is_up_to_date() -> None:
    page = rules_reference.page()
    assert page == rules_reference.PAGE.read_text(), "python ci/rules_reference.py renews it"


def test_every_public_name_is_explained() -> None:
    for place in rules_reference.PUBLIC.values():
        file = ROOT / place
        known = rules_reference.definitions(file, set())
        names = rules_reference.exported(file)
        assert len(names) > 3
        assert [name for name in names if not rules_reference.text_of(known[name])] == []


@pytest.mark.parametrize("name", ["Connection", "Request", "Response"])
def test_every_attribute_is_explained(name: str) -> None:
    known = rules_reference.definitions(ROOT / "fastlb/rules.py", set())
    rows = list(rules_reference.attributes(known[name]))
    assert rows
    assert [row for row in rows if row.endswith("|  |")] == []
