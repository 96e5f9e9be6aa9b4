# How this build was made; for tests and `fastlb version`.

from fastlb._core.debug cimport FASTLB_DEBUG_BUILD, FASTLB_SANITIZE_BUILD

DEBUG: bool = FASTLB_DEBUG_BUILD != 0
VARIANT: str = "sanitize" if FASTLB_SANITIZE_BUILD else "debug" if DEBUG else "release"
