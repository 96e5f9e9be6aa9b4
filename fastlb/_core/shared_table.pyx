# The tables of rules (contract in shared_table.pxd).
#
# Death at any instruction needs no repair, only stores in the right order: an entry is free while
# `ends` is 0, so it is cleared before key or value change hands and written after them; a count
# is one store of eight bytes. What dies with its writer is an entry on its way in, or one that was
# to be dropped for it.

from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from fastlb._core.debug cimport BUG_ON
from fastlb._core.shm cimport (
    LOCK_OWNER_DIED, compiler_barrier, lock_acquire, lock_init, lock_release, lock_repaired,
)
from fastlb._core.siphash cimport Hash128, hash128_equal, sip_key_load

cdef uint64_t MAGIC = 0x31_4c42_5453_4c46      # "FLSTBL1", little-endian

if sizeof(SharedEntry) != 32 or sizeof(SharedShard) != 64 or sizeof(SharedHeader) != 64:
    raise ImportError("the layout of the tables of rules is not what it is meant to be")


# --- layout -------------------------------------------------------------------------------

cdef uint32_t _buckets(uint32_t size) noexcept nogil:
    return (2 * size + SHARED_WAYS - 1) // SHARED_WAYS


cdef uint32_t _shards(uint32_t buckets) noexcept nogil:
    cdef uint32_t count = 1
    while count < SHARED_SHARDS_MAX and 2 * count <= buckets:
        count *= 2
    return count


cdef uint64_t shared_table_bytes(uint32_t size) noexcept nogil:
    cdef uint64_t buckets
    if size == 0 or size > SHARED_ENTRIES_MAX:
        return 0
    buckets = _buckets(size)
    return (sizeof(SharedHeader) + _shards(<uint32_t> buckets) * sizeof(SharedShard)
            + buckets * SHARED_WAYS * sizeof(SharedEntry))


cdef bint shared_table_format(void* memory, uint64_t count, uint32_t size,
                              const uint8_t* secret16) noexcept nogil:
    cdef SharedHeader* header = <SharedHeader*> memory
    cdef SharedShard* shards = <SharedShard*> (<char*> memory + sizeof(SharedHeader))
    cdef uint64_t needed = shared_table_bytes(size)
    cdef uint32_t i
    if needed == 0 or count < needed:
        return False
    memset(memory, 0, needed)
    header.size = size
    header.bucket_count = _buckets(size)
    header.shard_count = _shards(header.bucket_count)
    memcpy(header.secret, secret16, 16)
    for i in range(header.shard_count):
        if lock_init(&shards[i].lock) < 0:
            return False
    compiler_barrier()
    header.magic = MAGIC
    return True


cdef bint shared_table_open(SharedTable* table, void* memory, uint64_t count) noexcept nogil:
    cdef SharedHeader* header = <SharedHeader*> memory
    cdef char* at = <char*> memory + sizeof(SharedHeader)
    if count < sizeof(SharedHeader) or header.magic != MAGIC:
        return False
    if shared_table_bytes(header.size) == 0 or shared_table_bytes(header.size) > count:
        return False
    table.shards = <SharedShard*> at
    table.entries = <SharedEntry*> (at + header.shard_count * sizeof(SharedShard))
    table.size = header.size
    table.bucket_count = header.bucket_count
    table.shard_mask = header.shard_count - 1
    sip_key_load(&table.key, header.secret)
    return True


# --- one bucket ---------------------------------------------------------------------------

cdef inline uint32_t _bucket(const SharedTable* table, const Hash128* key) noexcept nogil:
    return <uint32_t> (((key.lo >> 32) * table.bucket_count) >> 32)


cdef inline SharedShard* _lock(SharedTable* table, uint32_t bucket) noexcept nogil:
    cdef SharedShard* shard = &table.shards[bucket & table.shard_mask]
    if lock_acquire(&shard.lock) == LOCK_OWNER_DIED:
        lock_repaired(&shard.lock)
    return shard


cdef inline void _unlock(SharedShard* shard) noexcept nogil:
    lock_release(&shard.lock)


# The key's entry that has not ended; NULL: none.
cdef inline SharedEntry* _find(SharedEntry* ways, const Hash128* key, uint64_t now) noexcept nogil:
    cdef int i
    for i in range(SHARED_WAYS):
        if ways[i].key.lo == key.lo and hash128_equal(&ways[i].key, key) and ways[i].ends > now:
            return &ways[i]
    return NULL


# An entry for a key that the bucket does not have, cleared.
cdef SharedEntry* _make_room(SharedShard* shard, SharedEntry* ways, uint64_t now) noexcept nogil:
    cdef SharedEntry* first = &ways[0]
    cdef int i
    for i in range(1, SHARED_WAYS):
        if ways[i].ends < first.ends:
            first = &ways[i]
    if first.ends > now:
        shard.evictions += 1
    first.ends = 0
    compiler_barrier()
    return first


cdef void _enter(SharedEntry* entry, const Hash128* key, int64_t value,
                 uint64_t ends) noexcept nogil:
    BUG_ON(entry.ends != 0)
    entry.key = key[0]
    entry.value = value
    compiler_barrier()
    entry.ends = ends


# --- what rules do ------------------------------------------------------------------------

cdef int shared_table_get(SharedTable* table, const Hash128* key, uint64_t now,
                          int64_t* value) noexcept nogil:
    cdef uint32_t bucket = _bucket(table, key)
    cdef SharedShard* shard = _lock(table, bucket)
    cdef SharedEntry* entry = _find(&table.entries[<uint64_t> bucket * SHARED_WAYS], key, now)
    if entry != NULL:
        value[0] = entry.value
    _unlock(shard)
    return SHARED_NONE if entry == NULL else SHARED_OK


cdef int shared_table_incr(SharedTable* table, const Hash128* key, int64_t by, uint64_t life,
                           uint64_t now, int64_t* value) noexcept nogil:
    cdef uint32_t bucket = _bucket(table, key)
    cdef SharedEntry* ways = &table.entries[<uint64_t> bucket * SHARED_WAYS]
    cdef SharedShard* shard = _lock(table, bucket)
    cdef SharedEntry* entry = _find(ways, key, now)
    cdef int result = SHARED_OK
    if entry == NULL:
        value[0] = by
        _enter(_make_room(shard, ways, now), key, by, shared_end(now, life))
    elif entry.value > INT64_MAX - by if by > 0 else entry.value < INT64_MIN - by:
        result = SHARED_OVERFLOW
    else:
        value[0] = entry.value + by
        entry.value = value[0]
    _unlock(shard)
    return result


cdef void shared_table_set(SharedTable* table, const Hash128* key, int64_t value, uint64_t life,
                           uint64_t now) noexcept nogil:
    cdef uint32_t bucket = _bucket(table, key)
    cdef SharedEntry* ways = &table.entries[<uint64_t> bucket * SHARED_WAYS]
    cdef SharedShard* shard = _lock(table, bucket)
    cdef SharedEntry* entry = _find(ways, key, now)
    if entry == NULL:
        _enter(_make_room(shard, ways, now), key, value, shared_end(now, life))
    else:
        # Who dies between the two leaves the new value with the old end: no entry is lost.
        entry.value = value
        compiler_barrier()
        entry.ends = shared_end(now, life)
    _unlock(shard)


cdef int shared_table_delete(SharedTable* table, const Hash128* key, uint64_t now) noexcept nogil:
    cdef uint32_t bucket = _bucket(table, key)
    cdef SharedShard* shard = _lock(table, bucket)
    cdef SharedEntry* entry = _find(&table.entries[<uint64_t> bucket * SHARED_WAYS], key, now)
    if entry != NULL:
        entry.ends = 0
    _unlock(shard)
    return SHARED_NONE if entry == NULL else SHARED_OK


# --- the whole ----------------------------------------------------------------------------

cdef void _add(SharedTable* table, const SharedEntry* copied, uint64_t now) noexcept nogil:
    cdef uint32_t bucket = _bucket(table, &copied.key)
    cdef SharedEntry* ways = &table.entries[<uint64_t> bucket * SHARED_WAYS]
    cdef SharedShard* shard = _lock(table, bucket)
    if _find(ways, &copied.key, now) == NULL:
        _enter(_make_room(shard, ways, now), &copied.key, copied.value, copied.ends)
    _unlock(shard)


cdef void shared_table_copy(SharedTable* source, SharedTable* target, uint64_t now) noexcept nogil:
    cdef SharedEntry[SHARED_WAYS] ways
    cdef SharedShard* shard
    cdef uint32_t bucket
    cdef int i
    for bucket in range(source.bucket_count):
        shard = _lock(source, bucket)
        memcpy(ways, &source.entries[<uint64_t> bucket * SHARED_WAYS], sizeof(ways))
        _unlock(shard)
        for i in range(SHARED_WAYS):
            if ways[i].ends > now:
                _add(target, &ways[i], now)


cdef void shared_table_stats(SharedTable* table, uint64_t now, SharedStats* stats) noexcept nogil:
    cdef uint64_t i
    cdef uint32_t shard
    memset(stats, 0, sizeof(SharedStats))
    for i in range(<uint64_t> table.bucket_count * SHARED_WAYS):
        stats.entries += table.entries[i].ends > now
    for shard in range(table.shard_mask + 1):
        stats.evictions += table.shards[shard].evictions
