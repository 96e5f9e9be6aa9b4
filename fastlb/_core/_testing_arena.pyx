"""One mapping whose last page has no access rights; inputs of tests are put right before it."""

from libc.string cimport memcpy, memset
from posix.mman cimport (
    MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_NONE, PROT_READ, PROT_WRITE, mmap, mprotect,
)

cdef enum:
    PAGE_BYTES = 4096
    ARENA_BYTES = 64 * PAGE_BYTES

cdef char* arena = NULL


cdef int _arena_open() except -1:
    global arena
    cdef void* mapped = mmap(
        NULL, ARENA_BYTES + PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0
    )
    if mapped == MAP_FAILED:
        raise MemoryError("no memory for the test arena")
    if mprotect(<char*>mapped + ARENA_BYTES, PAGE_BYTES, PROT_NONE) != 0:
        raise OSError("mprotect failed")
    arena = <char*>mapped
    return 0


cdef const char* arena_place(const char* data, size_t count) except NULL:
    if arena == NULL:
        _arena_open()
    if count > ARENA_BYTES - PAGE_BYTES:
        raise ValueError("too much for the test arena")
    # What is read before the input must not depend on the last test.
    memset(arena + ARENA_BYTES - count - 64, 0xcc, 64)
    memcpy(arena + ARENA_BYTES - count, data, count)
    return arena + ARENA_BYTES - count
