# The value of fastlb's own cookies: an opaque, authenticated text that names a class,
# a node and, where ages are limited, two dates.
#
# Plain text: flags 1, class 4, port 2, IP 4 or 16, [first seen 4, last seen 4] (little
# endian, dates in seconds since 1970). Encryption is deterministic and authenticated in
# the SIV shape (RFC 5297) with SipHash-2-4-128 as the pseudo-random function:
#   tag    = PRF(mac key, plain)
#   stream = PRF(stream key, tag || 0), PRF(stream key, tag || 1), ...
#   text   = base64url(tag || plain xor stream), without padding
# So a node has one value per class as long as no dates are in it, nobody without the
# keys can read or make one, and a changed byte is always noticed (probability 2^-128).

from libc.stdint cimport uint8_t, uint32_t

from fastlb._core.address cimport Address
from fastlb._core.siphash cimport SipKey

cdef enum:
    TOKEN_PLAIN_BYTES_MAX = 31
    TOKEN_TEXT_BYTES_MAX = 64        # 16 + 31 bytes in base64url: 63

cdef enum TokenError:
    TOKEN_TAMPERED = -1              # not made with these keys, or damaged

ctypedef struct Token:
    Address node
    uint32_t class_id
    uint32_t first_seen_s            # wall clock; 0 with last_seen_s 0: no dates
    uint32_t last_seen_s

# Writes the text, returns its length.
cdef uint32_t token_write(const SipKey* mac, const SipKey* stream, const Token* token,
                          char* out) noexcept nogil
# Values that were read before are known again without hashing: a small direct-mapped table, of
# this process and of these keys, that only authentic values enter, so that a flood of wrong
# ones displaces nothing.
# 0 or TOKEN_TAMPERED; any length and any bytes are allowed as input.
cdef int token_read(const SipKey* mac, const SipKey* stream, const char* text, uint32_t count,
                    Token* token) noexcept nogil

# The parts, for values that are encrypted otherwise (sealed.pyx). The plain text's length; 0
# or TOKEN_TAMPERED.
cdef uint32_t token_plain_write(const Token* token, uint8_t* out) noexcept nogil
cdef int token_plain_read(const uint8_t* plain, uint32_t count, Token* token) noexcept nogil
# base64url without padding. Reading needs room for `count` * 3 / 4 bytes and returns how many
# it wrote; -1: a wrong character, or bits that no writer sets (each value has one text).
cdef uint32_t token_text_write(const uint8_t* data, uint32_t count, char* out) noexcept nogil
cdef int token_text_read(const char* text, uint32_t count, uint8_t* out) noexcept nogil
