# Texts of unknown length one behind the other, in memory that grows and is used again. What is in
# it is named by offset, because growing moves it.

from libc.stdint cimport uint32_t

from fastlb._core.slice cimport Slice, slice_of

cdef enum:
    ARENA_FIRST_BYTES = 1024
    ARENA_KEPT_BYTES = 16 * 1024     # a larger one is given back when it is cleared
    ARENA_BYTES_MAX = 64 * 1024 * 1024

ctypedef struct Span:
    uint32_t offset
    uint32_t bytes

ctypedef struct Arena:               # all zero: empty, and without memory
    char* at
    uint32_t used
    uint32_t size

# Room for `count` bytes at the end, which are counted as used; NULL: no memory, or
# ARENA_BYTES_MAX reached.
cdef char* arena_room(Arena* arena, uint32_t count) noexcept nogil
# False: no memory. The span is written last.
cdef bint arena_add(Arena* arena, const char* text, uint32_t count, Span* span) noexcept nogil
cdef void arena_clear(Arena* arena) noexcept nogil
cdef void arena_free(Arena* arena) noexcept nogil


cdef inline Slice arena_slice(const Arena* arena, Span span) noexcept nogil:
    return slice_of(arena.at + span.offset, span.bytes)
