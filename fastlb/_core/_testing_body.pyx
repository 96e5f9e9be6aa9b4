"""def functions over body; for tests only."""

from libc.stdint cimport int64_t, uint64_t

from fastlb._core._testing_arena cimport arena_place
from fastlb._core.body cimport (
    BODY_ERR_COUNT, BodyReader, BodySpan, body_closed, body_error_name, body_expected, body_limit,
    body_pass, body_skip, body_start, body_step,
)
from fastlb._core.head cimport BODY_CHUNKED, BODY_LENGTH, BODY_NONE, BODY_UNTIL_CLOSE

KINDS = {
    "none": BODY_NONE, "length": BODY_LENGTH, "chunked": BODY_CHUNKED,
    "until-close": BODY_UNTIL_CLOSE,
}


def read(str kind, list segments, uint64_t length=0, limits=None):
    """(data, bytes consumed, "done" | "more" | an error's name) by body_step; `limits`: of a chunk
    line, of the trailers."""
    cdef BodyReader reader
    cdef BodySpan span
    cdef const char* p
    cdef int64_t taken
    cdef uint64_t at, expected
    data = bytearray()
    consumed = 0
    body_start(&reader, KINDS[kind], length)
    if limits is not None:
        body_limit(&reader, limits[0], limits[1])
    for segment in segments:
        p = arena_place(segment, len(segment))
        at = 0
        while at < <uint64_t>len(segment) and not reader.done:
            expected = body_expected(&reader)
            taken = body_step(&reader, p + at, len(segment) - at, &span)
            if taken < 0:
                return bytes(data), consumed, body_error_name(<int>taken).decode()
            if taken == 0 or at + taken > <uint64_t>len(segment):
                raise AssertionError("body_step consumed nothing, or too much")
            if expected and span.bytes != min(expected, len(segment) - at):
                raise AssertionError("body_expected promised other bytes")
            data += segment[at + span.offset:at + span.offset + span.bytes]
            at += taken
            consumed += taken
    if reader.data_bytes != <uint64_t>len(data):
        raise AssertionError("data_bytes is wrong")
    return bytes(data), consumed, "done" if reader.done else "more"


def passed(str kind, list segments, uint64_t length=0):
    """(bytes consumed, state or error) by body_pass."""
    cdef BodyReader reader
    cdef int64_t taken
    consumed = 0
    body_start(&reader, KINDS[kind], length)
    for segment in segments:
        taken = body_pass(&reader, arena_place(segment, len(segment)), len(segment))
        consumed += reader.passed
        if taken < 0:
            return consumed, body_error_name(<int>taken).decode()
        if reader.done:
            break
    return consumed, "done" if reader.done else "more"


def skipped(str kind, bytes before, uint64_t skip, bytes after, uint64_t length=0):
    """What is expected after `before`, then the state after skipping and reading `after`."""
    cdef BodyReader reader
    cdef uint64_t expected
    body_start(&reader, KINDS[kind], length)
    if body_pass(&reader, before, len(before)) != len(before):
        raise ValueError("not the beginning of a body")
    expected = body_expected(&reader)
    body_skip(&reader, skip)
    taken = body_pass(&reader, after, len(after))
    return expected, taken, reader.data_bytes, "done" if reader.done else "more"


def closed(str kind, bytes data, uint64_t length=0):
    """Is the message complete when the peer closes after `data`?"""
    cdef BodyReader reader
    body_start(&reader, KINDS[kind], length)
    body_pass(&reader, data, len(data))
    return bool(body_closed(&reader))


def error_names():
    return [body_error_name(-i).decode() for i in range(1, BODY_ERR_COUNT)]
