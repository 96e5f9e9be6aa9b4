"""FASTLB_TEST_EXAMPLES=10 gives every hypothesis test ten times its examples."""

import os
from typing import Any

import pytest
from hypothesis import settings

TIMES = int(os.environ.get("FASTLB_TEST_EXAMPLES", "1"))
OF_TEST = "_hypothesis_internal_use_settings"  # where @settings leaves what it was given


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if TIMES == 1:
        return
    holders: list[tuple[Any, str]] = []
    for item in items:
        holders.append((getattr(item, "obj", None), OF_TEST))
        holders.append((getattr(item, "cls", None), "settings"))  # a state machine's test case
    for holder, name in dict.fromkeys(holders):
        chosen = getattr(holder, name, None)
        if isinstance(chosen, settings):
            more = settings(chosen, max_examples=TIMES * chosen.max_examples, deadline=None)
            setattr(holder, name, more)
