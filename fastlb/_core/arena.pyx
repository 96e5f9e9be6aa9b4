# Growing by doubling; contract in arena.pxd.

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy


cdef char* arena_room(Arena* arena, uint32_t count) noexcept nogil:
    cdef uint64_t needed = <uint64_t> arena.used + count
    cdef uint64_t size = arena.size if arena.size else ARENA_FIRST_BYTES
    cdef char* at
    if needed > ARENA_BYTES_MAX:
        return NULL
    while size < needed:
        size *= 2
    if size != arena.size:
        at = <char*> realloc(arena.at, size)
        if at == NULL:
            return NULL
        arena.at = at
        arena.size = <uint32_t> size
    arena.used = <uint32_t> needed
    return arena.at + needed - count


cdef bint arena_add(Arena* arena, const char* text, uint32_t count, Span* span) noexcept nogil:
    cdef char* room = arena_room(arena, count)
    if room == NULL:
        return False
    memcpy(room, text, count)
    span.offset = arena.used - count
    span.bytes = count
    return True


cdef void arena_clear(Arena* arena) noexcept nogil:
    arena.used = 0
    if arena.size > ARENA_KEPT_BYTES:
        arena_free(arena)


cdef void arena_free(Arena* arena) noexcept nogil:
    free(arena.at)
    arena.at = NULL
    arena.used = 0
    arena.size = 0
