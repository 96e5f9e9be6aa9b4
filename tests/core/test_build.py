"""The build says what it is, and every module that the tests import is of that one."""

import os
import sys
from importlib import import_module
from pathlib import Path

import fastlb
from fastlb._core import build
from tests.gates.sources import core_modules


def test_the_variant_under_test_is_the_one_asked_for() -> None:
    assert os.environ.get("FASTLB_VARIANT", build.VARIANT) == build.VARIANT
    assert build.DEBUG is (build.VARIANT != "release")


def test_every_module_is_of_one_build() -> None:
    home = Path(fastlb.__file__).parent / "_core"
    for path in core_modules():
        module = import_module(f"fastlb._core.{path.stem}")
        assert Path(str(module.__file__)).parent == home
        assert Path(str(module.__file__)).stat().st_mtime > path.stat().st_mtime, "not built again"


def test_a_sanitizer_build_runs_under_its_library() -> None:
    loaded = Path(f"/proc/{os.getpid()}/maps").read_text()
    assert ("libasan" in loaded) == (build.VARIANT == "sanitize")
    assert sys.flags.optimize == 0, "python -O would drop the tests' assertions"
