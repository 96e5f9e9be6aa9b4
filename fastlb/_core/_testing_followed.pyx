"""def functions over followed; for tests only."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from fastlb._core._testing_arena cimport arena_place
from fastlb._core.cookie cimport SetCookie, set_cookie_parse
from fastlb._core.followed cimport (
    FOLLOWED_CARRIED_BYTES_MAX, FOLLOWED_TEXT_BYTES_MAX, Followed, followed_carried,
    followed_carry, followed_equal, followed_limit, followed_read, followed_reset, followed_text,
)
from fastlb._core.siphash cimport SipKey, sip_key_load
from fastlb._core.slice cimport Slice, slice_of

cdef enum:
    TOKEN_BYTES_MAX = 128
    GUARD_BYTES = 64


cdef tuple _fields(const Followed* f):
    return (f.path.at[:f.path.bytes], f.domain.at[:f.domain.bytes] if f.domain.bytes else b"",
            f.expires_s, bool(f.secure), bool(f.partitioned), f.same_site)


cdef int _read_at(Followed* followed, const char* at, uint32_t count, uint32_t wall_s) except -1:
    cdef SetCookie cookie
    if not set_cookie_parse(&cookie, at, count):
        raise ValueError(at[:count])
    followed_read(followed, &cookie, wall_s)
    return 0


cdef int _read(Followed* followed, bytes set_cookie, uint32_t wall_s) except -1:
    cdef uint32_t count = <uint32_t>len(set_cookie)
    cdef const char* at = arena_place(set_cookie, count)
    _read_at(followed, at, count, wall_s)
    return 0


def read(bytes set_cookie, uint32_t wall_s=1800000000):
    """(path, domain, expires, secure, partitioned, same site) of a Set-Cookie's value."""
    cdef Followed followed
    _read(&followed, set_cookie, wall_s)
    return _fields(&followed)


def text(bytes set_cookie, uint32_t flags, uint32_t wall_s=1800000000, uint32_t later_s=0):
    """The attributes as a class with these flags writes them, `later_s` after they were read."""
    cdef Followed followed
    out = bytearray(b"#" * (FOLLOWED_TEXT_BYTES_MAX + GUARD_BYTES))
    cdef char* room = out
    cdef uint32_t count
    _read(&followed, set_cookie, wall_s)
    followed_limit(&followed, flags)
    count = followed_text(&followed, flags, wall_s + later_s, room)
    if out[FOLLOWED_TEXT_BYTES_MAX:] != b"#" * GUARD_BYTES:
        raise AssertionError("written beyond the room")
    return bytes(out[:count])


def carry(bytes key, bytes token, bytes set_cookie, uint32_t wall_s=1800000000):
    """The value that carries the attributes of a Set-Cookie behind a token."""
    cdef Followed followed
    cdef char[TOKEN_BYTES_MAX + FOLLOWED_CARRIED_BYTES_MAX] value
    cdef const uint8_t* secret = key
    cdef SipKey mac
    cdef uint32_t count
    _read(&followed, set_cookie, wall_s)
    sip_key_load(&mac, secret)
    memcpy(value, <const char*>token, len(token))
    count = followed_carry(&followed, &mac, value, <uint32_t>len(token))
    if count - len(token) > FOLLOWED_CARRIED_BYTES_MAX:
        raise AssertionError("written beyond the room")
    return value[:count]


def carried(bytes key, bytes value):
    """(token, attributes), or None when the value is not authentic."""
    cdef const uint8_t* secret = key
    cdef const char* at = arena_place(value, len(value))
    cdef Followed followed
    cdef Slice token
    cdef SipKey mac
    sip_key_load(&mac, secret)
    whole = slice_of(at, <uint32_t>len(value))
    authentic = followed_carried(&mac, whole, &token, &followed)
    if followed_carried(&mac, whole, &token, NULL) != authentic:
        raise AssertionError("another result without a place for the attributes")
    return (token.at[:token.bytes], _fields(&followed)) if authentic else None


def equal(bytes one, bytes other):
    """Whether two Set-Cookies lead to the same cookie."""
    cdef const char* both = arena_place(one + other, len(one) + len(other))
    cdef Followed a, b
    cdef uint32_t first = <uint32_t>len(one)
    cdef uint32_t second = <uint32_t>len(other)
    _read_at(&a, both, first, 1800000000)
    _read_at(&b, both + first, second, 1800000000)
    return bool(followed_equal(&a, &b))


def reset(bint secure):
    cdef Followed followed
    followed_reset(&followed, secure)
    return _fields(&followed)
