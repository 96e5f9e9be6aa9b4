# The shards of a session cache: locks, LRU lists, journals, and the hand-over of entries.
# What a key, an expiry or a statistic means is session_cache's; here entries are numbers.
#
#   header | shard 0 = pool | shard 1 … shard_count | buckets | entries 0 (unused) … size
#
#   pool     free ───> entry ───> entry            bump: entries from here on are untouched
#   shard n  head <──> entry <──> … <──> tail      most to least recently used
#   bucket   entry ───> entry                      chain of one hash; a bucket has one shard
#
# Everything refers to entries by their number, 0 is none: the same memory may lie at
# another address in every process.
#
# An entry has one owner, the pool or a shard, named in the entry. A shard's entries are
# all in its list and in a chain, but for at most two: `gift` is leaving, `spare` arrives.
# The head comment of session_shard.pyx says why a process may die at any instruction.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fastlb._core.limits cimport SESSION_JOURNAL_WORDS
from fastlb._core.shm cimport Lock, lock_acquire, lock_release, lock_try, shm_word
from fastlb._core.siphash cimport Hash128

cdef enum:
    POOL = 0                         # index and owner number of the pool


# One cache line. Written under the owner's lock; `owner` alone is read without it.
ctypedef struct SessionEntry:
    Hash128 key                      # of the session key, which is stored nowhere
    uint8_t[16] ip                   # the node's, as in Address
    uint16_t port
    uint16_t owner                   # POOL or a shard's index; decides a hand-over
    uint32_t newer                   # towards head
    uint32_t older                   # towards tail
    uint32_t chain                   # next in the bucket's chain, or in the pool's free list
    uint32_t used_at                 # tick of the last use
    uint32_t listed_at               # tick of the last move to the head
    uint32_t created_at              # tick
    uint32_t deadline                # tick at which the map ends whatever its use; 0: none


ctypedef struct JournalWord:
    uint32_t at                      # index of a 32-bit word from the cache's begin
    uint32_t value                   # what it becomes


# All fields under `lock`; the pool is shard 0 and uses free, bump and free_count.
ctypedef struct SessionShard:
    Lock lock
    uint32_t head                    # most recently used
    uint32_t tail
    uint32_t granule                 # ticks that a listed_at may lag behind used_at
    uint32_t journal_count           # words to apply; 0: none. Setting it is the commit
    # second cache line
    uint64_t hits
    uint64_t misses
    uint64_t expiries
    uint64_t evictions
    uint32_t entries                 # in the list
    uint32_t spare                   # arriving entry; counts only while its owner is this shard
    uint32_t gift                    # leaving entry; counts only while its owner is this shard
    uint32_t free                    # head of the free list
    uint32_t free_count              # entries in the free list
    uint32_t bump                    # first entry that was never used
    uint32_t next_tail               # shard whose tail is compared next
    uint32_t index                   # of this shard; constant
    # third to fifth
    JournalWord[SESSION_JOURNAL_WORDS] journal


# A process's own handle: pointers into the cache, all constant once it is open.
ctypedef struct SessionCache:
    shm_word* words                  # the cache's begin as an array of words
    SessionShard* shards             # shard_count + 1; the first is the pool
    uint32_t* buckets
    SessionEntry* entries            # size + 1; the first is not used
    uint32_t size                    # maps
    uint32_t shard_count             # without the pool
    uint32_t bucket_mask
    uint32_t shard_shift             # bucket >> shard_shift is its shard's index - 1
    bint exact                       # every hit goes to the head


cdef void shard_repair(SessionCache* cache, SessionShard* shard) noexcept nogil


cdef inline void shard_lock(SessionCache* cache, SessionShard* shard) noexcept nogil:
    if lock_acquire(&shard.lock) != 0:
        shard_repair(cache, shard)


# False: somebody else holds it.
cdef inline bint shard_try(SessionCache* cache, SessionShard* shard) noexcept nogil:
    cdef int result = lock_try(&shard.lock)
    if result == 0:
        return True
    if result == 1:
        shard_repair(cache, shard)
        return True
    return False


cdef inline void shard_unlock(SessionShard* shard) noexcept nogil:
    lock_release(&shard.lock)


# Lock order: one shard, then at most one other by shard_try, then the pool. Nobody ever
# waits for a shard while holding one, so nothing can wait in a circle.
# Each function below is made whole or not at all, whenever its process dies.

# Moves a listed entry that is not the head to the head. Lock: shard.
cdef void shard_to_front(SessionCache* cache, SessionShard* shard, uint32_t entry) noexcept nogil
# Unlists an entry, which becomes the shard's gift (leaves) or its spare (is used again).
cdef void shard_take_out(
    SessionCache* cache, SessionShard* shard, uint32_t entry, bint spare
) noexcept nogil
# Lists the shard's spare, whose fields are all written, at the head of list and chain.
cdef void shard_put_in(SessionCache* cache, SessionShard* shard) noexcept nogil
# Gives a listed entry another address, birth and deadline.
cdef void shard_rewrite(
    SessionCache* cache, SessionShard* shard, uint32_t entry,
    const uint8_t* ip, uint16_t port, uint32_t created_at, uint32_t deadline,
) noexcept nogil
# The gift of one shard becomes the spare of another. Locks: both.
cdef void shard_hand_over(
    SessionCache* cache, SessionShard* source, SessionShard* target
) noexcept nogil
# The shard's gift becomes free. Locks: shard; takes the pool's.
cdef void pool_take_back(SessionCache* cache, SessionShard* shard) noexcept nogil
# A free entry becomes the shard's spare; False: none is free. Locks: shard; takes the pool's.
cdef bint pool_serve(SessionCache* cache, SessionShard* shard) noexcept nogil
# Without a lock, so it may be out of date at once.
cdef bint pool_seems_empty(SessionCache* cache) noexcept nogil
