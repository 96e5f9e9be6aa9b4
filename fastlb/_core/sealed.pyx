# Reading and writing of encrypted cookie values (format and reasons in sealed.pxd).
#
# Two direct-mapped tables of this process save nearly all encryption. Values that were opened,
# or made, are known again by their text; values that were made are found again by what they
# say (without dates there is one per class and node). Only authentic values get in, so a flood
# of wrong ones displaces nothing; and each entry is good under its passphrase only. Both keys
# of a passphrase come from it together: the mark's stands for both.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from fastlb._core.address cimport address_equal
from fastlb._core.debug cimport BUG_ON
from fastlb._core.hooks cimport SIV_TAG_BYTES, hooks_siv_decrypt, hooks_siv_encrypt
from fastlb._core.plan cimport PlanPassphrase
from fastlb._core.siphash cimport SipKey, siphash64
from fastlb._core.token cimport (
    TOKEN_PLAIN_BYTES_MAX, TOKEN_TAMPERED, Token, token_plain_read, token_plain_write,
    token_text_read, token_text_write,
)

cdef enum:
    MARK_BYTES = 8
    DATA_BYTES_MAX = MARK_BYTES + SIV_TAG_BYTES + TOKEN_PLAIN_BYTES_MAX
    WORDS = 10                       # SEALED_TEXT_BYTES_MAX, and a byte for the length
    LENGTH_AT = 79
    READ_BITS = 12                   # 512 KiB at most: with dates each user has a value
    MADE_BITS = 8                    # 32 KiB: those of one second, or one per class and node

ctypedef struct Known:
    uint64_t[WORDS] words            # the text, padded with zeros, its length in the last byte
    SipKey mark                      # of the passphrase that it was made with
    Token token

cdef Known[1 << READ_BITS] _read
cdef Known[1 << MADE_BITS] _made

if sizeof(Known) != 128:
    raise ImportError("fastlb._core.sealed: an entry is not two cache lines")


cdef inline uint64_t _mixed(uint64_t x) noexcept nogil:
    return x * <uint64_t> 0x9E3779B97F4A7C15ULL


cdef inline Known* _read_place(const uint64_t* words) noexcept nogil:
    # The text begins with the mark, which is a keyed hash of the rest.
    return &_read[_mixed(words[0] ^ words[1]) >> (64 - READ_BITS)]


cdef inline Known* _made_place(const PlanPassphrase* key, const Token* token) noexcept nogil:
    cdef uint64_t[2] ip
    cdef uint64_t x = key.mark.k0 ^ token.class_id ^ (<uint64_t> token.node.port << 32)
    memcpy(ip, token.node.ip, sizeof(ip))
    x = _mixed(x ^ ip[0]) ^ ip[1]
    x = _mixed(x ^ (x >> 32)) ^ (<uint64_t> token.first_seen_s << 32) ^ token.last_seen_s
    return &_made[_mixed(x ^ (x >> 32)) >> (64 - MADE_BITS)]


cdef inline uint64_t _other_key(const SipKey* a, const SipKey* b) noexcept nogil:
    return (a.k0 ^ b.k0) | (a.k1 ^ b.k1)


cdef void _words(const char* text, uint32_t count, uint64_t* words) noexcept nogil:
    memset(words, 0, WORDS * sizeof(uint64_t))
    memcpy(words, text, count)
    (<uint8_t*> words)[LENGTH_AT] = <uint8_t> count


cdef void _keep(Known* place, const uint64_t* words, const PlanPassphrase* key,
                const Token* token) noexcept nogil:
    memcpy(place.words, words, sizeof(place.words))
    place.mark = key.mark
    place.token = token[0]


cdef int _key_of(const Known* known, const uint64_t* words, const PlanPassphrase* keys,
                 uint32_t key_count) noexcept nogil:
    # Without an early end, so that the time tells nothing about a known value.
    cdef uint64_t differs = 0
    cdef int i
    for i in range(WORDS):
        differs |= known.words[i] ^ words[i]
    if differs:
        return TOKEN_TAMPERED
    for i in range(<int> key_count):
        if _other_key(&known.mark, &keys[i].mark) == 0:
            return i
    return TOKEN_TAMPERED


cdef int _open(const PlanPassphrase* keys, uint32_t key_count, const char* text, uint32_t count,
               Token* token) noexcept nogil:
    cdef uint8_t data[DATA_BYTES_MAX]
    cdef uint8_t plain[TOKEN_PLAIN_BYTES_MAX]
    cdef uint64_t mark
    cdef uint32_t sealed_bytes, plain_bytes, i
    cdef int got = token_text_read(text, count, data)
    if got < 0:
        return TOKEN_TAMPERED
    sealed_bytes = <uint32_t> got - MARK_BYTES
    memcpy(&mark, data, MARK_BYTES)
    for i in range(key_count):
        if siphash64(&keys[i].mark, data + MARK_BYTES, sealed_bytes) != mark:
            continue
        plain_bytes = hooks_siv_decrypt(keys[i].cipher_key, data + MARK_BYTES, sealed_bytes, plain)
        if plain_bytes == 0 or token_plain_read(plain, plain_bytes, token) < 0:
            return TOKEN_TAMPERED
        return <int> i
    return TOKEN_TAMPERED


cdef int sealed_read(const PlanPassphrase* keys, uint32_t key_count, const char* text,
                     uint32_t count, Token* token) noexcept nogil:
    cdef uint64_t[WORDS] words
    cdef Known* known
    cdef int key
    # The lengths of the four forms: nothing else is looked at.
    if count != 47 and count != 58 and count != 63 and count != 74:
        return TOKEN_TAMPERED
    _words(text, count, words)
    known = _read_place(words)
    key = _key_of(known, words, keys, key_count)
    if key >= 0:
        token[0] = known.token
        return key
    key = _open(keys, key_count, text, count, token)
    if key >= 0:
        _keep(known, words, &keys[key], token)
    return key


cdef uint32_t sealed_write(const PlanPassphrase* keys, const Token* token,
                           char* out) noexcept nogil:
    cdef Known* made = _made_place(keys, token)
    cdef uint8_t data[DATA_BYTES_MAX]
    cdef uint8_t plain[TOKEN_PLAIN_BYTES_MAX]
    cdef uint64_t[WORDS] words
    cdef uint64_t mark
    cdef uint32_t count
    if _says(made, keys, token):
        count = (<const uint8_t*> made.words)[LENGTH_AT]
        memcpy(out, made.words, count)
        return count
    count = hooks_siv_encrypt(keys.cipher_key, plain, token_plain_write(token, plain),
                              data + MARK_BYTES)
    if count == 0:
        return 0
    mark = siphash64(&keys.mark, data + MARK_BYTES, count)
    memcpy(data, &mark, MARK_BYTES)
    count = token_text_write(data, MARK_BYTES + count, out)
    BUG_ON(count >= LENGTH_AT)
    _words(out, count, words)
    _keep(made, words, keys, token)
    _keep(_read_place(words), words, keys, token)
    return count


cdef bint _says(const Known* made, const PlanPassphrase* key, const Token* token) noexcept nogil:
    return (made.words[0] != 0 and _other_key(&made.mark, &key.mark) == 0
            and address_equal(&made.token.node, &token.node)
            and made.token.class_id == token.class_id
            and made.token.first_seen_s == token.first_seen_s
            and made.token.last_seen_s == token.last_seen_s)
