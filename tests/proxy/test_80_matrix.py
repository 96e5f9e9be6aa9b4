"""Every persistence method in every situation: the table, and that it is whole."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .matrix.methods import METHODS, Method
from .matrix.situations import SITUATIONS
from .matrix.stage import Situation, Stage, stage
from .matrix.table import CELLS, REASONS, WANTED, reason

BY_NAME = {method.name: method for method in METHODS}


@pytest.fixture(scope="module")
def method(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """The proxy of one method, for all its situations."""
    row: Method = BY_NAME[request.param]  # a name: one proxy for all cells that have it
    told = [one for one in SITUATIONS if reason(row, one) is None]
    with stage(row, told, tmp_path_factory.mktemp(row.slug)) as running:
        yield running


@pytest.mark.parametrize(
    ("method", "situation"),
    [(method.name, situation) for method, situation in CELLS],
    indirect=["method"],
    scope="module",
    ids=[f"{method.name}-{situation.name}" for method, situation in CELLS],
)
def test_cell(method: Stage, situation: Situation) -> None:
    situation.story(method.slots[situation.name])


def test_no_cell_is_left_out() -> None:
    every = {(method.name, one.name) for method in METHODS for one in SITUATIONS}
    told = {(method.name, one.name) for method, one in CELLS}
    declared = {
        (method.name, one.name)
        for method in METHODS
        for one in SITUATIONS
        if reason(method, one) is not None
    }
    assert len(told) == len(CELLS), "two cells of one name"
    assert len(told) + len(declared) == len(every)
    assert told | declared == every


def test_every_type_has_a_row() -> None:
    """`ssl` is of TLS: a situation of it begins with a handshake."""
    from fastlb.config import CLASS_TYPES

    assert {method.keys["type"] for method in METHODS} == set(CLASS_TYPES) - {"ssl"}


def test_every_situation_of_the_issue_has_a_column() -> None:
    assert set(WANTED.values()) <= {one.name for one in SITUATIONS}


def test_every_reason_is_needed() -> None:
    """A reason that meets no cell hides that a name has changed."""
    for methods, situations in REASONS:
        assert any(re.fullmatch(methods, method.name) for method in METHODS), methods
        assert any(re.fullmatch(situations, one.name) for one in SITUATIONS), situations


def test_the_table_in_the_docs_has_the_same_situations() -> None:
    page = Path(__file__).parents[2] / "docs/internals/decisions.md"
    rows = [line.split("|")[1].strip() for line in page.read_text().splitlines() if "|" in line]
    assert rows == ["situation", "---", *(one.name for one in SITUATIONS)]
