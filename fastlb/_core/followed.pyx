# Attributes are only taken over in a form that can be carried and written again exactly: else
# the default stands, everywhere, so that there is always one cookie and not two.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcpy, strlen

from fastlb._core.cookie cimport (
    SAME_SITE_ABSENT, SAME_SITE_LAX, SAME_SITE_NONE, SAME_SITE_STRICT, SAME_SITE_UNKNOWN,
    SET_COOKIE_EXPIRES, SET_COOKIE_MAX_AGE, SET_COOKIE_PARTITIONED, SET_COOKIE_SECURE, SetCookie,
)
from fastlb._core.plan cimport (
    CLASS_FOLLOWS_AGE, CLASS_FOLLOWS_DOMAIN, CLASS_FOLLOWS_PATH, CLASS_FOLLOWS_SAME_SITE,
    CLASS_FOLLOWS_SECURE,
)
from fastlb._core.siphash cimport SipKey, siphash64
from fastlb._core.slice cimport Slice, slice_equal, slice_of
from fastlb._core.token cimport TOKEN_TEXT_BYTES_MAX

cdef enum:
    MAC_BYTES = 16
    FLAG_SECURE = 1
    FLAG_PARTITIONED = 2
    SAME_SITE_SHIFT = 2

cdef const char* HEX = "0123456789abcdef"


cdef void followed_reset(Followed* followed, bint secure) noexcept nogil:
    followed.path = slice_of("/", 1)
    followed.domain = slice_of("", 0)
    followed.expires_s = 0
    followed.secure = secure
    followed.partitioned = False
    followed.same_site = SAME_SITE_ABSENT


cdef bint _is_path(Slice text) noexcept nogil:
    # What may stand in a cookie's value (RFC 6265 4.1.1), without the mark before the domain.
    cdef uint32_t i
    cdef char c
    if text.bytes == 0 or text.bytes > FOLLOWED_PATH_BYTES_MAX or text.at[0] != c'/':
        return False
    for i in range(text.bytes):
        c = text.at[i]
        if c <= c' ' or c >= 0x7f or c in (c'"', c',', c';', c'\\', c'@'):
            return False
    return True


cdef bint _is_domain(Slice text) noexcept nogil:
    cdef uint32_t i
    cdef char c
    if text.bytes == 0 or text.bytes > FOLLOWED_DOMAIN_BYTES_MAX:
        return False
    for i in range(text.bytes):
        c = text.at[i]
        if not (c'a' <= c <= c'z' or c'A' <= c <= c'Z' or c'0' <= c <= c'9'
                or c in (c'.', c'-', c'_')):
            return False
    return True


cdef uint32_t _expires_s(const SetCookie* cookie, uint32_t wall_s) noexcept nogil:
    # Max-Age wins over Expires (RFC 6265 5.3).
    cdef int64_t age_s
    if cookie.flags & SET_COOKIE_MAX_AGE:
        age_s = cookie.max_age_s
    elif cookie.flags & SET_COOKIE_EXPIRES:
        age_s = cookie.expires_s - wall_s
    else:
        return 0
    if age_s <= 0:
        return 0
    return wall_s + <uint32_t> min(age_s, <int64_t> FOLLOWED_AGE_S_MAX)


cdef void followed_read(Followed* followed, const SetCookie* cookie,
                        uint32_t wall_s) noexcept nogil:
    cdef Slice domain = cookie.domain
    followed_reset(followed, cookie.flags & SET_COOKIE_SECURE != 0)
    if _is_path(cookie.path):
        followed.path = cookie.path
    if domain.bytes and domain.at[0] == c'.':
        domain = slice_of(domain.at + 1, domain.bytes - 1)
    if _is_domain(domain):
        followed.domain = domain
    followed.expires_s = _expires_s(cookie, wall_s)
    followed.partitioned = cookie.flags & SET_COOKIE_PARTITIONED != 0
    if cookie.same_site != SAME_SITE_UNKNOWN:
        followed.same_site = cookie.same_site


cdef void followed_limit(Followed* followed, uint32_t class_flags) noexcept nogil:
    cdef Followed plain
    followed_reset(&plain, False)
    if not class_flags & CLASS_FOLLOWS_PATH:
        followed.path = plain.path
    if not class_flags & CLASS_FOLLOWS_DOMAIN:
        followed.domain = plain.domain
    if not class_flags & CLASS_FOLLOWS_SECURE:
        followed.secure = plain.secure
        followed.partitioned = plain.partitioned
    if not class_flags & CLASS_FOLLOWS_SAME_SITE:
        followed.same_site = plain.same_site
    if not class_flags & CLASS_FOLLOWS_AGE:
        followed.expires_s = plain.expires_s


cdef bint followed_equal(const Followed* a, const Followed* b) noexcept nogil:
    return (slice_equal(a.path, b.path) and slice_equal(a.domain, b.domain)
            and a.secure == b.secure and a.partitioned == b.partitioned
            and a.same_site == b.same_site)


# --- inside the value ---------------------------------------------------------------------

cdef uint32_t _hex_write(uint64_t number, uint32_t digits, char* out) noexcept nogil:
    cdef uint32_t i
    for i in range(digits):
        out[i] = HEX[(number >> (4 * (digits - 1 - i))) & 15]
    return digits


cdef inline int _hex_digit(char c) noexcept nogil:
    if c'0' <= c <= c'9':
        return c - c'0'
    return c - c'a' + 10 if c'a' <= c <= c'f' else -1


cdef uint32_t followed_carry(const Followed* followed, const SipKey* mac, char* value,
                             uint32_t count) noexcept nogil:
    cdef Followed plain
    cdef uint32_t at = count
    cdef uint32_t flags
    followed_reset(&plain, False)
    if followed_equal(followed, &plain) and followed.expires_s == 0:
        return count
    flags = <uint32_t> followed.same_site << SAME_SITE_SHIFT
    flags |= FLAG_SECURE if followed.secure else 0
    flags |= FLAG_PARTITIONED if followed.partitioned else 0
    value[at] = c'.'
    at += 1
    at += _hex_write(flags, 1, value + at)
    if followed.expires_s:
        at += _hex_write(followed.expires_s, 8, value + at)
    memcpy(value + at, followed.path.at, followed.path.bytes)
    at += followed.path.bytes
    if followed.domain.bytes:
        value[at] = c'@'
        memcpy(value + at + 1, followed.domain.at, followed.domain.bytes)
        at += 1 + followed.domain.bytes
    value[at] = c'.'
    return at + 1 + _hex_write(siphash64(mac, value, at), MAC_BYTES, value + at + 1)


cdef bint _is_authentic(const SipKey* mac, Slice value, uint32_t mac_at) noexcept nogil:
    # Without an early end, so that the time tells nothing about the right one.
    cdef char wanted[MAC_BYTES]
    cdef uint8_t differs = 0
    cdef uint32_t i
    _hex_write(siphash64(mac, value.at, mac_at - 1), MAC_BYTES, wanted)
    for i in range(<uint32_t> MAC_BYTES):
        differs |= <uint8_t> wanted[i] ^ <uint8_t> value.at[mac_at + i]
    return differs == 0


# Of an authentic value; it is as followed_carry wrote it.
cdef void _attributes_read(Slice text, Followed* followed) noexcept nogil:
    cdef const char* end = text.at + text.bytes
    cdef const char* p = text.at + 1
    cdef const char* at
    cdef int flags = _hex_digit(text.at[0])
    followed.secure = flags & FLAG_SECURE != 0
    followed.partitioned = flags & FLAG_PARTITIONED != 0
    followed.same_site = <uint8_t> (flags >> SAME_SITE_SHIFT)
    while p < end and p[0] != c'/':
        followed.expires_s = (followed.expires_s << 4) | <uint32_t> _hex_digit(p[0])
        p += 1
    at = <const char*> memchr(p, c'@', <size_t> (end - p))
    followed.path = slice_of(p, <uint32_t> ((end if at == NULL else at) - p))
    if at != NULL:
        followed.domain = slice_of(at + 1, <uint32_t> (end - at - 1))


cdef bint followed_carried(const SipKey* mac, Slice value, Slice* token,
                           Followed* followed) noexcept nogil:
    cdef const char* dot = <const char*> memchr(value.at, c'.', value.bytes)
    cdef uint32_t start, mac_at
    if followed != NULL:
        followed_reset(followed, False)
    token[0] = value
    if dot == NULL:
        return True
    start = <uint32_t> (dot - value.at)
    token.bytes = start
    # What is too long to be ours is not even hashed.
    if start >= TOKEN_TEXT_BYTES_MAX or value.bytes - start > FOLLOWED_CARRIED_BYTES_MAX:
        return False
    # ".", flags, "/", "."
    if value.bytes - start < 4 + MAC_BYTES or value.at[value.bytes - MAC_BYTES - 1] != c'.':
        return False
    mac_at = value.bytes - MAC_BYTES
    if not _is_authentic(mac, value, mac_at):
        return False
    if followed != NULL:
        _attributes_read(slice_of(dot + 1, mac_at - start - 2), followed)
    return True


# --- as text ------------------------------------------------------------------------------

cdef uint32_t _put(char* out, uint32_t at, const char* name, Slice text) noexcept nogil:
    cdef uint32_t count = <uint32_t> strlen(name)
    memcpy(out + at, name, count)
    if text.bytes:
        memcpy(out + at + count, text.at, text.bytes)
    return at + count + text.bytes


cdef uint32_t _put_number(char* out, uint32_t at, uint32_t number) noexcept nogil:
    cdef char[10] digits
    cdef uint32_t first = 10
    while True:
        first -= 1
        digits[first] = <char> (c'0' + number % 10)
        number //= 10
        if number == 0:
            break
    memcpy(out + at, &digits[first], 10 - first)
    return at + 10 - first


cdef uint32_t followed_text(const Followed* followed, uint32_t class_flags, uint32_t wall_s,
                            char* out) noexcept nogil:
    cdef uint32_t at = 0
    cdef Slice nothing = slice_of("", 0)
    if class_flags & CLASS_FOLLOWS_PATH:
        at = _put(out, at, "; Path=", followed.path)
    if class_flags & CLASS_FOLLOWS_DOMAIN and followed.domain.bytes:
        at = _put(out, at, "; Domain=", followed.domain)
    if class_flags & CLASS_FOLLOWS_AGE and followed.expires_s > wall_s:
        at = _put(out, at, "; Max-Age=", nothing)
        at = _put_number(out, at, followed.expires_s - wall_s)
    if class_flags & CLASS_FOLLOWS_SECURE and followed.secure:
        at = _put(out, at, "; Secure", nothing)
    if class_flags & CLASS_FOLLOWS_SAME_SITE:
        if followed.same_site == SAME_SITE_STRICT:
            at = _put(out, at, "; SameSite=Strict", nothing)
        elif followed.same_site == SAME_SITE_LAX:
            at = _put(out, at, "; SameSite=Lax", nothing)
        elif followed.same_site == SAME_SITE_NONE:
            at = _put(out, at, "; SameSite=None", nothing)
    if class_flags & CLASS_FOLLOWS_SECURE and followed.partitioned:
        at = _put(out, at, "; Partitioned", nothing)
    return at
