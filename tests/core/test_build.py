"""What a build says of itself."""

import subprocess
import sys

from fastlb._core import build
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
