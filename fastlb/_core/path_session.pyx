# Each function is one walk over the path, whatever a client writes into it.

from libc.stdint cimport uint32_t
from libc.string cimport memchr, memcmp

from fastlb._core.limits cimport SESSION_ID_BYTES_MAX
from fastlb._core.message cimport Head
from fastlb._core.slice cimport Slice, slice_of

cdef enum:
    OLD_ID_BYTES = 24                # of ASP.NET 1.x: 120 bits, five to a character


cdef inline Slice _between(const char* p, const char* end) noexcept nogil:
    return slice_of(p, <uint32_t> (end - p))


cdef inline const char* _find(const char* p, const char* end, char wanted) noexcept nogil:
    # `end` when it is not there
    cdef const char* at = <const char*> memchr(p, wanted, <size_t> (end - p))
    return end if at == NULL else at


cdef inline bint _is_letter(char c) noexcept nogil:
    return c'a' <= c <= c'z' or c'A' <= c <= c'Z'


cdef Slice path_of_request(const Head* head, const char* buf) noexcept nogil:
    cdef const char* path = buf + head.path
    return _between(path, _find(path, path + head.path_bytes, c'?'))


# Past "scheme:" (RFC 3986 3.1); `p` itself where there is none.
cdef const char* _after_scheme(const char* p, const char* end) noexcept nogil:
    cdef const char* at = p
    if p == end or not _is_letter(p[0]):
        return p
    while at < end and (_is_letter(at[0]) or c'0' <= at[0] <= c'9' or at[0] == c'+'
                        or at[0] == c'-' or at[0] == c'.'):
        at += 1
    return at + 1 if at < end and at[0] == c':' else p


cdef inline bint _has_authority(const char* p, const char* end) noexcept nogil:
    return end - p >= 2 and p[0] == c'/' and p[1] == c'/'


cdef Slice path_of_reference(Slice reference) noexcept nogil:
    cdef const char* start = reference.at
    cdef const char* end = start + reference.bytes
    cdef const char* p
    end = _find(start, end, c'#')
    end = _find(start, end, c'?')
    p = _after_scheme(start, end)
    if _has_authority(p, end):
        p = _find(p + 2, end, c'/')
    elif p != start:
        p = end                      # "mailto:x;jsessionid=y" leads back to no node
    return _between(p, end)


cdef bint path_parameter_next(Slice* path, Slice name, Slice* value) noexcept nogil:
    cdef const char* end = path.at + path.bytes
    cdef const char* p = _find(path.at, end, c';')
    while p < end:
        p += 1
        if end - p > name.bytes and p[name.bytes] == c'=' and memcmp(p, name.at, name.bytes) == 0:
            p += name.bytes + 1
            value.at = p
            while p < end and p[0] != c';' and p[0] != c'/':
                p += 1
            value.bytes = <uint32_t> (p - value.at)
            path[0] = _between(p, end)
            return True
        p = _find(p, end, c';')
    path[0] = _between(end, end)
    return False


cdef bint _is_old_id(Slice text) noexcept nogil:
    cdef int i
    if text.bytes != OLD_ID_BYTES:
        return False
    for i in range(OLD_ID_BYTES):
        if not c'a' <= text.at[i] <= c'z' and not c'0' <= text.at[i] <= c'5':
            return False
    return True


# 1*( ALPHA "(" text ")" ), all of [p, end). `id` is left empty unless there is one.
cdef bint _groups(const char* p, const char* end, Slice* id) noexcept nogil:
    cdef const char* close
    id.bytes = 0
    while p < end:
        if end - p < 3 or not _is_letter(p[0]) or p[1] != c'(':
            return False
        close = _find(p + 2, end, c')')
        if close == end or _find(p + 2, close, c'(') != close:
            return False
        if id.bytes == 0 and (p[0] == c'S' or p[0] == c's'):
            id[0] = _between(p + 2, close)
        p = close + 1
    return 0 < id.bytes <= SESSION_ID_BYTES_MAX


cdef bint path_asp_id(Slice path, Slice* id) noexcept nogil:
    cdef const char* end = path.at + path.bytes
    cdef const char* p = _find(path.at, end, c'(')
    cdef const char* stop
    while p < end:
        stop = _find(p, end, c'/')
        if (p == path.at or (p - 1)[0] == c'/') and (stop - 1)[0] == c')' and stop - p >= 2:
            id[0] = _between(p + 1, stop - 1)
            if _is_old_id(id[0]) or _groups(p + 1, stop - 1, id):
                return True
        p = _find(stop, end, c'(')
    return False
