"""def functions over scan, head, authority and edit; for tests and benchmarks only."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from fastlb._core._testing_arena cimport arena_place
from fastlb._core.authority cimport authority_valid
from fastlb._core.edit cimport (
    HeadEdit, edit_bytes, edit_copy, edit_cut, edit_insert, edit_iovecs, edit_replace, edit_reset,
    iovec,
)
from fastlb._core.head cimport (
    BODY_CHUNKED, BODY_LENGTH, BODY_NONE, BODY_UNTIL_CLOSE, FIELD_HOP, FIELD_ID_COUNT,
    FIELD_LISTED, HEAD_CLOSE, HEAD_ERR_COUNT, HEAD_EXPECT_CONTINUE, HEAD_FRAMED_BODILESS,
    HEAD_HAS_COOKIE, HEAD_HAS_HOP, HEAD_HAS_LENGTH, HEAD_HAS_SET_COOKIE, HEAD_KEEP_ALIVE,
    HEAD_NO_REASON_SPACE, HEAD_UPGRADE, METHOD_GET, METHOD_OTHER, TARGET_ABSOLUTE,
    TARGET_ASTERISK, TARGET_AUTHORITY, TARGET_NONE, TARGET_ORIGIN, Head, HeadLimits,
    field_alias_of, field_id,
    head_error_name, head_error_status, head_next, head_persists, head_reset, host_valid,
    request_head_parse, response_head_parse,
)
from fastlb._core.limits cimport EDIT_IOVECS_MAX
from fastlb._core.scan cimport (
    ValueStops, scan_has_avx2, scan_name_plain, scan_name_sse2, scan_pair_plain, scan_pair_sse2,
    scan_target_plain, scan_target_sse2, scan_value_plain, scan_value_sse2, stops_begin,
    stops_next,
)

METHODS = ("OTHER", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
FORMS = {
    TARGET_NONE: "none", TARGET_ORIGIN: "origin", TARGET_ABSOLUTE: "absolute",
    TARGET_AUTHORITY: "authority", TARGET_ASTERISK: "asterisk",
}
FRAMINGS = {
    BODY_NONE: "none", BODY_LENGTH: "length", BODY_CHUNKED: "chunked",
    BODY_UNTIL_CLOSE: "until-close",
}
FLAGS = {
    HEAD_CLOSE: "close", HEAD_KEEP_ALIVE: "keep-alive", HEAD_UPGRADE: "upgrade",
    HEAD_EXPECT_CONTINUE: "expect-continue", HEAD_HAS_COOKIE: "cookie",
    HEAD_HAS_SET_COOKIE: "set-cookie", HEAD_HAS_LENGTH: "length", HEAD_HAS_HOP: "hop",
    HEAD_NO_REASON_SPACE: "no-reason-space", HEAD_FRAMED_BODILESS: "framed-bodiless",
}
METHOD_NUMBERS = {name: number for number, name in enumerate(METHODS)}


def scan(str kind, str version, bytes data, uint32_t start=0):
    """Where the run that begins at `start` ends; only `data` is readable."""
    cdef const char* base = arena_place(data, len(data))
    cdef const char* p = base + start
    cdef const char* end = base + len(data)
    if kind == "name":
        p = scan_name_plain(base, p, end) if version == "plain" else scan_name_sse2(base, p, end)
    elif kind == "value":
        p = scan_value_plain(base, p, end) if version == "plain" else scan_value_sse2(base, p, end)
    elif kind == "target":
        p = (
            scan_target_plain(base, p, end) if version == "plain"
            else scan_target_sse2(base, p, end)
        )
    else:
        p = scan_pair_plain(base, p, end) if version == "plain" else scan_pair_sse2(base, p, end)
    return p - base


def stops(str version, bytes data, uint32_t start=0):
    """Every stop of a field value in `data` from `start` on."""
    cdef const char* base = arena_place(data, len(data))
    cdef const char* p = base + start
    cdef const char* end = base + len(data)
    cdef ValueStops found
    stops_begin(&found, base, p, end)
    places = []
    while p < end:
        p = scan_value_plain(base, p, end) if version == "plain" else stops_next(&found, p)
        if p < end:
            places.append(p - base)
            p += 1
    return places


def has_avx2():
    return bool(scan_has_avx2())


cdef dict _field_dict(const Head* head, bytes data, uint32_t i):
    field = head.fields[i]
    flags = set()
    if field.flags & FIELD_HOP:
        flags.add("hop")
    if field.flags & FIELD_LISTED:
        flags.add("listed")
    return {
        "name": data[field.start:field.start + field.name_bytes],
        "value": data[field.value:field.value + field.value_bytes],
        "line": data[field.start:field.end],
        "id": field.id,
        "flags": flags,
    }


cdef dict _head_dict(const Head* head, bytes data):
    cdef uint32_t i
    return {
        "bytes": head.bytes,
        "method": METHODS[head.method],
        "method_text": data[head.line_start:head.line_start + head.method_bytes],
        "target": data[head.target:head.target + head.target_bytes],
        "form": FORMS[head.target_form],
        "authority": data[head.authority:head.authority + head.authority_bytes],
        "path": data[head.path:head.path + head.path_bytes],
        "version_minor": head.version_minor,
        "status": head.status,
        "reason": data[head.reason:head.reason + head.reason_bytes],
        "line": data[head.line_start:head.line_end],
        "framing": FRAMINGS[head.framing],
        "content_length": head.content_length,
        "flags": {name for bit, name in FLAGS.items() if head.flags & bit},
        "persists": bool(head_persists(head)),
        "first": {i: head.first[i] for i in range(<uint32_t>FIELD_ID_COUNT) if head.first[i] >= 0},
        "fields": [_field_dict(head, data, i) for i in range(head.field_count)],
    }


cdef object _parse(bint request, bytes data, object segments, dict limits, uint8_t method):
    cdef HeadLimits bounds
    cdef const char* buf
    cdef uint32_t size = 0
    cdef int result = 0
    cdef Head* head = <Head*>malloc(sizeof(Head))
    bounds.request_line_bytes = limits.get("request_line_bytes", 8192)
    bounds.field_bytes = limits.get("field_bytes", 0)
    bounds.head_bytes = limits.get("head_bytes", 32768)
    bounds.field_count = limits.get("field_count", 128)
    bounds.empty_lines = limits.get("empty_lines", 4)
    try:
        head_reset(head)
        for number, segment in enumerate(list(segments) + [len(data)]):
            if number == 1:
                bounds.request_line_bytes = limits.get("then_line", bounds.request_line_bytes)
                bounds.field_bytes = limits.get("then_field", bounds.field_bytes)
                bounds.head_bytes = limits.get("then_head", bounds.head_bytes)
                bounds.field_count = limits.get("then_count", bounds.field_count)
            size = min(size + <uint32_t>segment, <uint32_t>len(data))
            buf = arena_place(data, size)
            if request:
                result = request_head_parse(head, buf, size, &bounds)
            else:
                result = response_head_parse(head, buf, size, &bounds, method)
            if result != 0:
                break
        if result < 0:
            return head_error_name(result).decode()
        if result == 0:
            return None
        if result != <int>head.bytes:
            raise AssertionError("the result is not the size of the head")
        return _head_dict(head, data)
    finally:
        free(head)


def parse_request(bytes data, segments=(), **limits):
    """A dict, the name of an error, or None (incomplete). `segments`: sizes of what arrives;
    limits called then_…: from the second one on."""
    return _parse(True, data, segments, limits, METHOD_OTHER)


def parse_response(bytes data, segments=(), str method="GET", **limits):
    return _parse(False, data, segments, limits, METHOD_NUMBERS[method])


def error_statuses():
    """{name: status} of every HeadError."""
    return {
        head_error_name(-i).decode(): head_error_status(-i) for i in range(1, HEAD_ERR_COUNT)
    }


def alias_of(bytes name):
    return field_alias_of(arena_place(name, len(name)), <uint32_t>len(name))


def id_of(bytes name):
    return field_id(arena_place(name, len(name)), <uint32_t>len(name))


def authority(bytes text, bint needs_port=False):
    cdef const char* place = arena_place(text, len(text))
    if not needs_port and host_valid(place, <uint32_t>len(text)) != authority_valid(
        place, <uint32_t>len(text), False
    ):
        raise AssertionError("host_valid and authority_valid disagree")
    return bool(authority_valid(place, <uint32_t>len(text), needs_port))


def indices(bytes data, bytes name):
    """All fields with the id of `name`, by first and head_next."""
    cdef HeadLimits bounds
    cdef Head* head = <Head*>malloc(sizeof(Head))
    bounds.request_line_bytes = bounds.head_bytes = 32768
    bounds.field_bytes = 0
    bounds.empty_lines = 4
    bounds.field_count = 256
    try:
        head_reset(head)
        if request_head_parse(head, data, <uint32_t>len(data), &bounds) <= 0:
            raise ValueError("not a request")
        found = []
        i = head.first[field_id(name, <uint32_t>len(name))]
        while i >= 0:
            found.append(i)
            i = head_next(head, i)
        return found
    finally:
        free(head)


def edited(bytes data, edits):
    """(result, vectors) of edits given as ("cut", start, end), ("insert", at, text), …"""
    cdef HeadEdit edit
    cdef iovec vectors[EDIT_IOVECS_MAX]
    cdef char copy[65536]
    cdef int count, i, size
    cdef int result = 0
    edit_reset(&edit)
    for kind, *arguments in edits:
        if kind == "cut":
            result = edit_cut(&edit, arguments[0], arguments[1])
        elif kind == "insert":
            result = edit_insert(&edit, arguments[0], arguments[1], <uint32_t>len(arguments[1]))
        else:
            result = edit_replace(
                &edit, arguments[0], arguments[1], arguments[2], <uint32_t>len(arguments[2])
            )
        if result < 0:
            return "full"
    count = edit_iovecs(&edit, data, <uint32_t>len(data), vectors, EDIT_IOVECS_MAX)
    if count < 0:
        raise AssertionError("EDIT_IOVECS_MAX is too small")
    if count > 0 and edit_iovecs(&edit, data, <uint32_t>len(data), vectors, count - 1) >= 0:
        raise AssertionError("edit_iovecs overran its array")
    pieces = [(<char*>vectors[i].iov_base)[:vectors[i].iov_len] for i in range(count)]
    size = edit_copy(&edit, data, <uint32_t>len(data), copy, sizeof(copy))
    if copy[:size] != b"".join(pieces):
        raise AssertionError("edit_copy and edit_iovecs disagree")
    if size > 0 and edit_copy(&edit, data, <uint32_t>len(data), copy, size - 1) >= 0:
        raise AssertionError("edit_copy overran its room")
    if size != <int>edit_bytes(&edit, <uint32_t>len(data)):
        raise AssertionError("edit_bytes is wrong")
    return pieces


cdef int64_t _now_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1000000000 + now.tv_nsec


def time_parse(bytes data, uint32_t rounds, bint request=True):
    """Nanoseconds per head_reset and parse of a whole head, looped without the GIL."""
    cdef HeadLimits bounds
    cdef const char* buf = data
    cdef uint32_t size = <uint32_t>len(data)
    cdef Head* head = <Head*>malloc(sizeof(Head))
    cdef int64_t start, end
    cdef uint32_t _round
    cdef int result = 0
    bounds.request_line_bytes = 8192
    bounds.field_bytes = 0
    bounds.empty_lines = 4
    bounds.head_bytes = 32768
    bounds.field_count = 128
    with nogil:
        start = _now_ns()
        for _round in range(rounds):
            head_reset(head)
            if request:
                result = request_head_parse(head, buf, size, &bounds)
            else:
                result = response_head_parse(head, buf, size, &bounds, METHOD_GET)
            if result <= 0:
                break
        end = _now_ns()
    free(head)
    if result != <int>size:
        raise ValueError("not a whole head")
    return (end - start) / rounds


def time_scan(str version, bytes data, uint32_t rounds):
    """Nanoseconds per scan of one field value that has no stop in it."""
    cdef const char* p = data
    cdef const char* end = p + len(data)
    cdef int64_t start, stop
    cdef uint64_t reached = 0
    cdef uint32_t _round
    cdef ValueStops found
    cdef int which = ("plain", "sse2", "stops").index(version)
    with nogil:
        start = _now_ns()
        for _round in range(rounds):
            if which == 0:
                reached += scan_value_plain(p, p, end) == end
            elif which == 1:
                reached += scan_value_sse2(p, p, end) == end
            else:
                stops_begin(&found, p, p, end)
                reached += stops_next(&found, p) == end
            # The next round may not be computed from this one.
            with_memory(&reached)
        stop = _now_ns()
    if reached != rounds:
        raise ValueError("a stop inside the value")
    return (stop - start) / rounds


cdef extern from *:
    """
    static inline void with_memory(void *p) { __asm__ volatile("" : : "r"(p) : "memory"); }
    """
    void with_memory(void* p) noexcept nogil
