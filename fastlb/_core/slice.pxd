# A run of bytes that somebody else owns: pointer and length, never freed here.
# The pointer is valid as long as the buffer that it points into.

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp

ctypedef struct Slice:
    const char* at
    uint32_t bytes


cdef inline Slice slice_of(const char* at, uint32_t count) noexcept nogil:
    cdef Slice s
    s.at = at
    s.bytes = count
    return s


cdef inline bint slice_equal(Slice a, Slice b) noexcept nogil:
    return a.bytes == b.bytes and memcmp(a.at, b.at, a.bytes) == 0


cdef inline char ascii_lower(char c) noexcept nogil:
    return c | 0x20 if c'A' <= c <= c'Z' else c


# `lower` is a lower-case literal; field names and many tokens are ASCII case-insensitive.
cdef inline bint slice_equal_fold(Slice a, const char* lower, uint32_t count) noexcept nogil:
    cdef uint32_t i
    if a.bytes != count:
        return False
    for i in range(count):
        if ascii_lower(a.at[i]) != lower[i]:
            return False
    return True


# Optional white space of RFC 9110 5.6.3: space and horizontal tab.
cdef inline Slice slice_trim(Slice s) noexcept nogil:
    while s.bytes and (s.at[0] == c' ' or s.at[0] == c'\t'):
        s.at += 1
        s.bytes -= 1
    while s.bytes and (s.at[s.bytes - 1] == c' ' or s.at[s.bytes - 1] == c'\t'):
        s.bytes -= 1
    return s
