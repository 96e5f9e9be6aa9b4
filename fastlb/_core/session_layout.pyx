# The layout of a session cache in memory: its size, making an empty one, opening one.

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from fastlb._core.limits cimport (
    CACHE_EXACT_MAPS_MAX, CACHE_LINE_BYTES, SESSION_MAPS_MAX, SESSION_MAPS_PER_SHARD,
    SESSION_SHARDS_MAX,
)
from fastlb._core.session_shard cimport SessionEntry, SessionShard
from fastlb._core.shm cimport compiler_barrier, lock_init, shm_word

cdef enum:
    LAYOUT_VERSION = 1
    BUCKETS_MIN = 64

cdef uint64_t MAGIC = 0x45484341_434c5346      # "FSLCACHE", little-endian


ctypedef struct CacheHeader:         # constant once `magic` is written; padded to two lines
    uint64_t magic
    uint32_t version
    uint32_t size
    uint32_t shard_count
    uint32_t bucket_count


cdef uint32_t power_of_two_from(uint32_t count) noexcept nogil:
    cdef uint32_t power = 1
    while power < count:
        power *= 2
    return power


cdef uint32_t shards_for(uint32_t size) noexcept nogil:
    cdef uint32_t shards = 1
    if size <= CACHE_EXACT_MAPS_MAX:
        return 1
    while shards < SESSION_SHARDS_MAX and size // (2 * shards) >= SESSION_MAPS_PER_SHARD:
        shards *= 2
    return shards


# At least two buckets per map: with fewer a miss walks more chains, with more the index
# leaves the processor's caches sooner (measured in benchmarks/session_cache.py).
cdef uint32_t buckets_for(uint32_t size) noexcept nogil:
    cdef uint32_t buckets = power_of_two_from(2 * size)
    return buckets if buckets > BUCKETS_MIN else BUCKETS_MIN


cdef uint64_t shards_offset() noexcept nogil:
    return 2 * CACHE_LINE_BYTES


cdef uint64_t buckets_offset(uint32_t shards) noexcept nogil:
    return shards_offset() + <uint64_t>(shards + 1) * sizeof(SessionShard)


cdef uint64_t entries_offset(uint32_t shards, uint32_t buckets) noexcept nogil:
    return buckets_offset(shards) + <uint64_t>buckets * sizeof(uint32_t)


cdef uint64_t session_cache_bytes(uint32_t size) noexcept nogil:
    if size == 0 or size > SESSION_MAPS_MAX:
        return 0
    return (entries_offset(shards_for(size), buckets_for(size))
            + (<uint64_t>size + 1) * sizeof(SessionEntry))


cdef int session_cache_format(void* memory, uint64_t count, uint32_t size) noexcept nogil:
    cdef CacheHeader* header = <CacheHeader*>memory
    cdef SessionShard* shard
    cdef uint64_t needed = session_cache_bytes(size)
    cdef uint32_t i
    if needed == 0 or needed > count:
        return CACHE_BAD_SIZE
    memset(memory, 0, entries_offset(shards_for(size), buckets_for(size)))
    header.version = LAYOUT_VERSION
    header.size = size
    header.shard_count = shards_for(size)
    header.bucket_count = buckets_for(size)
    for i in range(header.shard_count + 1):
        shard = <SessionShard*>(<char*>memory + shards_offset()) + i
        if lock_init(&shard.lock) < 0:
            return CACHE_BAD_MEMORY
        shard.index = i
        shard.bump = 1
        shard.granule = 1
        shard.next_tail = i
    compiler_barrier()
    header.magic = MAGIC
    return 0


cdef int session_cache_open(SessionCache* cache, void* memory, uint64_t count) noexcept nogil:
    cdef CacheHeader* header = <CacheHeader*>memory
    cdef char* base = <char*>memory
    cdef uint32_t per_shard
    if count < 2 * CACHE_LINE_BYTES or header.magic != MAGIC:
        return CACHE_BAD_MEMORY
    if header.version != LAYOUT_VERSION or session_cache_bytes(header.size) > count:
        return CACHE_BAD_MEMORY
    if (header.shard_count != shards_for(header.size)
            or header.bucket_count != buckets_for(header.size)):
        return CACHE_BAD_MEMORY
    cache.words = <shm_word*>memory
    cache.shards = <SessionShard*>(base + shards_offset())
    cache.buckets = <uint32_t*>(base + buckets_offset(header.shard_count))
    cache.entries = <SessionEntry*>(base + entries_offset(header.shard_count, header.bucket_count))
    cache.size = header.size
    cache.shard_count = header.shard_count
    cache.bucket_mask = header.bucket_count - 1
    per_shard = header.bucket_count // header.shard_count
    cache.shard_shift = 0
    while per_shard > 1:
        per_shard //= 2
        cache.shard_shift += 1
    cache.exact = header.shard_count == 1
    return 0
