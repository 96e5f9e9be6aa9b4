# Session caches: a bounded store of session maps, from the hash of a key to a node's
# address, in shared memory. All functions may be called by any process at any time.
#
# Time is `now` in ticks of TICK_MS since an epoch that all processes share; ages up to
# 2^31 ticks (6.8 years) are told apart. Made and opened by session_layout.
#
# Order: caches of up to CACHE_EXACT_MAPS_MAX maps are one shard and drop exactly the
# least recently used map. Larger ones drop one whose last use is at most about 1/32 of
# the oldest map's age later (measured: docs/internals/session-cache.md).

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from fastlb._core.address cimport Address
from fastlb._core.session_shard cimport SessionCache
from fastlb._core.shm cimport prefetch
from fastlb._core.siphash cimport Hash128

cdef enum CacheResult:
    CACHE_MISS = 0                   # look-up, delete: no such map
    CACHE_HIT = 1                    # look-up, claim: a live map; delete: removed
    CACHE_EXPIRED = 2                # look-up: there was one; it is removed if this was a use
    CACHE_NEW = 3                    # store, claim: a new map
    CACHE_MOVED = 4                  # store: the map was another node's
    CACHE_SAME = 5                   # store: the map was this node's already
    CACHE_FULL = -1                  # not stored: every shard stayed locked


ctypedef struct SessionMap:          # a copy for the caller
    Hash128 key
    Address address
    uint32_t used_at                 # ticks, before this use
    uint32_t created_at
    uint32_t deadline                # 0: none


ctypedef struct CacheStats:
    uint32_t entries
    uint32_t size
    uint32_t oldest                  # ticks since the least recently used map was used; 0: empty
    uint64_t hits
    uint64_t misses                  # look-ups that found nothing; an expiry is not a miss
    uint64_t expiries
    uint64_t evictions


# MISS, HIT or EXPIRED. A hit fills `found`, and with `renew` counts as a use.
# `expiry`: ticks since the last use after which a map is dead; 0: never.
cdef int session_cache_lookup(
    SessionCache* cache, const Hash128* key, uint32_t now, uint32_t expiry, bint renew,
    SessionMap* found,
) noexcept nogil
# NEW, MOVED or SAME; a use in any case. `previous` (may be NULL): filled when MOVED.
cdef int session_cache_store(
    SessionCache* cache, const Hash128* key, const Address* address, uint32_t now,
    uint32_t deadline, SessionMap* previous,
) noexcept nogil
# HIT: another one was first, its map is in `found` and was renewed. NEW: stored.
cdef int session_cache_claim(
    SessionCache* cache, const Hash128* key, const Address* address, uint32_t now,
    uint32_t expiry, uint32_t deadline, SessionMap* found,
) noexcept nogil
# HIT (removed) or MISS. With `only` (may be NULL) just a map of that address is removed.
cdef int session_cache_delete(
    SessionCache* cache, const Hash128* key, const Address* only
) noexcept nogil
# Removes every map that was there at the call; returns how many.
cdef uint64_t session_cache_flush(SessionCache* cache) noexcept nogil

# The first map from `cursor` on (begin with 0), which moves past it; False at the end.
# A map that is there during the whole walk is seen exactly once.
cdef bint session_cache_next(
    SessionCache* cache, uint32_t* cursor, SessionMap* found
) noexcept nogil
# Copies one shard's maps, least recently used first; returns the count, at most `room`.
# Holds the shard's lock meanwhile: for exact caches, whose order only the list knows.
cdef uint32_t session_cache_copy_list(
    SessionCache* cache, uint32_t shard, SessionMap* maps, uint32_t room
) noexcept nogil
# Puts a saved map back as the most recently used one; False: its key has a map already.
cdef bint session_cache_restore(SessionCache* cache, const SessionMap* saved) noexcept nogil
cdef void session_cache_stats(SessionCache* cache, uint32_t now, CacheStats* stats) noexcept nogil


# For a caller that knows the key some time before it asks.
cdef inline void session_cache_prefetch(SessionCache* cache, const Hash128* key) noexcept nogil:
    prefetch(&cache.buckets[<uint32_t>key.lo & cache.bucket_mask])


# The tick at which a map ends that may live `life` ticks from now; 0, none, for 0. Once in
# 13 years the sum itself is 0, and the map lives a tick longer.
cdef inline uint32_t session_cache_deadline(uint32_t now, uint32_t life) noexcept nogil:
    cdef uint32_t deadline = now + life
    if life == 0:
        return 0
    return deadline if deadline else 1
