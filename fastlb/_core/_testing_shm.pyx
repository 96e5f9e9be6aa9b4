# Test-only: bytes of a segment and its locks from Python.

import time

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from fastlb._core.shm cimport (
    Lock, Segment, lock_acquire, lock_init, lock_release, lock_repaired, lock_try,
)

RESULTS = ["ok", "owner-died", "busy"]


def read(Segment segment, uint64_t offset, uint64_t count):
    return (<char*>segment.at(offset))[:count]


def write(Segment segment, uint64_t offset, bytes data):
    memcpy(segment.at(offset), <const char*>data, len(data))


cdef class LockProbe:
    """A lock at an offset of a segment."""

    cdef Lock* lock
    cdef Segment segment

    def __init__(self, Segment segment, uint64_t offset):
        self.lock = <Lock*>segment.at(offset)
        self.segment = segment

    def init(self):
        return lock_init(self.lock)

    def acquire(self):
        cdef int result
        with nogil:
            result = lock_acquire(self.lock)
        return RESULTS[result]

    def try_it(self):
        return RESULTS[lock_try(self.lock)]

    def repaired(self):
        lock_repaired(self.lock)

    def release(self):
        lock_release(self.lock)

    def add_many(self, uint64_t counter_offset, uint32_t times):
        """Adds 1 to a plain 64-bit counter under the lock, `times` times."""
        cdef uint64_t* counter = <uint64_t*>self.segment.at(counter_offset)
        cdef uint32_t _i
        with nogil:
            for _i in range(times):
                if lock_acquire(self.lock) == 1:
                    lock_repaired(self.lock)
                counter[0] = counter[0] + 1
                lock_release(self.lock)

    def pairs(self, uint64_t times):
        """Seconds for `times` uncontended acquire and release."""
        cdef uint64_t _i
        begun = time.perf_counter()
        with nogil:
            for _i in range(times):
                lock_acquire(self.lock)
                lock_release(self.lock)
        return time.perf_counter() - begun
