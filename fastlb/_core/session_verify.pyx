# Structural check of a session cache. Each entry gets a mark for each place it is seen in;
# at the end every used entry must be listed and chained once, or free once.

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset

from fastlb._core.session_shard cimport (
    POOL, SessionEntry, SessionShard, shard_lock, shard_unlock,
)

cdef enum Mark:
    LISTED = 1
    CHAINED = 2
    FREE = 4


cdef int verify_list(SessionCache* cache, SessionShard* shard, uint8_t* marks) noexcept nogil:
    cdef uint32_t entry = shard.head
    cdef uint32_t newer = 0
    cdef uint32_t count = 0
    cdef SessionEntry* e
    if shard.journal_count or shard.spare or shard.gift:
        return VERIFY_UNFINISHED
    while entry:
        if entry > cache.size or count > cache.size:
            return VERIFY_LIST
        e = &cache.entries[entry]
        if marks[entry]:
            return VERIFY_TWICE
        if e.owner != shard.index:
            return VERIFY_OWNER
        if e.newer != newer:
            return VERIFY_LIST
        marks[entry] = LISTED
        newer = entry
        entry = e.older
        count += 1
    if shard.tail != newer:
        return VERIFY_LIST
    return VERIFY_OK if count == shard.entries else VERIFY_COUNT


cdef int verify_chain(SessionCache* cache, uint32_t bucket, uint8_t* marks) noexcept nogil:
    cdef uint32_t entry = cache.buckets[bucket]
    cdef uint32_t other
    cdef SessionEntry* e
    while entry:
        if entry > cache.size:
            return VERIFY_CHAIN
        e = &cache.entries[entry]
        if marks[entry] & CHAINED:
            return VERIFY_TWICE
        if not marks[entry] & LISTED or (<uint32_t>e.key.lo & cache.bucket_mask) != bucket:
            return VERIFY_CHAIN
        if e.owner != 1 + (bucket >> cache.shard_shift):
            return VERIFY_OWNER
        marks[entry] |= CHAINED
        other = cache.buckets[bucket]
        while other != entry:
            if (cache.entries[other].key.lo == e.key.lo
                    and cache.entries[other].key.hi == e.key.hi):
                return VERIFY_KEY
            other = cache.entries[other].chain
        entry = e.chain
    return VERIFY_OK


cdef int verify_pool(SessionCache* cache, uint8_t* marks) noexcept nogil:
    cdef SessionShard* pool = &cache.shards[POOL]
    cdef uint32_t entry = pool.free
    cdef uint32_t count = 0
    if pool.journal_count or pool.spare or pool.gift:
        return VERIFY_UNFINISHED
    while entry:
        if entry >= pool.bump or count > cache.size:
            return VERIFY_LIST
        if marks[entry]:
            return VERIFY_TWICE
        if cache.entries[entry].owner != POOL:
            return VERIFY_OWNER
        marks[entry] = FREE
        entry = cache.entries[entry].chain
        count += 1
    return VERIFY_OK if count == pool.free_count else VERIFY_COUNT


cdef int verify_locked(SessionCache* cache, uint8_t* marks) noexcept nogil:
    cdef uint32_t i
    cdef int result
    memset(marks, 0, <size_t>cache.size + 1)
    for i in range(1, cache.shard_count + 1):
        result = verify_list(cache, &cache.shards[i], marks)
        if result < 0:
            return result
    for i in range(cache.bucket_mask + 1):
        result = verify_chain(cache, i, marks)
        if result < 0:
            return result
    result = verify_pool(cache, marks)
    if result < 0:
        return result
    for i in range(1, cache.shards[POOL].bump):
        if marks[i] == LISTED:
            return VERIFY_CHAIN
        if marks[i] == 0:
            return VERIFY_LEAKED
    return VERIFY_OK


# The one place that holds several shards and waits: allowed, since who holds one shard
# never waits for another.
cdef int session_cache_verify(SessionCache* cache, uint8_t* marks) noexcept nogil:
    cdef uint32_t i
    cdef int result
    for i in range(1, cache.shard_count + 1):
        shard_lock(cache, &cache.shards[i])
    shard_lock(cache, &cache.shards[POOL])
    result = verify_locked(cache, marks)
    shard_unlock(&cache.shards[POOL])
    for i in range(1, cache.shard_count + 1):
        shard_unlock(&cache.shards[i])
    return result
