# What a call takes along when it leaves the worker's thread: all that its facts point to, copied
# in one piece, so that nothing of it moves. Parsed heads stay behind.

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from fastlb._core.arena cimport ARENA_BYTES_MAX, arena_clear, arena_room
from fastlb._core.slice cimport Slice, slice_of

ctypedef Slice* SliceAt

cdef enum:
    SLICES = 7


cdef uint32_t _slices(RuleFacts* facts, SliceAt* out) noexcept nogil:
    out[0] = &facts.key
    out[1] = &facts.request
    out[2] = &facts.response
    out[3] = &facts.sni
    out[4] = &facts.alpn
    out[5] = &facts.subject
    out[6] = &facts.certificate
    return SLICES


cdef bint rule_call_own(RuleCall* call) noexcept nogil:
    cdef SliceAt[SLICES] slices
    cdef uint32_t i, count = _slices(&call.facts, slices)
    cdef uint64_t bytes = 0
    cdef char* at
    call.facts.request_head = NULL
    call.facts.response_head = NULL
    for i in range(count):
        bytes += slices[i].bytes
    arena_clear(&call.copied)
    at = arena_room(&call.copied, <uint32_t> bytes) if bytes < ARENA_BYTES_MAX else NULL
    if at == NULL:
        return False
    for i in range(count):
        if slices[i].at == NULL:
            continue                 # not set, which is not the same as empty
        memcpy(at, slices[i].at, slices[i].bytes)
        slices[i][0] = slice_of(at, slices[i].bytes)
        at += slices[i].bytes
    return True
