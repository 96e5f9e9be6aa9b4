# A shared cache stores a response when its method and its status allow it, or Cache-Control or
# Expires say how long, and nothing forbids it (RFC 9111 3, 4.2.2). Where it would, Cache-Control
# is replaced and not appended to: a client that sees both may take the wrong one.

from libc.stdint cimport uint32_t

from fastlb._core.connection cimport Exchange, Worker
from fastlb._core.edit cimport EDIT_FULL, edit_cut
from fastlb._core.head cimport (
    FIELD_CACHE_CONTROL, FIELD_ETAG, FIELD_EXPIRES, FIELD_LAST_MODIFIED, Head, METHOD_GET,
    METHOD_HEAD, head_next, head_value,
)
from fastlb._core.scratch cimport scratch_add
from fastlb._core.slice cimport Slice, ascii_lower, slice_equal_fold, slice_of, slice_trim


cdef Slice _next_directive(Slice* rest) noexcept nogil:
    # "max-age=60, no-cache=\"set-cookie\"": commas inside double quotes do not separate.
    cdef Slice one = rest[0]
    cdef uint32_t i = 0
    cdef bint quoted = False
    while i < rest.bytes and (quoted or rest.at[i] != c','):
        if rest.at[i] == c'"':
            quoted = not quoted
        i += 1
    one.bytes = i
    if i < rest.bytes:
        i += 1
    rest.at += i
    rest.bytes -= i
    return slice_trim(one)


cdef inline bint _begins(Slice text, const char* lower, uint32_t count) noexcept nogil:
    return text.bytes >= count and slice_equal_fold(slice_of(text.at, count), lower, count)


cdef bint _mentions_set_cookie(Slice text) noexcept nogil:
    cdef uint32_t i
    for i in range(text.bytes):
        if ascii_lower(text.at[i]) == c's' and _begins(
                slice_of(text.at + i, text.bytes - i), "set-cookie", 10):
            return True
    return False


cdef enum CacheWord:
    CACHE_WORD_SAFE = 1              # a shared cache does not store it, or not the cookie
    CACHE_WORD_FRESH = 2             # it says how long it may be stored
    CACHE_WORD_STALE = 4             # max-age=0, for caches that are told nothing else
    CACHE_WORD_SHARED = 8            # s-maxage, which shared caches obey instead of max-age


cdef int _cache_words(const Head* head, const char* buf) noexcept nogil:
    cdef int words = 0
    cdef int i = head.first[FIELD_CACHE_CONTROL]
    cdef Slice rest, one
    while i >= 0:
        rest = head_value(head, buf, <uint32_t> i)
        while rest.bytes:
            one = _next_directive(&rest)
            if slice_equal_fold(one, "private", 7) or slice_equal_fold(one, "no-store", 8) \
                    or slice_equal_fold(one, "no-cache", 8) \
                    or slice_equal_fold(one, "s-maxage=0", 10):
                words |= CACHE_WORD_SAFE
            elif slice_equal_fold(one, "max-age=0", 9):
                words |= CACHE_WORD_STALE
            elif _begins(one, "no-cache=", 9) or _begins(one, "private=", 8):
                if _mentions_set_cookie(one):
                    words |= CACHE_WORD_SAFE
            elif _begins(one, "s-maxage=", 9):
                words |= CACHE_WORD_FRESH | CACHE_WORD_SHARED
            elif _begins(one, "max-age=", 8) or slice_equal_fold(one, "public", 6):
                words |= CACHE_WORD_FRESH
        i = head_next(head, i)
    if words & CACHE_WORD_STALE and not words & CACHE_WORD_SHARED:
        words |= CACHE_WORD_SAFE
    return words


cdef bint _storable_status(int status) noexcept nogil:
    # Cacheable without being told so (RFC 9110 15.1); others only with explicit freshness.
    return status in (200, 203, 204, 206, 300, 301, 304, 308, 404, 405, 410, 414, 501)


cdef int protect_cache_edit(Worker* w, Exchange* x, const char* buf) noexcept nogil:
    cdef const Head* head = &w.response
    cdef int words, i
    if x.method != METHOD_GET and x.method != METHOD_HEAD:
        return 0
    words = _cache_words(head, buf)
    if words & CACHE_WORD_SAFE:
        return 0
    if not words & CACHE_WORD_FRESH and head.first[FIELD_EXPIRES] < 0:
        if not _storable_status(head.status):
            return 0
        if head.first[FIELD_ETAG] < 0 and head.first[FIELD_LAST_MODIFIED] < 0:
            return 0
    i = head.first[FIELD_CACHE_CONTROL]
    while i >= 0:
        if edit_cut(&w.edit, head.fields[i].start, head.fields[i].end) < 0:
            return EDIT_FULL
        i = head_next(head, i)
    return 0 if scratch_add(w, "Cache-Control: private\r\n", 24) else EDIT_FULL
