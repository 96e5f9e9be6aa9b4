# Cookie and Set-Cookie values (RFC 6265 4.1, 4.2, 5.1.1, 5.2), read without copying, and the cuts
# that take cookies out of a request. Does not know what any cookie means.

from libc.stdint cimport int64_t, uint8_t, uint32_t

from fastlb._core.edit cimport HeadEdit
from fastlb._core.message cimport Head
from fastlb._core.slice cimport Slice

ctypedef struct CookieCursor:        # over one Cookie field's value
    const char* start                # the value; owner: the caller
    const char* at                   # next byte to read
    const char* end
    const char* separator            # the last ';' or ',' that was passed; NULL at the first pair

ctypedef struct CookiePair:
    Slice name                       # empty for a piece without '='
    Slice value                      # without white space and double quotes around it
    const char* start                # the pair as it stands, without white space around it
    const char* end                  # past its value and past the $Path, $Domain, $Port that follow
    const char* separator            # the ';' or ',' before it, NULL for the first pair
    bint quoted                      # double quotes were taken off the value

cdef void cookie_begin(CookieCursor* cursor, const char* value, uint32_t count) noexcept nogil
# False at the end. Empty pieces and $Version and the like are passed over.
cdef bint cookie_next(CookieCursor* cursor, CookiePair* pair) noexcept nogil
# The next one with one of `names` (exact, case counts): that name's index, or -1 at the end.
cdef int cookie_next_of(
    CookieCursor* cursor, const Slice* names, uint32_t count, CookiePair* pair
) noexcept nogil
# The next one called `name` (exact, case counts).
cdef bint cookie_next_named(
    CookieCursor* cursor, Slice name, CookiePair* pair
) noexcept nogil

# The cookie called `name` (exact, case counts) number `nth` (0 = first) over all Cookie fields.
# Returns the field's index, or -1 when there is none.
cdef int cookie_find(
    const Head* head, const char* buf, Slice name, uint32_t nth, CookiePair* pair
) noexcept nogil
# How many cookies are called so.
cdef uint32_t cookie_count(const Head* head, const char* buf, Slice name) noexcept nogil

# Takes out every cookie whose name is one of `names`; the others stay byte for byte, a field
# without any cookie left goes as a whole line. Returns how many were taken out, or EDIT_FULL.
cdef int cookie_cut(
    const Head* head, const char* buf, const Slice* names, uint32_t name_count, HeadEdit* edit
) noexcept nogil

cdef enum SameSite:
    SAME_SITE_ABSENT = 0
    SAME_SITE_STRICT
    SAME_SITE_LAX
    SAME_SITE_NONE
    SAME_SITE_UNKNOWN                # present with another value

cdef enum SetCookieFlag:
    SET_COOKIE_QUOTED = 1            # double quotes were taken off the value
    SET_COOKIE_SECURE = 2
    SET_COOKIE_HTTP_ONLY = 4
    SET_COOKIE_PARTITIONED = 8
    SET_COOKIE_MAX_AGE = 16          # max_age_s is valid
    SET_COOKIE_EXPIRES = 32          # expires_s is valid

ctypedef struct SetCookie:           # slices point into the parsed value
    Slice name
    Slice value                      # without white space and double quotes around it
    Slice path                       # as written; empty when absent; the last one counts
    Slice domain                     # as written, with a leading dot if it has one
    const char* attributes           # the ';' after the value, or the end
    uint32_t attributes_bytes        # from there to the end
    int64_t max_age_s
    int64_t expires_s                # seconds since 1970, UTC
    uint8_t same_site                # SameSite
    uint8_t flags                    # SetCookieFlag bits

# False when a browser would ignore the whole line: no '=', or no name.
cdef bint set_cookie_parse(SetCookie* cookie, const char* value, uint32_t count) noexcept nogil
# Does it delete the cookie? Max-Age wins over Expires (RFC 6265 5.3).
cdef bint set_cookie_expired(const SetCookie* cookie, int64_t now_s) noexcept nogil
# The date algorithm of RFC 6265 5.1.1. False when it is no date.
cdef bint cookie_date_parse(const char* text, uint32_t count, int64_t* epoch_s) noexcept nogil
