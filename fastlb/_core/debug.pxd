# Assertions of the core: BUG_ON aborts in debug builds and vanishes in release ones.

cdef extern from "debug.h" nogil:
    void BUG_ON(bint cond) noexcept
    bint likely(bint cond) noexcept
    bint unlikely(bint cond) noexcept
    const int FASTLB_DEBUG_BUILD
    const int FASTLB_SANITIZE_BUILD
