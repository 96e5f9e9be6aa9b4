"""What a build says of itself."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import fastlb
from fastlb._core import build
from tests.gates.sources import core_modules
from tests.harness.proxy import environment

BUG = "from fastlb._core._testing_build import bug; bug(True); print('still here')"


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True,
        timeout=30, check=False,
    )  # fmt: skip


def test_debug_is_a_truth_value() -> None:
    assert build.DEBUG in (True, False)


def test_assertions_abort_in_debug_builds_and_vanish_in_others() -> None:
    done = run(BUG)
    if build.DEBUG:
        assert done.returncode < 0
        assert "BUG at" in done.stderr
        assert "_testing_build" in done.stderr
    else:
        assert (done.returncode, done.stdout) == (0, "still here\n")


def test_assertions_that_hold_say_nothing() -> None:
    done = run(BUG.replace("bug(True)", "bug(False)"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "still here\n", "")


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
