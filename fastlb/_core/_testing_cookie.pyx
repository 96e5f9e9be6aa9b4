"""def functions over cookie; for tests and benchmarks only."""

from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport free, malloc
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from fastlb._core._testing_arena cimport arena_place
from fastlb._core.cookie cimport (
    SET_COOKIE_EXPIRES, SET_COOKIE_HTTP_ONLY, SET_COOKIE_MAX_AGE, SET_COOKIE_PARTITIONED,
    SET_COOKIE_QUOTED, SET_COOKIE_SECURE, CookieCursor, CookiePair, SetCookie, cookie_begin,
    cookie_count, cookie_cut, cookie_date_parse, cookie_find, cookie_next, set_cookie_covers,
    set_cookie_expired, set_cookie_parse,
)
from fastlb._core.edit cimport HeadEdit, edit_copy, edit_reset
from fastlb._core.head cimport Head, HeadLimits, head_reset, request_head_parse
from fastlb._core.slice cimport Slice, slice_of

SAME_SITES = ("absent", "strict", "lax", "none", "unknown")
FLAGS = {
    SET_COOKIE_QUOTED: "quoted", SET_COOKIE_SECURE: "secure", SET_COOKIE_HTTP_ONLY: "http-only",
    SET_COOKIE_PARTITIONED: "partitioned", SET_COOKIE_MAX_AGE: "max-age",
    SET_COOKIE_EXPIRES: "expires",
}


cdef bytes _text(Slice s):
    return s.at[:s.bytes] if s.bytes else b""


def pairs(bytes value):
    """[(name, value, the pair as it stands)]"""
    cdef CookieCursor cursor
    cdef CookiePair pair
    cookie_begin(&cursor, arena_place(value, len(value)), <uint32_t>len(value))
    found = []
    while cookie_next(&cursor, &pair):
        found.append((_text(pair.name), _text(pair.value), pair.start[:pair.end - pair.start]))
    return found


cdef Head* _head(const char* data, uint32_t count) except NULL:
    cdef HeadLimits bounds
    cdef Head* head = <Head*>malloc(sizeof(Head))
    bounds.request_line_bytes = bounds.head_bytes = 65536
    bounds.field_bytes = 0
    bounds.empty_lines = 4
    bounds.field_count = 256
    head_reset(head)
    if request_head_parse(head, data, count, &bounds) <= 0:
        free(head)
        raise ValueError("not a request")
    return head


def find(bytes request, bytes name, uint32_t nth=0):
    """(index of the field, value, quoted) or None; how many there are."""
    cdef const char* buf = arena_place(request, len(request))
    cdef Head* head = _head(buf, <uint32_t>len(request))
    cdef Slice wanted = slice_of(name, <uint32_t>len(name))
    cdef CookiePair pair
    cdef int field = cookie_find(head, buf, wanted, nth, &pair)
    count = cookie_count(head, buf, wanted)
    free(head)
    if field < 0:
        return None, count
    return (field, _text(pair.value), bool(pair.quoted)), count


def without(bytes request, list names):
    """(how many cookies were taken out, the request without them) or "full"."""
    cdef const char* buf = arena_place(request, len(request))
    cdef Head* head = _head(buf, <uint32_t>len(request))
    cdef Slice wanted[16]
    cdef HeadEdit edit
    cdef char out[65536]
    cdef int i, taken, size
    for i, name in enumerate(names):
        wanted[i] = slice_of(name, <uint32_t>len(name))
    edit_reset(&edit)
    taken = cookie_cut(head, buf, wanted, <uint32_t>len(names), &edit)
    size = edit_copy(&edit, buf, head.bytes, out, sizeof(out))
    free(head)
    return "full" if taken < 0 else (taken, out[:size])


def set_cookie(bytes value):
    """A dict, or None when the line is to be ignored."""
    cdef SetCookie cookie
    if not set_cookie_parse(&cookie, arena_place(value, len(value)), <uint32_t>len(value)):
        return None
    return {
        "name": _text(cookie.name),
        "value": _text(cookie.value),
        "path": _text(cookie.path),
        "domain": _text(cookie.domain),
        "attributes": cookie.attributes[:cookie.attributes_bytes],
        "max_age_s": cookie.max_age_s,
        "expires_s": cookie.expires_s,
        "same_site": SAME_SITES[cookie.same_site],
        "flags": {name for bit, name in FLAGS.items() if cookie.flags & bit},
    }


def expired(bytes value, int64_t now_s):
    cdef SetCookie cookie
    if not set_cookie_parse(&cookie, arena_place(value, len(value)), <uint32_t>len(value)):
        raise ValueError("not a cookie")
    return bool(set_cookie_expired(&cookie, now_s))


def covers(bytes value, bytes path):
    cdef SetCookie cookie
    if not set_cookie_parse(&cookie, arena_place(value, len(value)), <uint32_t>len(value)):
        raise ValueError("not a cookie")
    return bool(set_cookie_covers(&cookie, slice_of(path, <uint32_t>len(path))))


def date(bytes text):
    """Seconds since 1970, or None."""
    cdef int64_t epoch_s = 0
    if not cookie_date_parse(arena_place(text, len(text)), <uint32_t>len(text), &epoch_s):
        return None
    return epoch_s


cdef int64_t _now_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1000000000 + now.tv_nsec


def time_cookies(bytes request, bytes name, bint cut, uint32_t rounds):
    """Nanoseconds per cookie_find, or per cookie_cut, of one name; looped without the GIL."""
    cdef const char* buf = request
    cdef Head* head = _head(buf, <uint32_t>len(request))
    cdef Slice wanted = slice_of(name, <uint32_t>len(name))
    cdef CookiePair pair
    cdef HeadEdit edit
    cdef int64_t start, end
    cdef uint32_t _round
    cdef int found = 0
    with nogil:
        start = _now_ns()
        for _round in range(rounds):
            if cut:
                edit_reset(&edit)
                found = cookie_cut(head, buf, &wanted, 1, &edit)
            else:
                found = cookie_find(head, buf, wanted, 0, &pair)
        end = _now_ns()
    free(head)
    return (end - start) / rounds, found
