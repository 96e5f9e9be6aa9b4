# Short texts that are inserted into heads, put together in the worker's scratch memory.
# What stands there is valid until the next message is edited.

from libc.stdint cimport uint32_t
from libc.string cimport memcpy

from fastlb._core.connection cimport SCRATCH_BYTES, Worker
from fastlb._core.slice cimport Slice


cdef inline char* scratch_at(Worker* w) noexcept nogil:
    return w.scratch + w.scratch_used


# False when there is no room; nothing is written then.
cdef inline bint scratch_add(Worker* w, const char* text, uint32_t count) noexcept nogil:
    if count > SCRATCH_BYTES - w.scratch_used:
        return False
    memcpy(w.scratch + w.scratch_used, text, count)
    w.scratch_used += count
    return True


cdef inline bint scratch_add_slice(Worker* w, Slice text) noexcept nogil:
    return scratch_add(w, text.at, text.bytes)


cdef inline bint scratch_add_number(Worker* w, unsigned long long value) noexcept nogil:
    cdef char[20] digits
    cdef int at = 20
    while True:
        at -= 1
        digits[at] = <char> (c'0' + value % 10)
        value //= 10
        if value == 0:
            break
    return scratch_add(w, digits + at, <uint32_t> (20 - at))
