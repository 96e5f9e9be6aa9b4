# Session caches: look-up, store, expiry and the choice of what to drop.
#
# A bucket and all entries in its chain belong to one shard, so an operation locks one
# shard; only taking a new entry may touch a second one (by try-lock) and the pool.
# Entries are not divided among the shards beforehand: exactly `size` maps fit.
#
# What to drop, in a cache of several shards: each list is in order of listed_at, and a
# hit moves its entry only when listed_at is older than the shard's granule, so that a
# busy map is written once per granule, not once per request. The oldest map by listing
# was then used at most a granule later. When a full cache needs an entry, the tails of
# this shard and of the next few are compared, and the oldest goes.
#
# A granule that was right when the cache was quiet may be too long after a burst has
# dropped all old maps: the tail may then have been used long after it was listed. Such a
# tail gets a second chance: it goes to the head, and the next one is looked at.

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from posix.unistd cimport usleep

from fastlb._core.address cimport Address, address_equal
from fastlb._core.debug cimport BUG_ON
from fastlb._core.limits cimport (
    SESSION_GRANULE_SHIFT, SESSION_SECOND_CHANCES, SESSION_STORE_TRIES, SESSION_TAILS_COMPARED,
)
from fastlb._core.session_shard cimport (
    POOL, SessionEntry, SessionShard, pool_serve, pool_take_back, shard_hand_over, shard_lock,
    shard_put_in, shard_rewrite, shard_take_out, shard_to_front, shard_try, shard_unlock,
)
from fastlb._core.shm cimport load_relaxed, prefetch

cdef enum:
    FLUSH_BATCH = 64                 # entries removed under one lock


# ---- one shard; its lock is held throughout this section ----

cdef inline SessionShard* shard_for(SessionCache* cache, const Hash128* key) noexcept nogil:
    return &cache.shards[1 + ((<uint32_t>key.lo & cache.bucket_mask) >> cache.shard_shift)]


cdef inline uint32_t find(SessionCache* cache, const Hash128* key) noexcept nogil:
    cdef uint32_t entry = cache.buckets[<uint32_t>key.lo & cache.bucket_mask]
    cdef SessionEntry* e
    while entry:
        e = &cache.entries[entry]
        if e.key.lo == key.lo and e.key.hi == key.hi:
            return entry
        entry = e.chain
    return 0


# The chain's first entry is on its way while the lock is taken; read without the lock,
# so it is a hint and nothing else.
cdef inline void prefetch_first(SessionCache* cache, const Hash128* key) noexcept nogil:
    cdef uint32_t* bucket = &cache.buckets[<uint32_t>key.lo & cache.bucket_mask]
    prefetch(&cache.entries[load_relaxed(bucket)])


# Ticks from `then` to `now`; 0 when another process's clock is a little ahead.
cdef inline uint32_t ticks_since(uint32_t then, uint32_t now) noexcept nogil:
    cdef uint32_t ticks = now - then
    return 0 if <int32_t>ticks < 0 else ticks


cdef inline bint dead(const SessionEntry* e, uint32_t now, uint32_t expiry) noexcept nogil:
    if expiry and ticks_since(e.used_at, now) >= expiry:
        return True
    return e.deadline != 0 and <int32_t>(now - e.deadline) >= 0


cdef inline void copy_out(const SessionEntry* e, SessionMap* out) noexcept nogil:
    out.key = e.key
    memcpy(out.address.ip, e.ip, 16)
    out.address.port = e.port
    out.used_at = e.used_at
    out.created_at = e.created_at
    out.deadline = e.deadline


cdef inline bint same_address(const SessionEntry* e, const Address* address) noexcept nogil:
    cdef Address held
    memcpy(held.ip, e.ip, 16)
    held.port = e.port
    return address_equal(&held, address)


cdef void to_front(
    SessionCache* cache, SessionShard* shard, uint32_t entry, uint32_t now
) noexcept nogil:
    cdef SessionEntry* e = &cache.entries[entry]
    e.listed_at = now
    if shard.head != entry:
        shard_to_front(cache, shard, entry)
    if cache.exact:
        return
    shard.granule = 1 + (
        ticks_since(cache.entries[shard.tail].listed_at, now) >> SESSION_GRANULE_SHIFT)


# A use: leaves the entry's cache line clean where nothing changes.
cdef inline void touch(
    SessionCache* cache, SessionShard* shard, uint32_t entry, uint32_t now
) noexcept nogil:
    cdef SessionEntry* e = &cache.entries[entry]
    if ticks_since(e.used_at, now):
        e.used_at = now
    if cache.exact:
        if shard.head != entry:
            to_front(cache, shard, entry, now)
    elif ticks_since(e.listed_at, now) >= shard.granule:
        to_front(cache, shard, entry, now)


cdef void remove(SessionCache* cache, SessionShard* shard, uint32_t entry) noexcept nogil:
    shard_take_out(cache, shard, entry, False)
    pool_take_back(cache, shard)


# The shard's least recently used entry; entries that were used long after they were
# listed go to the front instead, but not endlessly.
cdef uint32_t oldest_of(SessionCache* cache, SessionShard* shard, uint32_t now) noexcept nogil:
    cdef uint32_t listed
    cdef uint32_t idle
    cdef int chances = 0
    cdef SessionEntry* e
    while not cache.exact and shard.tail != shard.head and chances < SESSION_SECOND_CHANCES:
        e = &cache.entries[shard.tail]
        listed = ticks_since(e.listed_at, now)
        idle = ticks_since(e.used_at, now)
        if listed - idle <= 1 + (listed >> (SESSION_GRANULE_SHIFT - 1)):
            break
        to_front(cache, shard, shard.tail, now)
        chances += 1
    return shard.tail


# ---- taking an entry for a new map ----

# Reads another shard's tail without its lock: a guess, good enough to choose by.
cdef inline uint32_t guess_tail_age(
    SessionCache* cache, SessionShard* shard, uint32_t now
) noexcept nogil:
    cdef uint32_t tail = load_relaxed(&shard.tail)
    if tail == 0 or tail > cache.size:
        return 0
    return ticks_since(load_relaxed(&cache.entries[tail].used_at), now)


# The shard among this one and the next few whose least recently used map is the oldest.
# Another one costs a second lock, so it must be older by more than a granule.
cdef SessionShard* choose_victim(
    SessionCache* cache, SessionShard* shard, uint32_t now
) noexcept nogil:
    cdef SessionShard* best = shard
    cdef SessionShard* other
    cdef uint32_t best_age
    cdef uint32_t age
    cdef int _i
    if cache.exact:
        return shard
    best_age = guess_tail_age(cache, shard, now) + shard.granule if shard.tail else 0
    for _i in range(SESSION_TAILS_COMPARED):
        shard.next_tail = 1 + shard.next_tail % cache.shard_count
        other = &cache.shards[shard.next_tail]
        age = guess_tail_age(cache, other, now)
        if age > best_age or (best.tail == 0 and load_relaxed(&other.tail)):
            best = other
            best_age = age
    return best


cdef bint take_from_other(
    SessionCache* cache, SessionShard* shard, SessionShard* other, uint32_t now
) noexcept nogil:
    cdef uint32_t entry
    if not shard_try(cache, other):
        return False
    entry = oldest_of(cache, other, now)
    if entry:
        shard_take_out(cache, other, entry, False)
        shard_hand_over(cache, other, shard)
        other.evictions += 1
    shard_unlock(other)
    return entry != 0


# Fills shard.spare; False when this shard is empty and the others are locked.
cdef bint take_entry(SessionCache* cache, SessionShard* shard, uint32_t now) noexcept nogil:
    cdef SessionShard* victim
    BUG_ON(shard.spare != 0)
    if pool_serve(cache, shard):
        return True
    victim = choose_victim(cache, shard, now)
    if victim != shard and take_from_other(cache, shard, victim, now):
        return True
    if shard.tail == 0:
        return False
    shard_take_out(cache, shard, oldest_of(cache, shard, now), True)
    shard.evictions += 1
    return True


cdef void fill_spare(
    SessionCache* cache, SessionShard* shard, const Hash128* key, const Address* address,
    uint32_t now, uint32_t created_at, uint32_t deadline,
) noexcept nogil:
    cdef SessionEntry* e = &cache.entries[shard.spare]
    e.key = key[0]
    memcpy(e.ip, address.ip, 16)
    e.port = address.port
    e.used_at = now
    e.listed_at = now
    e.created_at = created_at
    e.deadline = deadline
    shard_put_in(cache, shard)


# Locks the key's shard; when it has no map for the key, also takes an entry for one.
# Returns the map's entry or 0, and OUT the shard, NULL if no entry could be had.
cdef uint32_t find_or_take(
    SessionCache* cache, const Hash128* key, uint32_t now, SessionShard** locked
) noexcept nogil:
    cdef SessionShard* shard = shard_for(cache, key)
    cdef uint32_t entry
    cdef int tries = 0
    while tries < SESSION_STORE_TRIES:
        shard_lock(cache, shard)
        entry = find(cache, key)
        if entry or take_entry(cache, shard, now):
            locked[0] = shard
            return entry
        # This shard is empty and the compared ones are too, or busy: ask the next few.
        shard_unlock(shard)
        tries += 1
        if tries > <int>cache.shard_count:
            usleep(10)
    locked[0] = NULL
    return 0


# ---- the interface ----

cdef int session_cache_lookup(
    SessionCache* cache, const Hash128* key, uint32_t now, uint32_t expiry, bint renew,
    SessionMap* found,
) noexcept nogil:
    cdef SessionShard* shard = shard_for(cache, key)
    cdef uint32_t entry
    cdef int result = CACHE_HIT
    prefetch_first(cache, key)
    shard_lock(cache, shard)
    entry = find(cache, key)
    if entry == 0:
        shard.misses += 1
        result = CACHE_MISS
    elif dead(&cache.entries[entry], now, expiry):
        if renew:
            shard.expiries += 1
            remove(cache, shard, entry)
        result = CACHE_EXPIRED
    else:
        shard.hits += 1
        copy_out(&cache.entries[entry], found)
        if renew:
            touch(cache, shard, entry, now)
    shard_unlock(shard)
    return result


cdef int session_cache_store(
    SessionCache* cache, const Hash128* key, const Address* address, uint32_t now,
    uint32_t deadline, SessionMap* previous,
) noexcept nogil:
    cdef SessionShard* shard
    cdef SessionEntry* e
    cdef int result = CACHE_NEW
    cdef uint32_t entry = find_or_take(cache, key, now, &shard)
    if shard == NULL:
        return CACHE_FULL
    if entry == 0:
        fill_spare(cache, shard, key, address, now, now, deadline)
        shard_unlock(shard)
        return result
    e = &cache.entries[entry]
    if dead(e, now, 0):
        shard.expiries += 1
        shard_rewrite(cache, shard, entry, address.ip, address.port, now, deadline)
    elif not same_address(e, address):
        if previous != NULL:
            copy_out(e, previous)
        shard_rewrite(cache, shard, entry, address.ip, address.port, now, deadline)
        result = CACHE_MOVED
    else:
        e.deadline = deadline
        result = CACHE_SAME
    touch(cache, shard, entry, now)
    shard_unlock(shard)
    return result


cdef int session_cache_claim(
    SessionCache* cache, const Hash128* key, const Address* address, uint32_t now,
    uint32_t expiry, uint32_t deadline, SessionMap* found,
) noexcept nogil:
    cdef SessionShard* shard
    cdef int result = CACHE_NEW
    cdef uint32_t entry = find_or_take(cache, key, now, &shard)
    if shard == NULL:
        return CACHE_FULL
    if entry == 0:
        fill_spare(cache, shard, key, address, now, now, deadline)
    else:
        if dead(&cache.entries[entry], now, expiry):
            shard.expiries += 1
            shard_rewrite(cache, shard, entry, address.ip, address.port, now, deadline)
        else:
            copy_out(&cache.entries[entry], found)
            result = CACHE_HIT
        touch(cache, shard, entry, now)
    shard_unlock(shard)
    return result


cdef int session_cache_delete(
    SessionCache* cache, const Hash128* key, const Address* only
) noexcept nogil:
    cdef SessionShard* shard = shard_for(cache, key)
    cdef uint32_t entry
    cdef int result = CACHE_MISS
    shard_lock(cache, shard)
    entry = find(cache, key)
    if entry and (only == NULL or same_address(&cache.entries[entry], only)):
        remove(cache, shard, entry)
        result = CACHE_HIT
    shard_unlock(shard)
    return result


cdef uint64_t session_cache_flush(SessionCache* cache) noexcept nogil:
    cdef SessionShard* shard
    cdef uint64_t removed = 0
    cdef uint32_t left
    cdef uint32_t batch
    cdef uint32_t i
    for i in range(1, cache.shard_count + 1):
        shard = &cache.shards[i]
        left = load_relaxed(&shard.entries)
        while left:
            batch = left if left < FLUSH_BATCH else FLUSH_BATCH
            left -= batch
            shard_lock(cache, shard)
            while batch and shard.tail:
                remove(cache, shard, shard.tail)
                removed += 1
                batch -= 1
            shard_unlock(shard)
    return removed


cdef bint session_cache_next(
    SessionCache* cache, uint32_t* cursor, SessionMap* found
) noexcept nogil:
    cdef uint32_t bump = load_relaxed(&cache.shards[POOL].bump)
    cdef uint32_t entry
    cdef uint32_t owner
    cdef SessionShard* shard
    cdef bint listed
    while cursor[0] + 1 < bump:
        cursor[0] += 1
        entry = cursor[0]
        owner = cache.entries[entry].owner
        if owner == POOL or owner > cache.shard_count:
            continue
        shard = &cache.shards[owner]
        shard_lock(cache, shard)
        listed = (cache.entries[entry].owner == owner
                  and shard.spare != entry and shard.gift != entry)
        if listed:
            copy_out(&cache.entries[entry], found)
        shard_unlock(shard)
        if listed:
            return True
    return False


cdef uint32_t session_cache_copy_list(
    SessionCache* cache, uint32_t shard_index, SessionMap* maps, uint32_t room
) noexcept nogil:
    cdef SessionShard* shard = &cache.shards[shard_index]
    cdef uint32_t count = 0
    cdef uint32_t entry
    BUG_ON(shard_index == POOL)
    BUG_ON(shard_index > cache.shard_count)
    shard_lock(cache, shard)
    entry = shard.tail
    while entry and count < room:
        copy_out(&cache.entries[entry], &maps[count])
        count += 1
        entry = cache.entries[entry].newer
    shard_unlock(shard)
    return count


cdef bint session_cache_restore(SessionCache* cache, const SessionMap* saved) noexcept nogil:
    cdef SessionShard* shard
    cdef uint32_t entry = find_or_take(cache, &saved.key, saved.used_at, &shard)
    if shard == NULL:
        return False
    if entry == 0:
        fill_spare(cache, shard, &saved.key, &saved.address, saved.used_at,
                   saved.created_at, saved.deadline)
    shard_unlock(shard)
    return entry == 0


cdef void session_cache_stats(SessionCache* cache, uint32_t now, CacheStats* stats) noexcept nogil:
    cdef SessionShard* shard
    cdef uint32_t age
    cdef uint32_t i
    memset(stats, 0, sizeof(CacheStats))
    stats.size = cache.size
    for i in range(1, cache.shard_count + 1):
        shard = &cache.shards[i]
        shard_lock(cache, shard)
        stats.entries += shard.entries
        stats.hits += shard.hits
        stats.misses += shard.misses
        stats.expiries += shard.expiries
        stats.evictions += shard.evictions
        if shard.tail:
            age = ticks_since(cache.entries[shard.tail].used_at, now)
            stats.oldest = age if age > stats.oldest else stats.oldest
        shard_unlock(shard)
