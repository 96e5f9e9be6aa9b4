# The Python edge of session caches: for the control plane and the command line, never on
# the way of a request. Making, listing, deleting, and saving to a state file.
#
# State file, all numbers little-endian:
#
#   header   magic "FLBMAPS\n", version, bytes of the whole header, TICK_MS, record bytes,
#            count of maps, wall clock when saved (s), secret's mark (16 bytes), class name
#   block …  count of records (0 ends the file), that many records of 48 bytes
#
# Header and blocks are each followed by a BLAKE2b-128 of them and of their number, so that
# a torn, shortened, or rearranged file is noticed. Records are oldest first and hold ages
# and remaining times, never a clock's value: the epoch of `now` differs between starts.
# Nothing is imported before the whole file was found good.

import hashlib
import ipaddress
import os
import struct
import time
from collections import namedtuple

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcpy, memset

from fastlb._core.address cimport Address, address_equal
from fastlb._core.limits cimport TICK_MS
from fastlb._core.session_cache cimport (
    CACHE_HIT, CacheStats, SessionMap, session_cache_copy_list, session_cache_deadline,
    session_cache_delete, session_cache_flush, session_cache_next, session_cache_restore,
    session_cache_stats,
)
from fastlb._core.session_layout cimport (
    CACHE_BAD_SIZE, session_cache_bytes, session_cache_format, session_cache_open,
)
from fastlb._core.session_shard cimport SessionCache
from fastlb._core.session_verify cimport session_cache_verify
from fastlb._core.shm cimport REGION_SESSION_CACHE, Segment
from fastlb._core.siphash cimport Hash128

MapRow = namedtuple("MapRow", "key ip port idle age remaining")
StatsRow = namedtuple("StatsRow", "entries size oldest hits misses expiries evictions")

cdef enum:
    BLOCK_RECORDS = 4096
    FILE_VERSION = 1
    DIGEST_BYTES = 16
    AGE_MAX = 0x7fffffff

FILE_MAGIC = b"FLBMAPS\n"
HEADER = struct.Struct("<8sIIIIQQ16sH")


class StateFileError(Exception):
    """A state file is damaged, or is not this class's; nothing was imported from it."""


class CacheDamagedError(Exception):
    """A session cache's structure is not consistent: a defect of fastlb."""


ctypedef struct SavedMap:            # one record of a state file
    Hash128 key
    uint8_t[16] ip
    uint16_t port
    uint16_t reserved
    uint32_t idle                    # ticks
    uint32_t age                     # ticks
    uint32_t remaining               # ticks to the deadline; 0: none

if sizeof(SavedMap) != 48:
    raise ImportError("a record of a state file must have 48 bytes")


cdef uint32_t ticks_between(uint32_t then, uint32_t now) noexcept nogil:
    return 0 if <int32_t>(now - then) < 0 else now - then


cdef int compare_used_at(const void* a, const void* b) noexcept nogil:
    cdef int32_t ticks = <int32_t>((<SessionMap*>a).used_at - (<SessionMap*>b).used_at)
    return (ticks > 0) - (ticks < 0)


cdef bytes key_bytes(Hash128 key):
    return PyBytes_FromStringAndSize(<char*>&key, 16)


cdef Hash128 key_of(bytes key) except *:
    cdef Hash128 h
    if len(key) != 16:
        raise ValueError("a map's key is the 16 bytes of its hash")
    memcpy(&h, <const char*>key, 16)
    return h


cdef Address address_of(str ip, int port) except *:
    cdef Address address
    parsed = ipaddress.ip_address(ip)
    packed = parsed.packed if parsed.version == 6 else bytes(10) + b"\xff\xff" + parsed.packed
    memcpy(address.ip, <const char*><bytes>packed, 16)
    address.port = port
    return address


cdef str ip_text(const Address* address):
    parsed = ipaddress.IPv6Address(PyBytes_FromStringAndSize(<const char*>address.ip, 16))
    return str(parsed.ipv4_mapped or parsed)


cdef object row_of(const SessionMap* found, uint32_t now):
    remaining = None
    if found.deadline:
        remaining = ticks_between(now, found.deadline)
    return MapRow(key_bytes(found.key), ip_text(&found.address), found.address.port,
                  ticks_between(found.used_at, now), ticks_between(found.created_at, now),
                  remaining)


cdef class Cache:
    """A session cache in a region of a segment. Times are ticks (TICK_MS milliseconds).

    `Cache.create(segment, name, size)` makes one, `Cache.open(segment, name)` finds it.
    """

    @staticmethod
    def bytes_for(uint32_t size):
        """Bytes of shared memory that a cache of `size` maps takes; 0: no such cache."""
        return session_cache_bytes(size)

    @staticmethod
    def create(Segment segment, str name, uint32_t size):
        count = session_cache_bytes(size)
        if not count:
            raise ValueError(f"a session cache cannot have {size} maps")
        offset = segment.allocate(name, REGION_SESSION_CACHE, count)
        if session_cache_format(segment.at(offset), count, size) == CACHE_BAD_SIZE:
            raise ValueError(f"a session cache cannot have {size} maps")
        return Cache.open(segment, name)

    @staticmethod
    def open(Segment segment, str name):
        cdef Cache self = Cache.__new__(Cache)
        place = segment.find(name)
        if place is None:
            raise KeyError(name)
        if session_cache_open(&self.cache, segment.at(place[0]), place[1]) < 0:
            raise ValueError(f"region {name!r} is not a session cache of this version")
        self.segment = segment
        self.name = name
        self.offset = place[0]
        return self

    def stats(self, uint32_t now):
        """Counters and occupancy; `oldest`: ticks since the least recent use, 0 when empty."""
        cdef CacheStats s
        self.segment.header()
        session_cache_stats(&self.cache, now, &s)
        return StatsRow(s.entries, s.size, s.oldest, s.hits, s.misses, s.expiries, s.evictions)

    def entries(self, uint32_t now):
        """Iterates over all maps as MapRow, in no order, while traffic goes on."""
        cdef uint32_t cursor = 0
        cdef SessionMap found
        while True:
            self.segment.header()
            if not session_cache_next(&self.cache, &cursor, &found):
                return
            yield row_of(&found, now)

    def delete(self, bytes key):
        """Removes the map of a key's hash; was there one?"""
        cdef Hash128 h = key_of(key)
        self.segment.header()
        return session_cache_delete(&self.cache, &h, NULL) == CACHE_HIT

    def delete_address(self, str ip, port=None):
        """Removes all maps of a node, or of all nodes with that IP; returns how many."""
        cdef Address wanted = address_of(ip, port or 0)
        cdef SessionMap found
        cdef uint32_t cursor = 0
        removed = 0
        self.segment.header()
        while session_cache_next(&self.cache, &cursor, &found):
            if port is None:
                wanted.port = found.address.port
            if address_equal(&found.address, &wanted):
                removed += session_cache_delete(&self.cache, &found.key, &wanted) == CACHE_HIT
        return removed

    def flush(self):
        """Removes all maps; returns how many."""
        self.segment.header()
        return session_cache_flush(&self.cache)

    def verify(self):
        """Checks the whole structure (holding all locks); raises CacheDamagedError."""
        cdef uint8_t* marks = <uint8_t*>malloc(<size_t>self.cache.size + 1)
        cdef int result
        self.segment.header()
        if marks == NULL:
            raise MemoryError()
        with nogil:
            result = session_cache_verify(&self.cache, marks)
        free(marks)
        if result < 0:
            raise CacheDamagedError(f"session cache {self.name!r} is damaged (check {-result})")

    def save(self, path, str class_name, uint32_t now, bytes secret_mark=bytes(16)):
        """Writes all maps to `path` (0600, replaced as a whole); returns how many."""
        cdef SessionMap* maps = <SessionMap*>malloc(self.cache.size * sizeof(SessionMap))
        cdef uint32_t count
        self.segment.header()
        if maps == NULL:
            raise MemoryError()
        try:
            with nogil:
                count = collect(&self.cache, maps)
            blocks = encode_all(maps, count, now)
        finally:
            free(maps)
        write_file(path, header_bytes(class_name, secret_mark, count), blocks)
        return count

    def load(self, path, str class_name, uint32_t now, bytes secret_mark=bytes(16)):
        """Puts the maps of a state file back, aged by the time since; returns how many.

        Raises StateFileError, and imports nothing, when the file is damaged or belongs to
        another class or secret. A map that the cache has meanwhile is kept.
        """
        self.segment.header()
        elapsed = check_file(path, class_name, secret_mark)
        restored = 0
        for payload in blocks_of(path):
            restored += restore(&self.cache, payload, now, elapsed)
        return restored


# Least recently used first, as the loader needs it.
cdef uint32_t collect(SessionCache* cache, SessionMap* maps) noexcept nogil:
    cdef uint32_t cursor = 0
    cdef uint32_t count = 0
    if cache.exact:
        return session_cache_copy_list(cache, 1, maps, cache.size)
    while count < cache.size and session_cache_next(cache, &cursor, &maps[count]):
        count += 1
    qsort(maps, count, sizeof(SessionMap), compare_used_at)
    return count


cdef bytes encode(const SessionMap* maps, uint32_t count, uint32_t now):
    cdef bytes block = PyBytes_FromStringAndSize(NULL, count * sizeof(SavedMap))
    cdef SavedMap* saved = <SavedMap*><char*>block
    cdef uint32_t i
    memset(saved, 0, count * sizeof(SavedMap))
    for i in range(count):
        saved[i].key = maps[i].key
        memcpy(saved[i].ip, maps[i].address.ip, 16)
        saved[i].port = maps[i].address.port
        saved[i].idle = ticks_between(maps[i].used_at, now)
        saved[i].age = ticks_between(maps[i].created_at, now)
        if maps[i].deadline:
            saved[i].remaining = max(1, ticks_between(now, maps[i].deadline))
    return block


cdef list encode_all(const SessionMap* maps, uint32_t count, uint32_t now):
    cdef uint32_t done = 0
    cdef uint32_t records
    blocks = []
    while done < count:
        records = min(<uint32_t>BLOCK_RECORDS, count - done)
        blocks.append(encode(maps + done, records, now))
        done += records
    return blocks


cdef uint32_t back_from(uint32_t now, uint64_t ticks) noexcept:
    return now - <uint32_t>(ticks if ticks < AGE_MAX else AGE_MAX)


cdef int64_t restore(
    SessionCache* cache, bytes block, uint32_t now, uint64_t elapsed
) except -1:
    cdef const SavedMap* saved = <const SavedMap*><const char*>block
    cdef SessionMap put
    cdef int64_t restored = 0
    cdef uint32_t i
    for i in range(len(block) // sizeof(SavedMap)):
        if saved[i].remaining and saved[i].remaining <= elapsed:
            continue
        put.key = saved[i].key
        memcpy(put.address.ip, saved[i].ip, 16)
        put.address.port = saved[i].port
        put.used_at = back_from(now, saved[i].idle + elapsed)
        put.created_at = back_from(now, saved[i].age + elapsed)
        put.deadline = 0
        if saved[i].remaining:
            put.deadline = session_cache_deadline(now, <uint32_t>(saved[i].remaining - elapsed))
        restored += session_cache_restore(cache, &put)
    return restored


# ---- the file ----

def digest_of(number, data):
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES, salt=struct.pack("<Q", number)).digest()


def header_bytes(class_name, secret_mark, count):
    name = class_name.encode()
    size = HEADER.size + len(name)
    head = HEADER.pack(FILE_MAGIC, FILE_VERSION, size, TICK_MS, sizeof(SavedMap), count,
                       int(time.time()), secret_mark, len(name)) + name
    return head + digest_of(0, head)


def write_file(path, header, blocks):
    """Writes beside `path`, then renames: the old file or the whole new one is there."""
    path = os.fspath(path)
    new = path + ".new"
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600),
              "wb") as file:
        file.write(header)
        number = 0
        for payload in blocks:
            number += 1
            data = struct.pack("<I", len(payload) // sizeof(SavedMap)) + payload
            file.write(data + digest_of(number, data))
        end = struct.pack("<I", 0)
        file.write(end + digest_of(number + 1, end))
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def read_exactly(file, count, path):
    data = file.read(count)
    if len(data) != count:
        raise StateFileError(f"{path}: the file ends too early")
    return data


def read_header(file, path):
    head = read_exactly(file, HEADER.size, path)
    fields = HEADER.unpack(head)
    if fields[0] != FILE_MAGIC:
        raise StateFileError(f"{path}: not a file of session maps")
    if fields[1] != FILE_VERSION or fields[4] != sizeof(SavedMap) or fields[3] != TICK_MS:
        raise StateFileError(f"{path}: written by another version of fastlb")
    head += read_exactly(file, fields[8], path)
    if read_exactly(file, DIGEST_BYTES, path) != digest_of(0, head):
        raise StateFileError(f"{path}: the header is damaged")
    return fields, head[HEADER.size:].decode()


def read_blocks(file, path):
    number = 0
    while True:
        number += 1
        head = read_exactly(file, 4, path)
        count = struct.unpack("<I", head)[0]
        if count > BLOCK_RECORDS:
            raise StateFileError(f"{path}: block {number} is damaged")
        payload = read_exactly(file, count * sizeof(SavedMap), path)
        if read_exactly(file, DIGEST_BYTES, path) != digest_of(number, head + payload):
            raise StateFileError(f"{path}: block {number} is damaged")
        if not count:
            return
        yield payload


def check_file(path, class_name, secret_mark):
    """Reads the whole file; returns the ticks since it was written."""
    with open(path, "rb") as file:
        fields, name = read_header(file, path)
        if name != class_name:
            raise StateFileError(f"{path}: holds the maps of class {name!r}, not {class_name!r}")
        if fields[7] != secret_mark:
            raise StateFileError(f"{path}: was written under another secret")
        count = sum(len(payload) for payload in read_blocks(file, path)) // sizeof(SavedMap)
        if count != fields[5] or file.read(1):
            raise StateFileError(f"{path}: holds another count of maps than it says")
    return max(0, int(time.time()) - fields[6]) * 1000 // TICK_MS


def blocks_of(path):
    with open(path, "rb") as file:
        read_header(file, path)
        yield from read_blocks(file, path)
