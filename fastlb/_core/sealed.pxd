# The value of an encrypted cookie: the plain text of token.pxd, sealed with AES-256-SIV
# (RFC 5297) under the key of a passphrase, and a keyed mark in front.
#
#   sealed = AES-SIV(cipher key, plain)                16 bytes longer than the plain text
#   mark   = SipHash-2-4-64(mark key, sealed)
#   value  = base64url(mark || sealed), without padding
#
# The mark refuses what nobody with a passphrase made before any encryption, so that wrong
# values cost neither the GIL nor AES; and it tells which of the passphrases it was.

from libc.stdint cimport uint32_t

from fastlb._core.plan cimport PlanPassphrase
from fastlb._core.token cimport Token

cdef enum:
    SEALED_TEXT_BYTES_MAX = 74       # 8 + 16 + 31 bytes in base64url

# Writes the text, made with `keys[0]`; returns its length, 0: it could not be encrypted.
cdef uint32_t sealed_write(const PlanPassphrase* keys, const Token* token,
                           char* out) noexcept nogil
# Which of the `key_count` passphrases it was made with, or TOKEN_TAMPERED; any length and any
# bytes are allowed as input.
cdef int sealed_read(const PlanPassphrase* keys, uint32_t key_count, const char* text,
                     uint32_t count, Token* token) noexcept nogil
