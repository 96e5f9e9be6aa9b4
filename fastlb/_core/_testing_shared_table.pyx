# Test-only: shared tables from Python with a clock of the test's own, and what a process does that
# is to be killed in the middle of it. Keys are plain numbers.

import time

from libc.signal cimport SIGSTOP, raise_
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastlb._core.shared_table cimport (
    SHARED_NEVER, SHARED_OK, SHARED_OVERFLOW, SharedStats, SharedTable, shared_table_bytes,
    shared_table_copy, shared_table_delete, shared_table_format, shared_table_get,
    shared_table_incr, shared_table_open, shared_table_set, shared_table_stats, SHARED_WAYS,
)
from fastlb._core.shm cimport REGION_BYTES, Segment
from fastlb._core.siphash cimport Hash128

NEVER = SHARED_NEVER
WAYS = SHARED_WAYS
OVERFLOW = "overflow"
cdef uint32_t OWNER_DIED = 0x40000000      # in a robust mutex's word, beside the owner's id
cdef uint32_t OWNER_ID = 0x3fffffff


cdef inline uint64_t _mixed(uint64_t x) noexcept nogil:
    x += <uint64_t> 0x9e3779b97f4a7c15
    x = (x ^ (x >> 30)) * <uint64_t> 0xbf58476d1ce4e5b9
    x = (x ^ (x >> 27)) * <uint64_t> 0x94d049bb133111eb
    return x ^ (x >> 31)


cdef inline Hash128 _key(uint64_t number) noexcept nogil:
    cdef Hash128 key
    key.lo = _mixed(number)
    key.hi = _mixed(~number)
    return key


cdef class Probe:
    """A shared table in a region of a segment."""

    cdef SharedTable table
    cdef Segment segment
    cdef char* memory
    cdef readonly uint64_t count

    def __init__(self, Segment segment, str name, uint32_t size):
        cdef bytes secret = bytes(range(16))
        self.segment = segment
        self.count = shared_table_bytes(size)
        if not self.count:
            raise ValueError(size)
        self.memory = <char*> segment.at(segment.allocate(name, REGION_BYTES, self.count))
        if not shared_table_format(self.memory, self.count, size, <const uint8_t*> <char*> secret):
            raise ValueError("format")
        if not shared_table_open(&self.table, self.memory, self.count):
            raise ValueError("open")

    @staticmethod
    def opens(Segment segment, uint64_t offset, uint64_t count):
        cdef SharedTable table
        return shared_table_open(&table, segment.at(offset), count)

    @staticmethod
    def bytes_for(uint32_t size):
        return shared_table_bytes(size)

    def get(self, uint64_t number, uint64_t now):
        cdef Hash128 key = _key(number)
        cdef int64_t value = 0
        return value if shared_table_get(&self.table, &key, now, &value) == SHARED_OK else None

    def incr(self, uint64_t number, int64_t by, uint64_t life, uint64_t now):
        cdef Hash128 key = _key(number)
        cdef int64_t value = 0
        if shared_table_incr(&self.table, &key, by, life, now, &value) == SHARED_OVERFLOW:
            return OVERFLOW
        return value

    def set(self, uint64_t number, int64_t value, uint64_t life, uint64_t now):
        cdef Hash128 key = _key(number)
        shared_table_set(&self.table, &key, value, life, now)

    def delete(self, uint64_t number, uint64_t now):
        cdef Hash128 key = _key(number)
        return shared_table_delete(&self.table, &key, now) == SHARED_OK

    def copy_to(self, Probe other, uint64_t now):
        shared_table_copy(&self.table, &other.table, now)

    def stats(self, uint64_t now):
        cdef SharedStats stats
        shared_table_stats(&self.table, now, &stats)
        return stats.entries, stats.evictions

    def entries(self, uint64_t now):
        """{key's hash: (value, end)}"""
        cdef uint64_t i
        rows = {}
        for i in range(<uint64_t> self.table.bucket_count * SHARED_WAYS):
            entry = &self.table.entries[i]
            if entry.ends > now:
                key = (<char*> &entry.key)[:16]
                if key in rows:
                    raise AssertionError("a key twice")
                rows[key] = (entry.value, entry.ends)
        return rows

    # ---- dying ----

    def snapshot(self):
        return self.memory[:self.count]

    def overwrite(self, bytes image):
        memcpy(self.memory, <const char*> image, self.count)

    def end_process(self, uint32_t pid):
        """Does to this memory's locks what the kernel does when `pid` dies; how many."""
        cdef uint32_t* word
        cdef uint32_t i
        marked = 0
        for i in range(self.table.shard_mask + 1):
            word = <uint32_t*> &self.table.shards[i].lock
            if word[0] & OWNER_ID == pid:
                word[0] = OWNER_DIED
                marked += 1
        return marked

    def between_stops(self, str name, uint64_t number, int64_t value, uint64_t life,
                      uint64_t now):
        """One operation with a SIGSTOP just before and just after it, for a tracer."""
        cdef Hash128 key = _key(number)
        cdef int64_t found = 0
        cdef int what = ["incr", "set", "delete", "get"].index(name)
        with nogil:
            raise_(SIGSTOP)
            if what == 0:
                shared_table_incr(&self.table, &key, value, life, now, &found)
            elif what == 1:
                shared_table_set(&self.table, &key, value, life, now)
            elif what == 2:
                shared_table_delete(&self.table, &key, now)
            else:
                shared_table_get(&self.table, &key, now, &found)
            raise_(SIGSTOP)

    def hammer(self, uint64_t acks_offset, uint32_t worker, uint64_t keys, uint64_t times):
        """Counts keys 0 … keys-1 in turn, `times` times, and notes how many it has done."""
        cdef uint64_t* acks = <uint64_t*> self.segment.at(acks_offset) + worker
        cdef uint64_t i
        cdef int64_t value = 0
        cdef Hash128 key
        with nogil:
            for i in range(times):
                key = _key(i % keys)
                shared_table_incr(&self.table, &key, 1, SHARED_NEVER, 1, &value)
                acks[0] += 1

    def speed(self, uint64_t keys, uint64_t times):
        """CPU nanoseconds of one incr without Python."""
        cdef uint64_t i
        cdef int64_t value = 0
        cdef Hash128 key
        begun = time.thread_time_ns()
        with nogil:
            for i in range(times):
                key = _key(i % keys)
                shared_table_incr(&self.table, &key, 1, 60000, 1, &value)
        return (time.thread_time_ns() - begun) / times
