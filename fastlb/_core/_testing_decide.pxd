# Test-only: a plan with its node table and session caches, for the tests of whole messages too.

from libc.stdint cimport uint32_t, uint64_t

from fastlb._core._testing_plan cimport PlanImage
from fastlb._core.address cimport Address
from fastlb._core.decision cimport DecideInput, Decision
from fastlb._core.head cimport Head
from fastlb._core.node cimport NodeTable
from fastlb._core.session_shard cimport SessionCache
from fastlb._core.shm cimport Segment
from fastlb._core.tls_hello cimport TLS_HELLO_BYTES_MAX, TlsClientHello

cdef class Hello:
    cdef bytes data
    cdef TlsClientHello hello
    cdef char[TLS_HELLO_BYTES_MAX] joined

cdef class World:
    cdef readonly PlanImage image
    cdef Segment segment
    cdef NodeTable* table
    cdef SessionCache* caches
    cdef SessionCache* reservations
    cdef public uint64_t random
    cdef public uint64_t now_ms
    cdef public uint32_t now_ticks
    cdef public uint32_t wall_s

cdef class Made:
    cdef readonly World world
    cdef Decision d
    cdef Head* head
    cdef bytes data
    cdef Address client
    cdef Address named
    cdef bint has_named
    cdef Hello hello
    cdef uint32_t pool
    cdef bint peek
    cdef void _input(self, DecideInput* ask)
