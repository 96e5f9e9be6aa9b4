"""What the core's tests have in common."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings

from fastlb._core._testing_decide import World
from fastlb._core.shm import Segment
from tests.core.plans import Class, Setting

# An example's time is the machine's affair, which others may use meanwhile.
settings.register_profile("core", deadline=None)
settings.load_profile("core")


@pytest.fixture
def segment() -> Iterator[Segment]:
    with Segment.create() as made:
        yield made


@pytest.fixture
def make(segment: Segment) -> Callable[..., World]:
    def world(*classes: Class, **more: Any) -> World:
        setting = Setting(classes=list(classes), **more)
        made = setting.world(segment)
        settings[id(made)] = setting
        return made

    settings: dict[int, Setting] = {}
    world.setting = lambda made: settings[id(made)]
    return world
