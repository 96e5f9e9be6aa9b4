# How this build was made; for tests and `fastlb version`.

from fastlb._core.debug cimport FASTLB_DEBUG_BUILD

DEBUG: bool = FASTLB_DEBUG_BUILD != 0
