# SipHash-2-4 with 64 and 128 bits of output (Aumasson and Bernstein, INDOCRYPT 2012;
# the 128-bit form is the authors' later addition to their reference program).
#
# Keyed: who does not know the key can neither choose colliding inputs nor learn an
# input from its hash. Session keys, cookies' tags and hash tables all use it.

from libc.stdint cimport uint8_t, uint32_t, uint64_t


ctypedef struct SipKey:
    uint64_t k0                      # bytes 0-7 of the 16-byte secret, little-endian
    uint64_t k1                      # bytes 8-15


ctypedef struct Hash128:
    uint64_t lo                      # bytes 0-7 of the published output, little-endian
    uint64_t hi                      # bytes 8-15


# A hash that is fed in parts; lives on the caller's stack. Parts are simply joined:
# a caller that hashes a list puts each part's length in front of it (sip_update_u64).
ctypedef struct SipState:
    uint64_t v0
    uint64_t v1
    uint64_t v2
    uint64_t v3
    uint64_t total                   # bytes taken so far
    uint64_t partial                 # the last `total % 8` bytes, right-aligned
    uint32_t wide                    # 1: begun by sip_init128


cdef inline bint hash128_equal(const Hash128* a, const Hash128* b) noexcept nogil:
    return a.lo == b.lo and a.hi == b.hi


cdef void sip_key_load(SipKey* key, const uint8_t* secret16) noexcept nogil

cdef uint64_t siphash64(const SipKey* key, const void* at, size_t count) noexcept nogil
cdef Hash128 siphash128(const SipKey* key, const void* at, size_t count) noexcept nogil

cdef void sip_init64(SipState* state, const SipKey* key) noexcept nogil
cdef void sip_init128(SipState* state, const SipKey* key) noexcept nogil
cdef void sip_update(SipState* state, const void* at, size_t count) noexcept nogil
cdef void sip_update_u64(SipState* state, uint64_t value) noexcept nogil
# Each may be called once, and only after the init of its width.
cdef uint64_t sip_final64(SipState* state) noexcept nogil
cdef Hash128 sip_final128(SipState* state) noexcept nogil
