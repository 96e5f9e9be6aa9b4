# The Python edge of session caches; what walks over a cache's maps stands on it.

from libc.stdint cimport uint32_t

from fastlb._core.address cimport Address
from fastlb._core.session_cache cimport SessionMap
from fastlb._core.session_shard cimport SessionCache
from fastlb._core.shm cimport Segment
from fastlb._core.siphash cimport Hash128


cdef class Cache:
    cdef SessionCache cache
    cdef readonly Segment segment
    cdef readonly str name
    cdef readonly object offset


cdef uint32_t ticks_between(uint32_t then, uint32_t now) noexcept nogil
cdef Hash128 key_of(bytes key) except *
cdef Address address_of(str ip, int port) except *
cdef str ip_text(const Address* address)
cdef object row_of(const SessionMap* found, uint32_t now)
