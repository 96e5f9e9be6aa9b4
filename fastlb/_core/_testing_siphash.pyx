# Test-only: SipHash over Python bytes, whole and in parts, and a loop for benchmarks.

from libc.stdint cimport uint8_t, uint64_t

from fastlb._core.siphash cimport (
    Hash128, SipKey, SipState, sip_final64, sip_final128, sip_init64, sip_init128,
    sip_key_load, sip_update, sip_update_u64, siphash64, siphash128,
)


cdef SipKey key_of(bytes secret):
    cdef SipKey key
    if len(secret) != 16:
        raise ValueError("a SipHash key is 16 bytes")
    sip_key_load(&key, <const uint8_t*><const char*>secret)
    return key


cdef bytes hash_bytes(Hash128 h):
    return int(h.lo).to_bytes(8, "little") + int(h.hi).to_bytes(8, "little")


def hash64(bytes secret, bytes data, int offset=0):
    """Output bytes of SipHash-2-4-64 over data[offset:], read where it lies (unaligned)."""
    cdef SipKey key = key_of(secret)
    cdef const char* at = data
    return int(siphash64(&key, at + offset, len(data) - offset)).to_bytes(8, "little")


def hash128(bytes secret, bytes data, int offset=0):
    cdef SipKey key = key_of(secret)
    cdef const char* at = data
    return hash_bytes(siphash128(&key, at + offset, len(data) - offset))


def hash_parts(bytes secret, list parts, bint wide):
    """The same through the incremental interface; an int part goes through sip_update_u64."""
    cdef SipKey key = key_of(secret)
    cdef SipState state
    cdef const char* at
    if wide:
        sip_init128(&state, &key)
    else:
        sip_init64(&state, &key)
    for part in parts:
        if isinstance(part, int):
            sip_update_u64(&state, part)
        else:
            at = <bytes>part
            sip_update(&state, at, len(part))
    if wide:
        return hash_bytes(sip_final128(&state))
    return int(sip_final64(&state)).to_bytes(8, "little")


def hash128_loop(bytes secret, bytes data, uint64_t rounds):
    """`rounds` hashes, each over data changed by the one before (latency, not throughput)."""
    cdef SipKey key = key_of(secret)
    cdef bytearray copy = bytearray(data)
    cdef char* at = copy
    cdef size_t count = len(data)
    cdef uint64_t _i
    cdef Hash128 h
    with nogil:
        for _i in range(rounds):
            h = siphash128(&key, at, count)
            at[0] = <char>h.lo
    return hash_bytes(h)
