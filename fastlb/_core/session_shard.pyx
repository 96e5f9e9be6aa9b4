# Changes to a session cache that are whole or absent, whenever a process dies.
#
# Within one shard: the redo journal. A change computes the new value of every word that
# it alters, writes them into the shard's journal, sets journal_count (the commit), stores
# the values, clears journal_count. The next one to get a dead holder's lock finds 0 and
# the change was never made, or finds a count and stores the values once more; they are
# absolute, so once more does no harm, also when the repairer dies in turn. An entry that
# nobody can reach yet is filled in plainly before the change that lists it.
#
# Between shards: an entry leaves one list and enters another under two locks, so two
# journals, and no instruction commits both. Instead one 16-bit store decides, entry.owner:
#
#     source unlists e, journalled together with source.gift = e
#     target.spare = e          means nothing yet: e's owner is the source
#     e.owner = target          now gift means nothing and spare counts
#     source.gift = 0
#
# Whoever repairs source looks at its gift: e still its own goes to the pool, e no more its
# own is forgotten. Whoever repairs target looks at its spare: its own goes to the pool,
# else it is forgotten. Each looks only at what its own lock covers and at e.owner, which
# only the dead process could have changed, so the order of repairs does not matter, and
# no repair ever waits for a second shard. That is why a kill can leak no entry for longer
# than until the next use of its shard, and can never list one twice.
#
# Lists are doubly linked and the chain singly, so an unlisting walks the chain; chains
# have less than one entry on average.

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from fastlb._core.debug cimport BUG_ON
from fastlb._core.limits cimport SESSION_JOURNAL_WORDS
from fastlb._core.shm cimport (
    compiler_barrier, load_relaxed, lock_repaired, shm_word, store_release, store_relaxed,
)

cdef extern from *:
    """
    #include <stddef.h>
    #define PORT_OWNER_WORD(e) ((shm_word *)((char *)(e) + 32))
    """
    shm_word* PORT_OWNER_WORD(void* entry) noexcept nogil

if sizeof(SessionEntry) != 64:
    raise ImportError(f"a session entry must be one cache line: {sizeof(SessionEntry)} bytes")
if sizeof(SessionShard) != 320:
    raise ImportError(f"a session shard must be five cache lines: {sizeof(SessionShard)} bytes")


# A change being built; lives on the stack of the function that makes it.
ctypedef struct Change:
    SessionCache* cache
    SessionShard* shard
    uint32_t count                   # journal words written


cdef inline Change change_begin(SessionCache* cache, SessionShard* shard) noexcept nogil:
    cdef Change change
    BUG_ON(shard.journal_count != 0)
    change.cache = cache
    change.shard = shard
    change.count = 0
    return change


cdef inline void change_word(Change* change, void* word, uint32_t value) noexcept nogil:
    cdef JournalWord* line = &change.shard.journal[change.count]
    BUG_ON(change.count >= SESSION_JOURNAL_WORDS)
    line.at = <uint32_t>(<shm_word*>word - change.cache.words)
    line.value = value
    change.count += 1


cdef inline void change_apply(
    SessionCache* cache, SessionShard* shard, uint32_t count
) noexcept nogil:
    cdef uint32_t i
    for i in range(count):
        cache.words[shard.journal[i].at] = shard.journal[i].value
    compiler_barrier()
    store_release(&shard.journal_count, 0)
    compiler_barrier()


cdef inline void change_commit(Change* change) noexcept nogil:
    compiler_barrier()
    store_release(&change.shard.journal_count, change.count)
    compiler_barrier()
    change_apply(change.cache, change.shard, change.count)


cdef inline SessionEntry* entry_at(SessionCache* cache, uint32_t entry) noexcept nogil:
    BUG_ON(entry == 0)
    BUG_ON(entry > cache.size)
    return &cache.entries[entry]


cdef inline uint32_t* bucket_of(SessionCache* cache, const SessionEntry* e) noexcept nogil:
    return &cache.buckets[<uint32_t>e.key.lo & cache.bucket_mask]


# The word that points to `entry` in its chain: the bucket, or another entry's `chain`.
cdef inline uint32_t* chain_link(
    SessionCache* cache, SessionEntry* e, uint32_t entry
) noexcept nogil:
    cdef uint32_t* link = bucket_of(cache, e)
    while link[0] != entry:
        link = &entry_at(cache, link[0]).chain
    return link


cdef void shard_to_front(SessionCache* cache, SessionShard* shard, uint32_t entry) noexcept nogil:
    cdef Change change = change_begin(cache, shard)
    cdef SessionEntry* e = entry_at(cache, entry)
    cdef uint32_t head = shard.head
    BUG_ON(entry == head)
    BUG_ON(e.owner != shard.index)
    change_word(&change, &entry_at(cache, e.newer).older, e.older)
    if e.older:
        change_word(&change, &entry_at(cache, e.older).newer, e.newer)
    else:
        change_word(&change, &shard.tail, e.newer)
    change_word(&change, &entry_at(cache, head).newer, entry)
    change_word(&change, &e.newer, 0)
    change_word(&change, &e.older, head)
    change_word(&change, &shard.head, entry)
    change_commit(&change)


cdef void shard_take_out(
    SessionCache* cache, SessionShard* shard, uint32_t entry, bint spare
) noexcept nogil:
    cdef Change change = change_begin(cache, shard)
    cdef SessionEntry* e = entry_at(cache, entry)
    BUG_ON(e.owner != shard.index)
    BUG_ON(shard.spare != 0 and spare)
    BUG_ON(shard.gift != 0)
    change_word(&change, chain_link(cache, e, entry), e.chain)
    change_word(&change, &entry_at(cache, e.newer).older if e.newer else &shard.head, e.older)
    change_word(&change, &entry_at(cache, e.older).newer if e.older else &shard.tail, e.newer)
    change_word(&change, &shard.entries, shard.entries - 1)
    change_word(&change, &shard.spare if spare else &shard.gift, entry)
    change_commit(&change)


cdef void shard_put_in(SessionCache* cache, SessionShard* shard) noexcept nogil:
    cdef Change change = change_begin(cache, shard)
    cdef uint32_t entry = shard.spare
    cdef SessionEntry* e = entry_at(cache, entry)
    cdef uint32_t* bucket = bucket_of(cache, e)
    cdef uint32_t head = shard.head
    BUG_ON(e.owner != shard.index)
    e.chain = bucket[0]
    e.newer = 0
    e.older = head
    change_word(&change, bucket, entry)
    change_word(&change, &entry_at(cache, head).newer if head else &shard.tail, entry)
    change_word(&change, &shard.head, entry)
    change_word(&change, &shard.entries, shard.entries + 1)
    change_word(&change, &shard.spare, 0)
    change_commit(&change)


cdef void shard_rewrite(
    SessionCache* cache, SessionShard* shard, uint32_t entry,
    const uint8_t* ip, uint16_t port, uint32_t created_at, uint32_t deadline,
) noexcept nogil:
    cdef Change change = change_begin(cache, shard)
    cdef SessionEntry* e = entry_at(cache, entry)
    cdef uint32_t[4] words
    cdef int i
    memcpy(words, ip, 16)
    for i in range(4):
        change_word(&change, &e.ip[4 * i], words[i])
    change_word(&change, PORT_OWNER_WORD(e), port | (<uint32_t>e.owner << 16))
    change_word(&change, &e.created_at, created_at)
    change_word(&change, &e.deadline, deadline)
    change_commit(&change)


cdef void shard_hand_over(
    SessionCache* cache, SessionShard* source, SessionShard* target
) noexcept nogil:
    cdef uint32_t entry = source.gift
    cdef SessionEntry* e = entry_at(cache, entry)
    BUG_ON(target.spare != 0)
    BUG_ON(e.owner != source.index)
    store_relaxed(&target.spare, entry)
    compiler_barrier()
    e.owner = <uint16_t>target.index
    compiler_barrier()
    store_relaxed(&source.gift, 0)
    compiler_barrier()


# The pool's spare joins the free list.
cdef void pool_keep(SessionCache* cache, SessionShard* pool) noexcept nogil:
    cdef Change change = change_begin(cache, pool)
    cdef uint32_t entry = pool.spare
    entry_at(cache, entry).chain = pool.free
    change_word(&change, &pool.free, entry)
    change_word(&change, &pool.free_count, pool.free_count + 1)
    change_word(&change, &pool.spare, 0)
    change_commit(&change)


cdef void pool_take_back(SessionCache* cache, SessionShard* shard) noexcept nogil:
    cdef SessionShard* pool = &cache.shards[POOL]
    shard_lock(cache, pool)
    shard_hand_over(cache, shard, pool)
    pool_keep(cache, pool)
    shard_unlock(pool)


cdef bint pool_seems_empty(SessionCache* cache) noexcept nogil:
    cdef SessionShard* pool = &cache.shards[POOL]
    return load_relaxed(&pool.free) == 0 and load_relaxed(&pool.bump) > cache.size


cdef bint pool_serve(SessionCache* cache, SessionShard* shard) noexcept nogil:
    cdef SessionShard* pool = &cache.shards[POOL]
    cdef Change change
    cdef uint32_t entry
    if pool_seems_empty(cache):
        return False
    shard_lock(cache, pool)
    change = change_begin(cache, pool)
    entry = pool.free
    if entry:
        change_word(&change, &pool.free, entry_at(cache, entry).chain)
        change_word(&change, &pool.free_count, pool.free_count - 1)
    elif pool.bump <= cache.size:
        entry = pool.bump
        entry_at(cache, entry).owner = POOL      # untouched memory says nothing
        change_word(&change, &pool.bump, entry + 1)
    else:
        shard_unlock(pool)
        return False
    change_word(&change, &pool.gift, entry)
    change_commit(&change)
    shard_hand_over(cache, pool, shard)
    shard_unlock(pool)
    return True


# An entry that a dead holder had between two lists goes back to the pool, if it was
# still this shard's. For a shard, takes the pool's lock.
cdef void settle_gift(SessionCache* cache, SessionShard* shard) noexcept nogil:
    cdef Change change
    if entry_at(cache, shard.gift).owner != shard.index:
        store_relaxed(&shard.gift, 0)
        return
    if shard.index != POOL:
        pool_take_back(cache, shard)
        return
    change = change_begin(cache, shard)
    change_word(&change, &shard.spare, shard.gift)
    change_word(&change, &shard.gift, 0)
    change_commit(&change)


cdef void settle_spare(SessionCache* cache, SessionShard* shard) noexcept nogil:
    cdef Change change
    if entry_at(cache, shard.spare).owner != shard.index:
        store_relaxed(&shard.spare, 0)
        return
    if shard.index == POOL:
        pool_keep(cache, shard)
        return
    change = change_begin(cache, shard)
    change_word(&change, &shard.gift, shard.spare)
    change_word(&change, &shard.spare, 0)
    change_commit(&change)
    pool_take_back(cache, shard)


# The lock's last holder died: finish or forget what it was doing, then say so.
cdef void shard_repair(SessionCache* cache, SessionShard* shard) noexcept nogil:
    compiler_barrier()
    if shard.journal_count:
        change_apply(cache, shard, shard.journal_count)
    if shard.spare and entry_at(cache, shard.spare).owner != shard.index:
        store_relaxed(&shard.spare, 0)
    if shard.gift:
        settle_gift(cache, shard)
    if shard.spare:
        settle_spare(cache, shard)
    compiler_barrier()
    lock_repaired(&shard.lock)
