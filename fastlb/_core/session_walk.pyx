# Walks over all maps of a session cache while traffic goes on: counting them by node, listing
# the most recently used, removing some. For the control plane, never on the way of a request.
#
# A walk is made of steps, so that whoever walks can do other things in between: the event
# loop of the control process looks at some ten thousand maps, then turns once. A map that is
# there during the whole walk is seen exactly once. Maps that are too old count as expired:
# a look-up would remove them.

from collections import namedtuple

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from fastlb._core.address cimport Address, address_equal, address_same_ip
from fastlb._core.session_cache cimport (
    CACHE_HIT, SessionMap, session_cache_delete, session_cache_next,
)
from fastlb._core.session_store cimport (
    Cache, address_of, ip_text, key_of, row_of, ticks_between,
)
from fastlb._core.siphash cimport Hash128, hash128_equal

cdef enum:
    TALLIES_AT_FIRST = 256           # a power of two

ctypedef struct Tally:               # the maps of one address
    Address address
    uint32_t idle                    # ticks since the last use of the one used last
    uint64_t live
    uint64_t expired

TallyRow = namedtuple("TallyRow", "ip port live expired idle")


cdef class Walk:
    """All maps, or those of a node (`ip`, and `port` unless None), or that of a hash (`key`).

    `expiry` is the class's, in ticks; 0: maps live on.
    """

    cdef Cache of
    cdef uint32_t cursor
    cdef uint32_t now
    cdef uint32_t expiry
    cdef bint by_ip
    cdef bint by_port
    cdef bint by_key
    cdef Address wanted
    cdef Hash128 key
    cdef bint failed                 # out of memory

    def __init__(self, Cache of, uint32_t now, uint32_t expiry, str ip=None, port=None,
                 bytes key=None):
        self.of = of
        self.now = now
        self.expiry = expiry
        self.by_ip = ip is not None
        self.by_port = port is not None
        self.by_key = key is not None
        if ip is not None:
            self.wanted = address_of(ip, port or 0)
        if key is not None:
            self.key = key_of(key)

    def step(self, uint32_t count) -> bool:
        """Looks at up to `count` more maps; False: that was the last of them."""
        cdef SessionMap found
        cdef uint32_t _i
        cdef bint more = True
        self.of.segment.header()
        with nogil:
            for _i in range(count):
                more = session_cache_next(&self.of.cache, &self.cursor, &found)
                if not more:
                    break
                if self.matches(&found):
                    self.take(&found)
        if self.failed:
            raise MemoryError()
        return more

    cdef bint matches(self, const SessionMap* found) noexcept nogil:
        if self.by_key and not hash128_equal(&found.key, &self.key):
            return False
        if self.by_ip and not address_same_ip(&found.address, &self.wanted):
            return False
        return not self.by_port or found.address.port == self.wanted.port

    cdef bint is_dead(self, const SessionMap* found) noexcept nogil:
        if self.expiry and ticks_between(found.used_at, self.now) >= self.expiry:
            return True
        return found.deadline != 0 and <int32_t>(self.now - found.deadline) >= 0

    cdef void take(self, const SessionMap* found) noexcept nogil:
        pass


cdef class Census(Walk):
    """Counts maps by node."""

    cdef Tally* tallies              # open addressing, linear probing, at most half full
    cdef uint32_t room               # a power of two
    cdef uint32_t used

    def __cinit__(self):
        self.room = TALLIES_AT_FIRST
        self.tallies = <Tally*>calloc(self.room, sizeof(Tally))
        if self.tallies == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.tallies)

    cdef void take(self, const SessionMap* found) noexcept nogil:
        cdef Tally* one = tally_at(self.tallies, self.room, &found.address)
        cdef uint32_t idle = ticks_between(found.used_at, self.now)
        if one.live == 0 and one.expired == 0:
            if 2 * self.used >= self.room and not self.grow():
                self.failed = True
                return
            one = tally_at(self.tallies, self.room, &found.address)
            one.address = found.address
            one.idle = idle
            self.used += 1
        if self.is_dead(found):
            one.expired += 1
            return
        if one.live == 0 or idle < one.idle:
            one.idle = idle
        one.live += 1

    cdef bint grow(self) noexcept nogil:
        cdef uint32_t room = 2 * self.room
        cdef Tally* wider = <Tally*>calloc(room, sizeof(Tally))
        cdef Tally* one
        cdef uint32_t i
        if wider == NULL:
            return False
        for i in range(self.room):
            one = &self.tallies[i]
            if one.live or one.expired:
                tally_at(wider, room, &one.address)[0] = one[0]
        free(self.tallies)
        self.tallies = wider
        self.room = room
        return True

    def rows(self) -> list:
        """A TallyRow for each address; `idle`: ticks since the last use of a live map."""
        cdef Tally* one
        cdef uint32_t i
        found = []
        for i in range(self.room):
            one = &self.tallies[i]
            if one.live or one.expired:
                idle = one.idle if one.live else None
                found.append(TallyRow(ip_text(&one.address), one.address.port, one.live,
                                      one.expired, idle))
        return found


# The place of an address: its tally, or the free one where it belongs.
cdef Tally* tally_at(Tally* tallies, uint32_t room, const Address* address) noexcept nogil:
    cdef uint64_t words[2]
    cdef uint64_t mixed
    cdef uint32_t at
    memcpy(words, address.ip, 16)
    mixed = words[0] ^ words[1] ^ address.port
    mixed = (mixed ^ (mixed >> 32)) * <uint64_t>0x9e3779b97f4a7c15
    at = <uint32_t>(mixed >> 32) & (room - 1)
    while tallies[at].live or tallies[at].expired:
        if address_equal(&tallies[at].address, address):
            break
        at = (at + 1) & (room - 1)
    return &tallies[at]


cdef class Recent(Walk):
    """Keeps the `most` live maps that were used last, and counts all of them."""

    cdef SessionMap* heap            # the least recently used of those kept is the first
    cdef uint32_t most
    cdef uint32_t count
    cdef readonly uint64_t live

    def __init__(self, Cache of, uint32_t now, uint32_t expiry, uint32_t most, str ip=None,
                 port=None, bytes key=None):
        Walk.__init__(self, of, now, expiry, ip, port, key)
        if self.heap != NULL or not most:
            raise ValueError("a list of at least one map, made once")
        self.most = most
        self.heap = <SessionMap*>malloc(most * sizeof(SessionMap))
        if self.heap == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.heap)

    cdef void take(self, const SessionMap* found) noexcept nogil:
        if self.is_dead(found):
            return
        self.live += 1
        if self.count < self.most:
            self.count += 1
            self.up(found)
        elif used_before(&self.heap[0], found):
            self.down(found)

    # Puts a map at the end of the heap and moves it up to its place.
    cdef void up(self, const SessionMap* found) noexcept nogil:
        cdef uint32_t at = self.count - 1
        while at and used_before(found, &self.heap[(at - 1) // 2]):
            self.heap[at] = self.heap[(at - 1) // 2]
            at = (at - 1) // 2
        self.heap[at] = found[0]

    # Puts a map in the place of the first and moves it down.
    cdef void down(self, const SessionMap* found) noexcept nogil:
        cdef uint32_t at = 0
        cdef uint32_t child = 1
        while child < self.count:
            if child + 1 < self.count and used_before(&self.heap[child + 1], &self.heap[child]):
                child += 1
            if not used_before(&self.heap[child], found):
                break
            self.heap[at] = self.heap[child]
            at = child
            child = 2 * at + 1
        self.heap[at] = found[0]

    def rows(self) -> list:
        """A MapRow for each, most recently used first."""
        cdef uint32_t i
        found = [row_of(&self.heap[i], self.now) for i in range(self.count)]
        found.sort(key=lambda row: (row.idle, row.age, row.key))
        return found


cdef inline bint used_before(const SessionMap* a, const SessionMap* b) noexcept nogil:
    return <int32_t>(a.used_at - b.used_at) < 0


cdef class Removal(Walk):
    """Removes maps, dead or alive; of a node only those that are still its own."""

    cdef readonly uint64_t removed

    cdef void take(self, const SessionMap* found) noexcept nogil:
        cdef const Address* only = &found.address if self.by_ip else NULL
        self.removed += session_cache_delete(&self.of.cache, &found.key, only) == CACHE_HIT
