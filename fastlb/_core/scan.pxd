# Byte scanners: where a run of allowed bytes ends. Which bytes, and why, is in scan.h.
#
# All take `base` <= `p` <= `end`: [base, end) may be read, [p, end) is searched. They return the
# first byte that is not allowed, or `end`. All versions of one give the same results.

cdef extern from "scan.h" nogil:
    enum:
        BYTE_TOKEN
        BYTE_VALUE
        BYTE_TARGET
        BYTE_PAIR
        BYTE_REG_NAME
        BYTE_HEX
        BYTE_QUOTED

    bint byte_is(char c, int classes) noexcept
    bint scan_has_avx2() noexcept

    const char* scan_name(const char* base, const char* p, const char* end) noexcept
    const char* scan_value(const char* base, const char* p, const char* end) noexcept
    const char* scan_target(const char* base, const char* p, const char* end) noexcept
    const char* scan_pair(const char* base, const char* p, const char* end) noexcept

    # For tests and benchmarks.
    const char* scan_name_plain(const char* base, const char* p, const char* end) noexcept
    const char* scan_value_plain(const char* base, const char* p, const char* end) noexcept
    const char* scan_target_plain(const char* base, const char* p, const char* end) noexcept
    const char* scan_pair_plain(const char* base, const char* p, const char* end) noexcept
    const char* scan_name_sse2(const char* base, const char* p, const char* end) noexcept
    const char* scan_value_sse2(const char* base, const char* p, const char* end) noexcept
    const char* scan_target_sse2(const char* base, const char* p, const char* end) noexcept
    const char* scan_pair_sse2(const char* base, const char* p, const char* end) noexcept

    ctypedef struct ValueStops:
        const char* base
        const char* block
        const char* end

    # The stops of scan_value, for many values in a row. `p` never decreases from call to call.
    void stops_begin(
        ValueStops* stops, const char* base, const char* p, const char* end
    ) noexcept
    const char* stops_next(ValueStops* stops, const char* p) noexcept
