# Counters that rules share over all workers: from the hash of a table's name and a key to a number
# that ends at some time, in one region of the segment. All functions may be called by any process
# at any time, and a process may die in any of them.
#
#   header | shard 0 … shard_count - 1 | buckets of SHARED_WAYS entries each
#
# A key has one bucket. A full one drops the entry that ends first; entries without an end go last.
# There is room for twice as many entries as were asked for, so that few buckets are full before
# the table is.
#
# Times are milliseconds of CLOCK_BOOTTIME, as `now`.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from fastlb._core.shm cimport Lock
from fastlb._core.siphash cimport Hash128, SipKey

cdef enum:
    SHARED_WAYS = 16
    SHARED_SHARDS_MAX = 64
    SHARED_ENTRIES_MAX = 16777216

cdef enum SharedResult:
    SHARED_NONE = 0                  # get, delete: there is none
    SHARED_OK = 1
    SHARED_OVERFLOW = -1             # the sum is no 64-bit number; nothing was changed

# Written under the shard's lock. `ends` is the commit: cleared first, written last.
ctypedef struct SharedEntry:
    Hash128 key
    int64_t value
    uint64_t ends                    # 0: free; SHARED_NEVER: by eviction only

ctypedef struct SharedShard:         # a cache line
    Lock lock
    uint64_t evictions               # of entries that had not ended
    uint64_t padding

ctypedef struct SharedHeader:
    uint64_t magic
    uint32_t size                    # entries, as asked for
    uint32_t bucket_count
    uint32_t shard_count             # a power of two
    uint32_t padding
    uint8_t[16] secret               # of the hash of keys
    uint8_t[24] unused

# A process's own handle, constant once it is open.
ctypedef struct SharedTable:
    SharedShard* shards
    SharedEntry* entries
    SipKey key
    uint32_t size
    uint32_t bucket_count
    uint32_t shard_mask

ctypedef struct SharedStats:
    uint64_t entries                 # that have not ended
    uint64_t evictions

cdef extern from * nogil:
    """
    #define SHARED_NEVER UINT64_MAX
    """
    const uint64_t SHARED_NEVER

# Memory that a table of `size` entries takes; 0: no such table.
cdef uint64_t shared_table_bytes(uint32_t size) noexcept nogil
# Makes an empty table in zeroed, aligned memory. False: too little of it, or no locks.
cdef bint shared_table_format(void* memory, uint64_t count, uint32_t size,
                              const uint8_t* secret16) noexcept nogil
# False: no table of this version.
cdef bint shared_table_open(SharedTable* table, void* memory, uint64_t count) noexcept nogil

cdef int shared_table_get(SharedTable* table, const Hash128* key, uint64_t now,
                          int64_t* value) noexcept nogil
# A new entry begins at 0 and lives `life`; one that is there keeps its end.
cdef int shared_table_incr(SharedTable* table, const Hash128* key, int64_t by, uint64_t life,
                           uint64_t now, int64_t* value) noexcept nogil
cdef void shared_table_set(SharedTable* table, const Hash128* key, int64_t value, uint64_t life,
                           uint64_t now) noexcept nogil
cdef int shared_table_delete(SharedTable* table, const Hash128* key, uint64_t now) noexcept nogil
# Puts all entries of one into another one, which has the same secret; those that it has stay.
cdef void shared_table_copy(SharedTable* source, SharedTable* target, uint64_t now) noexcept nogil
cdef void shared_table_stats(SharedTable* table, uint64_t now, SharedStats* stats) noexcept nogil


cdef inline uint64_t shared_end(uint64_t now, uint64_t life) noexcept nogil:
    return SHARED_NEVER if life >= SHARED_NEVER - now else now + life
