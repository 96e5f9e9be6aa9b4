"""The examples as modules, each imported anew for each test, as beside a configuration."""

import importlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from fastlb import testing
from tests.harness.rules import EXAMPLES

NAMES = sorted(file.stem for file in EXAMPLES.glob("*.py"))


@pytest.fixture(autouse=True)
def empty_tables() -> None:
    testing.reset_shared()


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """`load("canary")` is that example's module."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module
    for name in NAMES:
        sys.modules.pop(name, None)
