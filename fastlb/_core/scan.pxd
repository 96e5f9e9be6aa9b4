# Byte scanners: where a run of allowed bytes ends. Which bytes, and why, is in scan.h.
#
# All take `base` <= `p` <= `end`: [base, end) may be read, [p, end) is searched. They return the
# first byte that is not allowed, or `end`. The *_plain and *_avx2 versions give the same results.

cdef extern from "scan.h" nogil:
    const char* scan_name(const char* base, const char* p, const char* end) noexcept
    const char* scan_value(const char* base, const char* p, const char* end) noexcept
    const char* scan_target(const char* base, const char* p, const char* end) noexcept
    const char* scan_pair(const char* base, const char* p, const char* end) noexcept
