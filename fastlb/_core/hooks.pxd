# Calls from the data plane into Python: the only module that takes the GIL, and it counts how
# often (WorkerStats.gil_acquisitions). Nothing raised there gets out: the first failure is
# reported on standard error, each one is a 0 to the caller.
#
# Keys and buffers are the caller's; Python gets copies.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    SIV_KEY_BYTES = 64               # AES-256-SIV (RFC 5297): two keys of 32 bytes
    SIV_TAG_BYTES = 16               # in front of the cipher text

# Where acquisitions are counted from now on; NULL: nowhere.
cdef void hooks_open(uint64_t* acquisitions) noexcept nogil
# Imports what the calls below need, so that no request waits for that. Once is enough.
cdef void hooks_prepare() noexcept nogil
# Writes `count` + SIV_TAG_BYTES bytes and returns how many; 0: it failed.
cdef uint32_t hooks_siv_encrypt(const uint8_t* key, const uint8_t* plain, uint32_t count,
                                uint8_t* out) noexcept nogil
# Writes `count` - SIV_TAG_BYTES bytes and returns how many; 0: not made with this key, changed,
# or it failed.
cdef uint32_t hooks_siv_decrypt(const uint8_t* key, const uint8_t* cipher, uint32_t count,
                                uint8_t* out) noexcept nogil
