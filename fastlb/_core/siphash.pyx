# SipHash-2-4: two rounds for each 8-byte word, four at the end (section 2 of the paper).
#
# One-shot hashing is the incremental form on a local state: after inlining the state
# stays in registers. Words are little-endian, as on every machine that fastlb runs on
# (checked at import), so a word is read by memcpy, aligned or not.

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from fastlb._core.debug cimport BUG_ON

import sys

if sys.byteorder != "little":
    raise ImportError("fastlb runs on little-endian machines only")


cdef inline uint64_t rotate(uint64_t word, int bits) noexcept nogil:
    return (word << bits) | (word >> (64 - bits))


cdef inline void sip_round(SipState* s) noexcept nogil:
    s.v0 += s.v1
    s.v2 += s.v3
    s.v1 = rotate(s.v1, 13) ^ s.v0
    s.v3 = rotate(s.v3, 16) ^ s.v2
    s.v0 = rotate(s.v0, 32)
    s.v2 += s.v1
    s.v0 += s.v3
    s.v1 = rotate(s.v1, 17) ^ s.v2
    s.v3 = rotate(s.v3, 21) ^ s.v0
    s.v2 = rotate(s.v2, 32)


cdef inline void sip_word(SipState* s, uint64_t word) noexcept nogil:
    s.v3 ^= word
    sip_round(s)
    sip_round(s)
    s.v0 ^= word


cdef inline uint64_t load_word(const uint8_t* at) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, at, 8)
    return word


# The last `count` < 8 bytes as the low bytes of a word. Three reads that may overlap
# instead of a loop: keys are short, so this is a good part of the whole cost.
cdef inline uint64_t load_tail(const uint8_t* at, size_t count) noexcept nogil:
    cdef uint64_t high = 0
    cdef uint64_t low = 0
    if count >= 4:
        memcpy(&low, at, 4)
        memcpy(&high, at + count - 4, 4)
        return low | (high << (8 * (count - 4)))
    if count == 0:
        return 0
    low = at[0]
    low |= <uint64_t>at[count >> 1] << (8 * (count >> 1))
    return low | (<uint64_t>at[count - 1] << (8 * (count - 1)))


cdef inline void begin(SipState* s, const SipKey* key, bint wide) noexcept nogil:
    s.v0 = key.k0 ^ <uint64_t>0x736f6d6570736575
    s.v1 = key.k1 ^ <uint64_t>0x646f72616e646f6d
    s.v2 = key.k0 ^ <uint64_t>0x6c7967656e657261
    s.v3 = key.k1 ^ <uint64_t>0x7465646279746573
    s.total = 0
    s.partial = 0
    s.wide = wide
    if wide:
        s.v1 ^= 0xee


cdef inline uint64_t folded(SipState* s) noexcept nogil:
    sip_round(s)
    sip_round(s)
    sip_round(s)
    sip_round(s)
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3


cdef inline uint64_t end64(SipState* s) noexcept nogil:
    sip_word(s, s.partial | (s.total << 56))
    s.v2 ^= 0xff
    return folded(s)


cdef inline Hash128 end128(SipState* s) noexcept nogil:
    cdef Hash128 out
    sip_word(s, s.partial | (s.total << 56))
    s.v2 ^= 0xee
    out.lo = folded(s)
    s.v1 ^= 0xdd
    out.hi = folded(s)
    return out


cdef inline void absorb(SipState* s, const uint8_t* at, size_t count) noexcept nogil:
    cdef const uint8_t* end = at + (count & ~<size_t>7)
    while at != end:
        sip_word(s, load_word(at))
        at += 8
    s.partial = load_tail(at, count & 7)
    s.total = count


cdef void sip_key_load(SipKey* key, const uint8_t* secret16) noexcept nogil:
    key.k0 = load_word(secret16)
    key.k1 = load_word(secret16 + 8)


cdef uint64_t siphash64(const SipKey* key, const void* at, size_t count) noexcept nogil:
    cdef SipState s
    begin(&s, key, False)
    absorb(&s, <const uint8_t*>at, count)
    return end64(&s)


cdef Hash128 siphash128(const SipKey* key, const void* at, size_t count) noexcept nogil:
    cdef SipState s
    begin(&s, key, True)
    absorb(&s, <const uint8_t*>at, count)
    return end128(&s)


cdef void sip_init64(SipState* state, const SipKey* key) noexcept nogil:
    begin(state, key, False)


cdef void sip_init128(SipState* state, const SipKey* key) noexcept nogil:
    begin(state, key, True)


cdef void sip_update(SipState* state, const void* at, size_t count) noexcept nogil:
    cdef const uint8_t* p = <const uint8_t*>at
    cdef size_t held = state.total & 7
    cdef size_t room
    state.total += count
    if held:
        room = 8 - held
        if count < room:
            state.partial |= load_tail(p, count) << (8 * held)
            return
        sip_word(state, state.partial | (load_tail(p, room) << (8 * held)))
        p += room
        count -= room
    while count >= 8:
        sip_word(state, load_word(p))
        p += 8
        count -= 8
    state.partial = load_tail(p, count)


cdef void sip_update_u64(SipState* state, uint64_t value) noexcept nogil:
    sip_update(state, &value, 8)


cdef uint64_t sip_final64(SipState* state) noexcept nogil:
    BUG_ON(state.wide != 0)
    return end64(state)


cdef Hash128 sip_final128(SipState* state) noexcept nogil:
    BUG_ON(state.wide != 1)
    return end128(state)


# ---- for the control plane ----

def keyed_hash(bytes secret, bytes data) -> bytes:
    """The 16 bytes of SipHash-2-4-128 of `data`, as session caches keep a key."""
    cdef SipKey key
    cdef Hash128 hashed
    if len(secret) != 16:
        raise ValueError("a SipHash key is 16 bytes")
    sip_key_load(&key, <const uint8_t*><const char*>secret)
    hashed = siphash128(&key, <const char*>data, len(data))
    return PyBytes_FromStringAndSize(<const char*>&hashed, sizeof(Hash128))
