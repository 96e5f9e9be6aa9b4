# The attributes that fastlb's cookie takes over from the application's (`type = "cookie"`):
# read from a Set-Cookie, written as text, and carried inside the cookie's own value, because
# a browser does not send attributes back and a cookie written again with others would be a
# second one beside the first.
#
#   value      = token [ "." attributes "." mac ]      no attributes, no dots
#   attributes = flags expires path [ "@" domain ]
#   flags      = one hexadecimal digit: 1 Secure, 2 Partitioned, 4 times the SameSite
#   expires    = up to 8 hexadecimal digits, seconds since 1970; empty: a browser-session cookie
#   mac        = 16 hexadecimal digits, SipHash-2-4 of all before its dot
#
# Knows nothing of classes but their flags, and not what the token means (token.pxd).

from libc.stdint cimport uint8_t, uint32_t

from fastlb._core.cookie cimport SetCookie
from fastlb._core.siphash cimport SipKey
from fastlb._core.slice cimport Slice

cdef enum:
    FOLLOWED_PATH_BYTES_MAX = 100    # a longer one is not followed: "/", which includes it
    FOLLOWED_DOMAIN_BYTES_MAX = 80   # a longer one is not followed: the very host
    FOLLOWED_AGE_S_MAX = 10 * 366 * 86400
    FOLLOWED_CARRIED_BYTES_MAX = 208
    FOLLOWED_TEXT_BYTES_MAX = 272

ctypedef struct Followed:
    Slice path                       # begins with "/"; points into the message it was read from
    Slice domain                     # without a dot in front; empty: the very host; likewise
    uint32_t expires_s               # seconds since 1970; 0: when the browser ends
    uint8_t secure
    uint8_t partitioned
    uint8_t same_site                # SameSite, never SAME_SITE_UNKNOWN

# What a cookie is written with when there is nothing to follow.
cdef void followed_reset(Followed* followed, bint secure) noexcept nogil
# What a Set-Cookie says.
cdef void followed_read(Followed* followed, const SetCookie* cookie, uint32_t wall_s) noexcept nogil
# Takes out what a class with these flags does not follow.
cdef void followed_limit(Followed* followed, uint32_t class_flags) noexcept nogil
# Whether a browser would keep both under the same name, path and host; ages do not count.
cdef bint followed_equal(const Followed* a, const Followed* b) noexcept nogil

# Appends what has to be carried to the token of `count` bytes in `value`, which has room for
# FOLLOWED_CARRIED_BYTES_MAX more; the value's length.
cdef uint32_t followed_carry(const Followed* followed, const SipKey* mac, char* value,
                             uint32_t count) noexcept nogil
# Splits a value: its token, and what it carries (nothing: as after followed_reset). False when
# it was not made with this key; `followed` may be NULL.
cdef bint followed_carried(const SipKey* mac, Slice value, Slice* token,
                           Followed* followed) noexcept nogil
# The attributes' text for a class with these flags, each with "; " before it; its length.
cdef uint32_t followed_text(const Followed* followed, uint32_t class_flags, uint32_t wall_s,
                            char* out) noexcept nogil
