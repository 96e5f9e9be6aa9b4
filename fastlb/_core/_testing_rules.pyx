"""The parts of rules that need no worker: arenas; for tests only."""

from libc.string cimport memset

from fastlb._core.arena cimport (
    ARENA_BYTES_MAX, ARENA_FIRST_BYTES, ARENA_KEPT_BYTES, Arena, Span, arena_add, arena_clear,
    arena_free, arena_room, arena_slice,
)

FIRST_BYTES = ARENA_FIRST_BYTES
KEPT_BYTES = ARENA_KEPT_BYTES
BYTES_MAX = ARENA_BYTES_MAX


cdef class Texts:
    """One arena; spans are (offset, bytes)."""

    cdef Arena arena

    def __cinit__(self):
        memset(&self.arena, 0, sizeof(Arena))

    def __dealloc__(self):
        arena_free(&self.arena)

    def add(self, bytes text):
        """The span, or None where there is no room."""
        cdef Span span
        if not arena_add(&self.arena, text, <unsigned> len(text), &span):
            return None
        return (span.offset, span.bytes)

    def room(self, unsigned count):
        return arena_room(&self.arena, count) != NULL

    def at(self, unsigned offset, unsigned count):
        cdef Span span
        span.offset = offset
        span.bytes = count
        return arena_slice(&self.arena, span).at[:count]

    def clear(self):
        arena_clear(&self.arena)

    @property
    def used(self):
        return self.arena.used

    @property
    def size(self):
        return self.arena.size
