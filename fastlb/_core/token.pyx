# Reading and writing of cookie values (format and reasons in token.pxd).

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from fastlb._core.address cimport address_is_ipv4
from fastlb._core.siphash cimport Hash128, SipKey, siphash128

cdef enum:
    TAG_BYTES = 16
    FLAG_IPV6 = 1
    FLAG_DATES = 2
    FLAGS_KNOWN = 3

cdef const char* ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
cdef uint8_t _digit[256]             # value of a base64url character, 255: none


def _fill_digits():
    cdef int i
    memset(_digit, 255, sizeof(_digit))
    for i in range(64):
        _digit[<uint8_t> ALPHABET[i]] = <uint8_t> i


_fill_digits()


cdef uint32_t token_text_write(const uint8_t* data, uint32_t count, char* out) noexcept nogil:
    cdef uint32_t i = 0, at = 0, group
    while i + 3 <= count:
        group = (<uint32_t> data[i] << 16) | (<uint32_t> data[i + 1] << 8) | data[i + 2]
        out[at] = ALPHABET[group >> 18]
        out[at + 1] = ALPHABET[(group >> 12) & 63]
        out[at + 2] = ALPHABET[(group >> 6) & 63]
        out[at + 3] = ALPHABET[group & 63]
        i += 3
        at += 4
    if i == count:
        return at
    group = <uint32_t> data[i] << 16
    if i + 1 < count:
        group |= <uint32_t> data[i + 1] << 8
    out[at] = ALPHABET[group >> 18]
    out[at + 1] = ALPHABET[(group >> 12) & 63]
    if i + 1 == count:
        return at + 2
    out[at + 2] = ALPHABET[(group >> 6) & 63]
    return at + 3


cdef int token_text_read(const char* text, uint32_t count, uint8_t* out) noexcept nogil:
    cdef uint32_t i, bits = 0, held = 0
    cdef int at = 0
    cdef uint8_t digit
    if count % 4 == 1:
        return -1
    for i in range(count):
        digit = _digit[<uint8_t> text[i]]
        if digit == 255:
            return -1
        held = (held << 6) | digit
        bits += 6
        if bits >= 8:
            bits -= 8
            out[at] = <uint8_t> (held >> bits)
            held &= (1 << bits) - 1
            at += 1
    return at if held == 0 else -1


cdef void _stream(const SipKey* key, const uint8_t* tag, uint8_t* data,
                  uint32_t count) noexcept nogil:
    cdef uint8_t block[TAG_BYTES + 1]
    cdef Hash128 pad
    cdef uint32_t i
    memcpy(block, tag, TAG_BYTES)
    for i in range(count):
        if i % TAG_BYTES == 0:
            block[TAG_BYTES] = <uint8_t> (i // TAG_BYTES)
            pad = siphash128(key, block, sizeof(block))
        data[i] ^= (<const uint8_t*> &pad)[i % TAG_BYTES]


cdef uint32_t token_plain_write(const Token* token, uint8_t* out) noexcept nogil:
    cdef bint ipv4 = address_is_ipv4(&token.node)
    cdef bint dates = token.first_seen_s != 0 or token.last_seen_s != 0
    cdef uint32_t ip_bytes = 4 if ipv4 else 16
    cdef uint32_t at = 7 + ip_bytes
    out[0] = (0 if ipv4 else FLAG_IPV6) | (FLAG_DATES if dates else 0)
    memcpy(out + 1, &token.class_id, 4)
    memcpy(out + 5, &token.node.port, 2)
    memcpy(out + 7, &token.node.ip[16 - ip_bytes], ip_bytes)
    if dates:
        memcpy(out + at, &token.first_seen_s, 4)
        memcpy(out + at + 4, &token.last_seen_s, 4)
        at += 8
    return at


cdef int token_plain_read(const uint8_t* plain, uint32_t count, Token* token) noexcept nogil:
    cdef bint ipv6 = plain[0] & FLAG_IPV6 != 0
    cdef bint dates = plain[0] & FLAG_DATES != 0
    cdef uint32_t ip_bytes = 16 if ipv6 else 4
    if plain[0] & ~FLAGS_KNOWN or count != 7 + ip_bytes + (8 if dates else 0):
        return TOKEN_TAMPERED
    memset(token, 0, sizeof(Token))
    memcpy(&token.class_id, plain + 1, 4)
    memcpy(&token.node.port, plain + 5, 2)
    if not ipv6:
        token.node.ip[10] = 0xFF
        token.node.ip[11] = 0xFF
    memcpy(&token.node.ip[16 - ip_bytes], plain + 7, ip_bytes)
    if dates:
        memcpy(&token.first_seen_s, plain + 7 + ip_bytes, 4)
        memcpy(&token.last_seen_s, plain + 11 + ip_bytes, 4)
    return 0


cdef uint32_t token_write(const SipKey* mac, const SipKey* stream, const Token* token,
                          char* out) noexcept nogil:
    cdef uint8_t data[TAG_BYTES + TOKEN_PLAIN_BYTES_MAX]
    cdef uint32_t count = token_plain_write(token, data + TAG_BYTES)
    cdef Hash128 tag = siphash128(mac, data + TAG_BYTES, count)
    memcpy(data, &tag, TAG_BYTES)
    _stream(stream, data, data + TAG_BYTES, count)
    return token_text_write(data, TAG_BYTES + count, out)


cdef enum:
    KNOWN = 256                      # 28 KiB; one per class and node is enough without dates

ctypedef struct Known:
    uint64_t[8] words                # the text, padded with zeros, its length in the last byte
    SipKey mac                       # the keys that it was read with
    SipKey stream
    Token token

cdef Known[KNOWN] _known


cdef int token_read(const SipKey* mac, const SipKey* stream, const char* text, uint32_t count,
                    Token* token) noexcept nogil:
    cdef uint64_t[8] words
    cdef uint64_t differs
    cdef Known* known
    cdef int i, result
    # The lengths of the four forms: nothing else is looked at.
    if count != 36 and count != 47 and count != 52 and count != 63:
        return TOKEN_TAMPERED
    memset(words, 0, sizeof(words))
    memcpy(words, text, count)
    (<uint8_t*> words)[63] = <uint8_t> count
    known = &_known[((words[0] ^ words[1]) * <uint64_t> 0x9E3779B97F4A7C15ULL) >> 56]
    # Without an early end, so that the time tells nothing about a known value.
    differs = (known.mac.k0 ^ mac.k0) | (known.mac.k1 ^ mac.k1)
    differs |= (known.stream.k0 ^ stream.k0) | (known.stream.k1 ^ stream.k1)
    for i in range(8):
        differs |= known.words[i] ^ words[i]
    if differs == 0:
        token[0] = known.token
        return 0
    result = _read(mac, stream, text, count, token)
    if result == 0:
        memcpy(known.words, words, sizeof(words))
        known.mac = mac[0]
        known.stream = stream[0]
        known.token = token[0]
    return result


cdef int _read(const SipKey* mac, const SipKey* stream, const char* text, uint32_t count,
               Token* token) noexcept nogil:
    cdef uint8_t data[TAG_BYTES + TOKEN_PLAIN_BYTES_MAX + 1]
    cdef Hash128 tag, claimed
    cdef int bytes
    bytes = token_text_read(text, count, data)
    if bytes < 0:
        return TOKEN_TAMPERED
    bytes -= TAG_BYTES
    _stream(stream, data, data + TAG_BYTES, <uint32_t> bytes)
    tag = siphash128(mac, data + TAG_BYTES, <size_t> bytes)
    memcpy(&claimed, data, TAG_BYTES)
    if (tag.lo ^ claimed.lo) | (tag.hi ^ claimed.hi):
        return TOKEN_TAMPERED
    return token_plain_read(data + TAG_BYTES, <uint32_t> bytes, token)
