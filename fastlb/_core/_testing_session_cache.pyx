# Test-only: session caches from Python, loops for benchmarks, and what a process does
# that is to be killed in the middle of it.

import time

from libc.signal cimport SIGSTOP, raise_
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from fastlb._core.address cimport Address, address_equal
from fastlb._core.session_cache cimport (
    CACHE_EXPIRED, CACHE_FULL, CACHE_HIT, CACHE_MISS, CACHE_MOVED, CACHE_NEW, CACHE_SAME,
    SessionMap, session_cache_claim, session_cache_deadline, session_cache_delete,
    session_cache_flush, session_cache_lookup, session_cache_next, session_cache_store,
)
from fastlb._core.session_layout cimport (
    session_cache_bytes, session_cache_format, session_cache_open,
)
from fastlb._core.session_shard cimport SessionCache, shard_lock, shard_unlock
from fastlb._core.shm cimport REGION_SESSION_CACHE, Segment
from fastlb._core.siphash cimport Hash128, hash128_equal

NAMES = {
    CACHE_MISS: "miss", CACHE_HIT: "hit", CACHE_EXPIRED: "expired", CACHE_NEW: "new",
    CACHE_MOVED: "moved", CACHE_SAME: "same", CACHE_FULL: "full",
}
cdef uint32_t OWNER_DIED = 0x40000000      # in a robust mutex's word, beside the owner's id
cdef uint32_t OWNER_ID = 0x3fffffff


# Well mixed 128 bits from a number, as a keyed hash gives (splitmix64's finaliser).
cdef inline uint64_t mix(uint64_t x) noexcept nogil:
    x += <uint64_t>0x9e3779b97f4a7c15
    x = (x ^ (x >> 30)) * <uint64_t>0xbf58476d1ce4e5b9
    x = (x ^ (x >> 27)) * <uint64_t>0x94d049bb133111eb
    return x ^ (x >> 31)


cdef inline Hash128 key_for(uint64_t number) noexcept nogil:
    cdef Hash128 key
    key.lo = mix(number)
    key.hi = mix(~number)
    return key


# Address and port both follow from the number, so that a torn one is seen.
cdef inline Address address_for(uint32_t number) noexcept nogil:
    cdef Address address
    cdef uint64_t bits = mix(number)
    memcpy(address.ip, &bits, 8)
    memcpy(&address.ip[8], &number, 4)
    memcpy(&address.ip[12], &bits, 4)
    address.port = <uint16_t>(number * 7 + 1)
    return address


cdef object number_of(const Address* address):
    cdef uint32_t number
    cdef Address wanted
    memcpy(&number, &address.ip[8], 4)
    wanted = address_for(number)
    if not address_equal(&wanted, address):
        raise AssertionError("a torn address")
    return number


cdef uint32_t ticks_now() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <uint32_t>(t.tv_sec * 1000 + t.tv_nsec // 1000000)


cdef class Probe:
    """A session cache in a region of a segment; keys and nodes are plain numbers."""

    cdef SessionCache cache
    cdef Segment segment
    cdef char* memory
    cdef readonly uint64_t count

    def __init__(self, Segment segment, str name, uint32_t size=0):
        """`size`: make one; 0: open the one that is there."""
        cdef int result
        if size:
            self.count = session_cache_bytes(size)
            offset = segment.allocate(name, REGION_SESSION_CACHE, self.count)
            self.memory = <char*>segment.at(offset)
            result = session_cache_format(self.memory, self.count, size)
            if result < 0:
                raise ValueError("format")
        else:
            offset, self.count = segment.find(name)
            self.memory = <char*>segment.at(offset)
        if session_cache_open(&self.cache, self.memory, self.count) < 0:
            raise ValueError("open")
        self.segment = segment

    @property
    def shard_count(self):
        return self.cache.shard_count

    def shard_of(self, uint64_t number):
        cdef Hash128 key = key_for(number)
        return 1 + ((<uint32_t>key.lo & self.cache.bucket_mask) >> self.cache.shard_shift)

    @staticmethod
    def key_bytes(uint64_t number):
        cdef Hash128 key = key_for(number)
        return (<char*>&key)[:16]

    @staticmethod
    def address_of(uint32_t number):
        cdef Address address = address_for(number)
        return (<char*>address.ip)[:16], address.port

    def lookup(self, uint64_t number, uint32_t now, uint32_t expiry=0, bint renew=True):
        """(result, node's number or None)"""
        cdef Hash128 key = key_for(number)
        cdef SessionMap found
        cdef int result = session_cache_lookup(&self.cache, &key, now, expiry, renew, &found)
        return NAMES[result], number_of(&found.address) if result == CACHE_HIT else None

    def store(self, uint64_t number, uint32_t node, uint32_t now, uint32_t deadline=0):
        """(result, previous node's number when moved)"""
        cdef Hash128 key = key_for(number)
        cdef Address address = address_for(node)
        cdef SessionMap found
        cdef int result = session_cache_store(
            &self.cache, &key, &address, now, deadline, &found)
        return NAMES[result], number_of(&found.address) if result == CACHE_MOVED else None

    def store_ipv4(self, uint64_t number, bytes ip, uint16_t port, uint32_t now):
        cdef Hash128 key = key_for(number)
        cdef Address address
        cdef bytes packed = bytes(10) + b"\xff\xff" + ip
        memcpy(address.ip, <const char*>packed, 16)
        address.port = port
        session_cache_store(&self.cache, &key, &address, now, 0, NULL)

    def claim(self, uint64_t number, uint32_t node, uint32_t now, uint32_t expiry=0,
              uint32_t deadline=0):
        """(result, the node that holds)"""
        cdef Hash128 key = key_for(number)
        cdef Address address = address_for(node)
        cdef SessionMap found
        cdef int result = session_cache_claim(
            &self.cache, &key, &address, now, expiry, deadline, &found)
        return NAMES[result], number_of(&found.address) if result == CACHE_HIT else node

    def delete(self, uint64_t number, only=None):
        cdef Hash128 key = key_for(number)
        cdef Address address = address_for(only or 0)
        cdef Address* wanted = NULL if only is None else &address
        cdef int result = session_cache_delete(&self.cache, &key, wanted)
        return NAMES[result]

    def flush(self):
        return session_cache_flush(&self.cache)

    def maps(self):
        """{key's hash: node's address and port}, all as bytes."""
        cdef uint32_t cursor = 0
        cdef SessionMap found
        rows = {}
        while session_cache_next(&self.cache, &cursor, &found):
            key = (<char*>&found.key)[:16]
            if key in rows:
                raise AssertionError("a key twice")
            rows[key] = (<char*>&found.address)[:18]
        return rows

    def order(self, int shard=1):
        """Nodes' numbers of one shard, most recently used first."""
        cdef uint32_t entry = self.cache.shards[shard].head
        cdef Address address
        rows = []
        while entry:
            memcpy(address.ip, self.cache.entries[entry].ip, 16)
            address.port = self.cache.entries[entry].port
            rows.append(number_of(&address))
            entry = self.cache.entries[entry].older
        return rows

    def tail_used_at(self):
        """used_at of the least recent map of each shard."""
        return [self.cache.entries[self.cache.shards[i].tail].used_at
                for i in range(1, self.cache.shard_count + 1) if self.cache.shards[i].tail]

    # ---- dying ----

    @staticmethod
    def deadline(uint32_t now, uint32_t life):
        return session_cache_deadline(now, life)

    def snapshot(self):
        return self.memory[:self.count]

    def overwrite(self, bytes image):
        memcpy(self.memory, <const char*>image, self.count)

    def end_process(self, uint32_t pid):
        """Does to this memory's locks what the kernel does when `pid` dies; how many."""
        cdef uint32_t* word
        cdef uint32_t i
        marked = 0
        for i in range(self.cache.shard_count + 1):
            word = <uint32_t*>&self.cache.shards[i].lock
            if word[0] & OWNER_ID == pid:
                word[0] = OWNER_DIED
                marked += 1
        return marked

    def dead_locks(self):
        """Locks whose holder died and that nobody has taken over yet."""
        cdef uint32_t i
        cdef uint32_t* word
        dead = 0
        for i in range(self.cache.shard_count + 1):
            word = <uint32_t*>&self.cache.shards[i].lock
            dead += (word[0] & OWNER_DIED) != 0
        return dead

    def between_stops(self, str name, uint64_t number, uint32_t node, uint32_t now,
                      uint32_t expiry):
        """One operation with a SIGSTOP just before and just after it, for a tracer."""
        cdef Hash128 key = key_for(number)
        cdef Address address = address_for(node)
        cdef SessionMap found
        cdef int what = ["store", "claim", "lookup", "delete", "flush", "repair"].index(name)
        cdef SessionCache* cache = &self.cache
        cdef uint32_t i
        with nogil:
            raise_(SIGSTOP)
            if what == 0:
                session_cache_store(cache, &key, &address, now, 0, NULL)
            elif what == 1:
                session_cache_claim(cache, &key, &address, now, expiry, 0, &found)
            elif what == 2:
                session_cache_lookup(cache, &key, now, expiry, True, &found)
            elif what == 3:
                session_cache_delete(cache, &key, NULL)
            elif what == 4:
                session_cache_flush(cache)
            else:
                for i in range(1, cache.shard_count + 2):
                    shard_lock(cache, &cache.shards[i % (cache.shard_count + 1)])
                    shard_unlock(&cache.shards[i % (cache.shard_count + 1)])
            raise_(SIGSTOP)

    # ---- hammering; each ends after `rounds`, or with the key of the first wrong answer ----

    def hammer_durable(self, Segment segment, uint64_t acks_offset, uint32_t worker,
                       uint32_t keys, uint32_t shared_keys, uint64_t seed, uint64_t rounds):
        """Stores own keys with ever new nodes and notes in shared memory what returned;
        in between uses and deletes keys that all workers share. 0: all answers right."""
        cdef uint32_t* acks = <uint32_t*>segment.at(acks_offset) + worker * keys
        cdef uint64_t wrong
        with nogil:
            wrong = hammer_durable(&self.cache, acks, worker, keys, shared_keys, seed, rounds)
        return wrong

    def check_durable(self, Segment segment, uint64_t acks_offset, uint32_t workers,
                      uint32_t keys):
        """Keys whose map is missing or is neither the last noted nor the next one."""
        cdef uint32_t* acks = <uint32_t*>segment.at(acks_offset)
        wrong = []
        for worker in range(workers):
            for i in range(keys):
                noted = acks[worker * keys + i]
                result, node = self.lookup(durable_key(worker, i), ticks_now(), 0, False)
                if noted and (result != "hit" or node not in (
                        durable_node(worker, i, noted), durable_node(worker, i, noted + 1))):
                    wrong.append((worker, i, noted, result, node))
        return wrong

    def hammer_evicting(self, uint64_t keys, uint64_t seed, uint64_t rounds):
        """Uses, stores, claims and deletes far more keys than fit."""
        cdef uint64_t wrong
        with nogil:
            wrong = hammer_evicting(&self.cache, keys, seed, rounds)
        return wrong

    # ---- benchmarks ----

    def fill(self, uint64_t first, uint64_t count, uint32_t now):
        """Stores keys first … first+count-1; CPU seconds."""
        cdef uint64_t i
        cdef Hash128 key
        cdef Address address = address_for(1)
        begun = time.thread_time()
        with nogil:
            for i in range(first, first + count):
                key = key_for(i)
                session_cache_store(&self.cache, &key, &address, now, 0, NULL)
        return time.thread_time() - begun

    def lookups(self, uint64_t keys, uint64_t count, uint32_t now, uint64_t seed, uint64_t first=0,
                bint claim=False):
        """`count` look-ups, or claims, of random keys in first … first+keys-1: (seconds, hits).
        After a hit the next key depends on what was found, so that nothing overlaps."""
        cdef uint64_t _i
        cdef uint64_t hits = 0
        cdef uint64_t state = mix(seed)
        cdef Address address = address_for(1)
        cdef Hash128 key
        cdef SessionMap found
        cdef int result
        begun = time.thread_time()
        with nogil:
            for _i in range(count):
                state = mix(state)
                key = key_for(first + ((state >> 32) * keys >> 32))
                if claim:
                    result = session_cache_claim(
                        &self.cache, &key, &address, now, 0, 0, &found)
                else:
                    result = session_cache_lookup(&self.cache, &key, now, 0, True, &found)
                if result == CACHE_HIT:
                    hits += 1
                    state ^= found.key.hi
        return time.thread_time() - begun, hits

    def walks(self, uint64_t keys, uint64_t count, uint64_t seed):
        """Only what `lookups` has to wait for: reads a random key's bucket, and then the first
        entry in it, on which the next key depends."""
        cdef uint64_t _i
        cdef uint64_t state = mix(seed)
        cdef uint32_t entry
        cdef Hash128 key
        begun = time.thread_time()
        with nogil:
            for _i in range(count):
                state = mix(state)
                key = key_for((state >> 32) * keys >> 32)
                entry = self.cache.buckets[<uint32_t>key.lo & self.cache.bucket_mask]
                state ^= self.cache.entries[entry].key.hi
        return time.thread_time() - begun if state else 0.0

    def keys_only(self, uint64_t keys, uint64_t count, uint64_t seed):
        """What `lookups` spends on making keys: CPU seconds."""
        cdef uint64_t _i
        cdef uint64_t sink = 0
        cdef uint64_t state = mix(seed)
        cdef Hash128 key
        begun = time.thread_time()
        with nogil:
            for _i in range(count):
                state = mix(state)
                key = key_for((state >> 32) * keys >> 32)
                sink ^= key.lo + key.hi
        return time.thread_time() - begun if sink != 1 else 0.0

    def lock_pairs(self, uint64_t count):
        """Seconds for `count` times lock and unlock of one shard."""
        cdef uint64_t _i
        begun = time.thread_time()
        with nogil:
            for _i in range(count):
                shard_lock(&self.cache, &self.cache.shards[1])
                shard_unlock(&self.cache.shards[1])
        return time.thread_time() - begun

    def use(self, list numbers, uint32_t now):
        """Looks up (renewing) each key, and stores it when it is not there: the misses."""
        cdef Hash128 key
        cdef Address address
        cdef SessionMap found
        missed = []
        for number in numbers:
            key = key_for(number)
            if session_cache_lookup(&self.cache, &key, now, 0, True, &found) != CACHE_HIT:
                address = address_for(number)
                session_cache_store(&self.cache, &key, &address, now, 0, NULL)
                missed.append(number)
        return missed

    def nearness(self, uint64_t keys, uint64_t uses, uint32_t per_tick, uint64_t seed):
        """Plays skewed uses to an empty cache and watches every eviction.

        Returns 1001 counts: evictions by error in thousandths, where the error is how much
        later the dropped map was used than the cache's truly oldest one, as a part of the
        latter's age. A new map takes over the dropped one's entry, which tells the victim.
        """
        cdef bytearray shadow = bytearray(4 * (self.cache.size + 1))
        cdef bytearray per_used = bytearray(4 * (uses // per_tick + 2))
        cdef bytearray errors = bytearray(4 * 1001)
        nearness(&self.cache, keys, uses, per_tick, seed,
                 <uint32_t*><char*>shadow, <uint32_t*><char*>per_used, <uint32_t*><char*>errors)
        return memoryview(errors).cast("I").tolist()


cdef uint32_t entry_of(SessionCache* cache, const Hash128* key) noexcept nogil:
    cdef uint32_t entry = cache.buckets[<uint32_t>key.lo & cache.bucket_mask]
    while entry and not hash128_equal(&cache.entries[entry].key, key):
        entry = cache.entries[entry].chain
    return entry


# `shadow`: tick of each entry's true last use; `per_used`: entries by that tick.
cdef void nearness(
    SessionCache* cache, uint64_t keys, uint64_t uses, uint32_t per_tick, uint64_t seed,
    uint32_t* shadow, uint32_t* per_used, uint32_t* errors,
) noexcept nogil:
    cdef uint64_t state = mix(seed)
    cdef uint64_t use
    cdef uint32_t oldest = 1
    cdef uint32_t now
    cdef uint32_t entry
    cdef double part
    cdef Hash128 key
    cdef Address address = address_for(1)
    cdef SessionMap found
    for use in range(uses):
        now = <uint32_t>(1 + use // per_tick)
        state = mix(state)
        part = <double>(state >> 11) / <double>(<uint64_t>1 << 53)
        key = key_for(<uint64_t>(part * part * part * <double>keys))
        if session_cache_lookup(cache, &key, now, 0, True, &found) == CACHE_HIT:
            entry = entry_of(cache, &key)
        else:
            session_cache_store(cache, &key, &address, now, 0, NULL)
            entry = entry_of(cache, &key)
            if shadow[entry]:
                while per_used[oldest] == 0:
                    oldest += 1
                if now > oldest:
                    errors[1000 * (shadow[entry] - oldest) // (now - oldest)] += 1
        if shadow[entry]:
            per_used[shadow[entry]] -= 1
        shadow[entry] = now
        per_used[now] += 1


cdef inline uint64_t durable_key(uint32_t worker, uint32_t i) noexcept nogil:
    return (<uint64_t>1 << 40) + (<uint64_t>worker << 20) + i


cdef inline uint32_t durable_node(uint32_t worker, uint32_t i, uint32_t generation) noexcept nogil:
    return <uint32_t>mix(durable_key(worker, i)) + generation


cdef uint64_t hammer_durable(
    SessionCache* cache, uint32_t* acks, uint32_t worker, uint32_t keys,
    uint32_t shared_keys, uint64_t seed, uint64_t rounds,
) noexcept nogil:
    cdef uint64_t state = mix(seed)
    cdef uint64_t _round
    cdef uint32_t i
    cdef Hash128 key
    cdef Hash128 shared
    cdef Address address
    cdef SessionMap found
    cdef volatile uint32_t* noted
    for _round in range(rounds):
        state = mix(state)
        i = <uint32_t>(state % keys)
        noted = &acks[i]
        key = key_for(durable_key(worker, i))
        address = address_for(durable_node(worker, i, noted[0] + 1))
        if session_cache_store(cache, &key, &address, ticks_now(), 0, NULL) < 0:
            return durable_key(worker, i)
        noted[0] = noted[0] + 1
        shared = key_for((state >> 20) % shared_keys)
        if (state >> 50) & 3 == 0:
            session_cache_delete(cache, &shared, NULL)
        elif (state >> 50) & 3 == 1:
            session_cache_lookup(cache, &shared, ticks_now(), 3, True, &found)
        else:
            session_cache_claim(cache, &shared, &address, ticks_now(), 5, 0, &found)
        if session_cache_lookup(cache, &key, ticks_now(), 0, True, &found) != CACHE_HIT:
            return durable_key(worker, i)
        if not address_equal(&found.address, &address):
            return durable_key(worker, i)
    return 0


cdef uint64_t hammer_evicting(
    SessionCache* cache, uint64_t keys, uint64_t seed, uint64_t rounds
) noexcept nogil:
    cdef uint64_t state = mix(seed)
    cdef uint64_t _round
    cdef uint64_t number
    cdef uint32_t what
    cdef Hash128 key
    cdef Address address
    cdef SessionMap found
    cdef int result
    for _round in range(rounds):
        state = mix(state)
        number = (state >> 16) % keys
        what = state & 15
        key = key_for(number)
        address = address_for(<uint32_t>number)
        result = CACHE_MISS
        if what < 5:
            result = session_cache_lookup(cache, &key, ticks_now(), 50, True, &found)
        elif what < 9:
            session_cache_store(cache, &key, &address, ticks_now(), 0, NULL)
        elif what < 14:
            result = session_cache_claim(cache, &key, &address, ticks_now(), 50, 0, &found)
        else:
            session_cache_delete(cache, &key, NULL)
        if result == CACHE_HIT and not address_equal(&found.address, &address):
            return number + 1
    return 0
