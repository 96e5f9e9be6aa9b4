"""An assertion to fail on purpose; for tests only."""

from fastlb._core.debug cimport BUG_ON


def bug(bint wrong):
    BUG_ON(wrong)
