"""Every message of a start or a run is explained in the docs and met in a test."""

import re
from pathlib import Path

from fastlb import errors
from fastlb.errors import Message, StartError

ROOT = Path(__file__).parents[1]
OPERATIONS = (ROOT / "docs/operations.md").read_text()


def catalogue() -> list[Message]:
    found = [value for value in vars(errors).values() if isinstance(value, Message)]
    return [one for one in found if one.code.startswith("FLB-S")]


def test_each_has_a_row_in_the_docs_with_its_level() -> None:
    rows = re.findall(r"^\| (FLB-S\d+) \| (\w+) \|", OPERATIONS, re.MULTILINE)
    assert sorted(rows) == sorted((one.code, one.level) for one in catalogue())


def test_each_is_met_in_a_test() -> None:
    tests = "".join(
        path.read_text() for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)
    )
    assert [one.code for one in catalogue() if one.code not in tests] == []


def test_errors_met_together_are_one_error_with_all_lines() -> None:
    both = StartError.of_all(
        [
            StartError(errors.NO_SUCH_USER, user="a"),
            StartError.of_all([StartError(errors.NO_SHARED_MEMORY, reason="b")]),
        ]
    )
    assert both.lines == ['[proxy] user: no user "a" on this machine [FLB-S030]', "b [FLB-S023]"]
