# The worker's thread has a Python thread state from its start; between two turns of its loop it
# merely does not hold the GIL. `with gil` takes it back and gives it up again. Signals are none
# of its affair: the worker reads them from a descriptor.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef enum:
    CIPHERS_MAX = 64                 # keys whose cipher objects are kept: all of a usual plan

cdef uint64_t _uncounted = 0
cdef uint64_t* _acquisitions = &_uncounted
cdef object _siv = None              # the class AESSIV
cdef object _wrong_tag = None        # the exception of a cipher text that is not authentic
cdef dict _ciphers = {}              # key: its cipher object
cdef bint _reported = False


cdef void hooks_open(uint64_t* acquisitions) noexcept nogil:
    global _acquisitions
    _acquisitions = acquisitions if acquisitions != NULL else &_uncounted


# --- with the GIL -------------------------------------------------------------------------

cdef int _report(str what, object error) except -1:
    # Once: what fails for one request fails for thousands a second.
    global _reported
    if not _reported:
        _reported = True
        from fastlb import errors, log
        log.error(errors.HOOK_FAILED.line(what=what, reason=f"{type(error).__name__}: {error}"))
    return 0


cdef int _import() except -1:
    global _siv, _wrong_tag
    if _siv is None:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV
        _wrong_tag = InvalidTag
        _siv = AESSIV
    return 0


cdef int _prepare() except -1:
    try:
        return _import()
    except BaseException as error:
        return _report("loading the encryption of cookies", error)


cdef object _cipher(const uint8_t* key):
    cdef bytes name = (<const char*> key)[:SIV_KEY_BYTES]
    cipher = _ciphers.get(name)
    if cipher is None:
        _import()
        if len(_ciphers) >= CIPHERS_MAX:
            _ciphers.clear()
        cipher = _ciphers[name] = _siv(name)
    return cipher


cdef int _put(bytes data, uint32_t expected, uint8_t* out) except -1:
    if <uint32_t> len(data) != expected:
        raise ValueError(f"{len(data)} bytes instead of {expected}")
    memcpy(out, <const char*> data, expected)
    return <int> expected


cdef int _encrypt(const uint8_t* key, const uint8_t* plain, uint32_t count,
                  uint8_t* out) except -1:
    try:
        sealed = _cipher(key).encrypt((<const char*> plain)[:count], None)
        return _put(sealed, count + SIV_TAG_BYTES, out)
    except BaseException as error:
        return _report("encrypting a cookie", error)


cdef int _decrypt(const uint8_t* key, const uint8_t* cipher, uint32_t count,
                  uint8_t* out) except -1:
    try:
        plain = _cipher(key).decrypt((<const char*> cipher)[:count], None)
        return _put(plain, count - SIV_TAG_BYTES, out)
    except BaseException as error:
        if _wrong_tag is not None and isinstance(error, _wrong_tag):
            return 0
        return _report("decrypting a cookie", error)


# --- without it ---------------------------------------------------------------------------
# A `return` in `finally` drops what even the report raised.

cdef void hooks_prepare() noexcept nogil:
    _acquisitions[0] += 1
    with gil:
        try:
            _prepare()
        finally:
            return


cdef uint32_t hooks_siv_encrypt(const uint8_t* key, const uint8_t* plain, uint32_t count,
                                uint8_t* out) noexcept nogil:
    cdef int written = 0
    _acquisitions[0] += 1
    with gil:
        try:
            written = _encrypt(key, plain, count, out)
        finally:
            return <uint32_t> written if written > 0 else 0


cdef uint32_t hooks_siv_decrypt(const uint8_t* key, const uint8_t* cipher, uint32_t count,
                                uint8_t* out) noexcept nogil:
    cdef int written = 0
    if count <= SIV_TAG_BYTES:
        return 0
    _acquisitions[0] += 1
    with gil:
        try:
            written = _decrypt(key, cipher, count, out)
        finally:
            return <uint32_t> written if written > 0 else 0
