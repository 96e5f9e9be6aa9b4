"""Finds the end of a message body, and the data in it, without copying or looking at data.

    chunked-body   = *chunk last-chunk trailer-section CRLF            RFC 9112 7.1
    chunk          = chunk-size [ chunk-ext ] CRLF chunk-data CRLF
    chunk-size     = 1*HEXDIG
    chunk-ext      = *( BWS ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] )
    trailer-section = *( field-line CRLF )

Strict: CRLF only, white space only where the grammar has it (so none between size and CRLF), no
folded trailers. A reader is fed whatever arrived and keeps its place in every state.

Trailers pass as they are and are never merged into the head. A trailer that would mean something
for framing, routing, authentication or cookies if another parser did merge it (RFC 9110 6.5.1) is
an error, not dropped: the body is passed on verbatim, and its sender is broken or hostile.

Extensions and tiny chunks are bounded as a whole too: each chunk line adds its length to
`overhead_bytes`, and each chunk pays 16 bytes and twice its data back.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from fastlb._core.debug cimport BUG_ON
from fastlb._core.field cimport field_id
from fastlb._core.limits cimport (
    CHUNK_DIGITS_MAX, CHUNK_LINE_BYTES, CHUNK_OVERHEAD_BYTES_MAX, TRAILER_BYTES,
)
from fastlb._core.message cimport (
    BODY_CHUNKED, BODY_LENGTH, BODY_NONE, BODY_UNTIL_CLOSE, FIELD_AUTHORIZATION, FIELD_CONNECTION,
    FIELD_CONTENT_LENGTH, FIELD_CONTENT_TYPE, FIELD_COOKIE, FIELD_EXPECT, FIELD_FORWARDED,
    FIELD_HOST, FIELD_KEEP_ALIVE, FIELD_PROXY_AUTHORIZATION, FIELD_PROXY_CONNECTION,
    FIELD_SET_COOKIE, FIELD_TE, FIELD_TRAILER, FIELD_TRANSFER_ENCODING, FIELD_UPGRADE,
    FIELD_X_FORWARDED_FOR, FIELD_X_FORWARDED_HOST, FIELD_X_FORWARDED_PROTO,
)
from fastlb._core.scan cimport BYTE_QUOTED, BYTE_TOKEN, BYTE_VALUE, byte_is, scan_name, scan_value
from fastlb._core.slice cimport slice_equal_fold, slice_of

cdef enum:
    CERTIFICATE_BYTES = 20

cdef enum:                           # states
    # Up to a chunk's data; the order matters to body_step.
    STATE_DATA_CR = 0                # after a chunk's data
    STATE_DATA_LF
    STATE_SIZE_FIRST
    STATE_SIZE
    STATE_BEFORE_SEMICOLON           # white space after the size or a value
    STATE_NAME_FIRST                 # after ';'
    STATE_NAME
    STATE_AFTER_NAME                 # white space after an extension's name
    STATE_VALUE_FIRST                # after '='
    STATE_VALUE
    STATE_QUOTED
    STATE_QUOTED_PAIR                # after '\' in a quoted string
    STATE_QUOTED_END
    STATE_SIZE_LF
    STATE_DATA
    STATE_TRAILER_FIRST
    STATE_TRAILER_NAME
    STATE_TRAILER_VALUE
    STATE_TRAILER_LF
    STATE_END_LF

cdef uint64_t BODY_BYTES_MAX = 0x7fffffffffffffff
cdef const char* CERTIFICATE = "x-client-certificate"

cdef uint64_t refused_trailers = 0   # bit (1 << FieldId)
for _wanted in (
    FIELD_AUTHORIZATION, FIELD_CONNECTION, FIELD_CONTENT_LENGTH, FIELD_CONTENT_TYPE, FIELD_COOKIE,
    FIELD_EXPECT, FIELD_FORWARDED, FIELD_HOST, FIELD_KEEP_ALIVE, FIELD_PROXY_AUTHORIZATION,
    FIELD_PROXY_CONNECTION, FIELD_SET_COOKIE, FIELD_TE, FIELD_TRAILER, FIELD_TRANSFER_ENCODING,
    FIELD_UPGRADE, FIELD_X_FORWARDED_FOR, FIELD_X_FORWARDED_HOST, FIELD_X_FORWARDED_PROTO,
):
    refused_trailers |= 1 << _wanted


cdef void body_start(BodyReader* reader, uint8_t kind, uint64_t length) noexcept nogil:
    reader.kind = kind
    reader.left = 0
    reader.data_bytes = 0
    reader.passed = 0
    reader.line_bytes = 0
    reader.overhead_bytes = 0
    reader.line_bytes_max = CHUNK_LINE_BYTES
    reader.trailer_bytes_max = TRAILER_BYTES
    reader.state = STATE_DATA
    reader.trailers = 0
    reader.name_bytes = 0
    reader.digits = 0
    if kind == BODY_LENGTH:
        reader.left = length
    elif kind == BODY_CHUNKED:
        reader.state = STATE_SIZE_FIRST
    elif kind == BODY_UNTIL_CLOSE:
        reader.left = BODY_BYTES_MAX
    reader.done = kind == BODY_NONE or (kind == BODY_LENGTH and length == 0)


cdef inline int _hex_value(char c) noexcept nogil:
    if c'0' <= c <= c'9':
        return c - c'0'
    c |= 0x20
    return c - c'a' + 10 if c'a' <= c <= c'f' else -1


# After the size, a token or a quoted string: what may follow it.
cdef inline int _after_value(char c, int refused) noexcept nogil:
    if c == c'\r':
        return STATE_SIZE_LF
    if c == c';':
        return STATE_NAME_FIRST
    if c == c' ' or c == c'\t':
        return STATE_BEFORE_SEMICOLON
    return refused


# The next state of an extension, from one byte; one switch.
cdef int _extension_byte(int state, char c) noexcept nogil:
    cdef bint white = c == c' ' or c == c'\t'
    if state == STATE_NAME:
        if byte_is(c, BYTE_TOKEN):
            return STATE_NAME
        if c == c'=':
            return STATE_VALUE_FIRST
        if white:
            return STATE_AFTER_NAME
        return _after_value(c, BODY_ERR_CHUNK_EXTENSION)
    if state == STATE_VALUE:
        if byte_is(c, BYTE_TOKEN):
            return STATE_VALUE
        return _after_value(c, BODY_ERR_CHUNK_EXTENSION)
    if state == STATE_QUOTED:
        if c == c'"':
            return STATE_QUOTED_END
        if c == c'\\':
            return STATE_QUOTED_PAIR
        return STATE_QUOTED if byte_is(c, BYTE_QUOTED) else BODY_ERR_CHUNK_EXTENSION
    if state == STATE_QUOTED_PAIR:
        return STATE_QUOTED if byte_is(c, BYTE_VALUE) else BODY_ERR_CHUNK_EXTENSION
    if state == STATE_QUOTED_END:
        return _after_value(c, BODY_ERR_CHUNK_EXTENSION)
    # White space may stand in the other states.
    if white:
        return state
    if state == STATE_NAME_FIRST:
        return STATE_NAME if byte_is(c, BYTE_TOKEN) else BODY_ERR_CHUNK_EXTENSION
    if state == STATE_VALUE_FIRST:
        if c == c'"':
            return STATE_QUOTED
        return STATE_VALUE if byte_is(c, BYTE_TOKEN) else BODY_ERR_CHUNK_EXTENSION
    if state == STATE_AFTER_NAME and c == c'=':
        return STATE_VALUE_FIRST
    return STATE_NAME_FIRST if c == c';' else BODY_ERR_CHUNK_EXTENSION


# The chunk line is complete: 0, or an error.
cdef int _chunk_line_end(BodyReader* reader) noexcept nogil:
    cdef uint64_t paid = 16 + 2 * min(reader.left, <uint64_t>CHUNK_OVERHEAD_BYTES_MAX)
    reader.overhead_bytes += reader.line_bytes
    reader.overhead_bytes -= <uint32_t>min(paid, <uint64_t>reader.overhead_bytes)
    reader.line_bytes = 0
    reader.digits = 0
    if reader.overhead_bytes > max(<uint32_t> CHUNK_OVERHEAD_BYTES_MAX, reader.line_bytes_max):
        return BODY_ERR_OVERHEAD
    reader.state = STATE_TRAILER_FIRST if reader.left == 0 else STATE_DATA
    return 0


# From the end of a chunk's data to the end of the next chunk line. Returns what it consumed.
cdef int64_t _chunk_line(BodyReader* reader, const char* p, uint64_t count) noexcept nogil:
    cdef uint64_t i = 0
    cdef int state = reader.state
    cdef int digit
    while i < count:
        if state == STATE_SIZE or state == STATE_SIZE_FIRST:
            digit = _hex_value(p[i])
            if digit >= 0:
                reader.digits += 1
                if reader.left > BODY_BYTES_MAX >> 4 or reader.digits > CHUNK_DIGITS_MAX:
                    return BODY_ERR_CHUNK_OVERFLOW
                reader.left = reader.left << 4 | <uint64_t>digit
                state = STATE_SIZE
            elif state == STATE_SIZE_FIRST:
                return BODY_ERR_CHUNK_SIZE
            else:
                state = _after_value(p[i], BODY_ERR_CHUNK_SIZE)
        elif state == STATE_SIZE_LF:
            if p[i] != c'\n':
                return BODY_ERR_CHUNK_SIZE
            reader.line_bytes += 1
            state = _chunk_line_end(reader)
            return state if state < 0 else <int64_t>(i + 1)
        elif state == STATE_DATA_CR:
            if p[i] != c'\r':
                return BODY_ERR_CHUNK_END
            state = STATE_DATA_LF
        elif state == STATE_DATA_LF:
            if p[i] != c'\n':
                return BODY_ERR_CHUNK_END
            state = STATE_SIZE_FIRST
        else:
            state = _extension_byte(state, p[i])
        if state < 0:
            return state
        reader.line_bytes += 1
        if reader.line_bytes > reader.line_bytes_max:
            return BODY_ERR_CHUNK_LINE
        i += 1
    reader.state = <uint8_t>state
    return <int64_t>count


# Keeps the first bytes of a trailer's name, which may come in pieces.
cdef void _trailer_name(BodyReader* reader, const char* p, uint64_t count) noexcept nogil:
    cdef uint64_t i
    for i in range(count):
        if reader.name_bytes == TRAILER_NAME_BYTES_MAX:
            return
        # A CGI program takes "_" for "-".
        reader.name[reader.name_bytes] = c'-' if p[i] == c'_' else p[i]
        reader.name_bytes += 1


cdef bint _trailer_refused(const BodyReader* reader) noexcept nogil:
    # X-Client-Certificate and -Subject are fastlb's word on who the client is.
    if reader.name_bytes >= CERTIFICATE_BYTES and slice_equal_fold(
            slice_of(reader.name, CERTIFICATE_BYTES), CERTIFICATE, CERTIFICATE_BYTES):
        return True
    return refused_trailers >> field_id(reader.name, reader.name_bytes) & 1


# One piece of a trailer line, at most to its end. Returns what it consumed.
cdef int64_t _trailer_piece(BodyReader* reader, const char* p, const char* end) noexcept nogil:
    cdef const char* stop = p + 1
    if reader.state == STATE_TRAILER_FIRST:
        if p[0] == c'\r':
            reader.state = STATE_END_LF
            return 1
        reader.name_bytes = 0
        reader.state = STATE_TRAILER_NAME
    if reader.state == STATE_TRAILER_NAME:
        stop = scan_name(p, p, end)
        _trailer_name(reader, p, stop - p)
        if stop == end:
            return stop - p
        if stop[0] != c':' or reader.name_bytes == 0:
            return BODY_ERR_TRAILER
        if _trailer_refused(reader):
            return BODY_ERR_TRAILER_FIELD
        reader.state = STATE_TRAILER_VALUE
        return stop + 1 - p
    if reader.state == STATE_TRAILER_VALUE:
        stop = scan_value(p, p, end)
        if stop == end:
            return stop - p
        if stop[0] != c'\r':
            return BODY_ERR_TRAILER
        reader.state = STATE_TRAILER_LF
        return stop + 1 - p
    if p[0] != c'\n':
        return BODY_ERR_TRAILER
    if reader.state == STATE_END_LF:
        reader.done = True
    else:
        reader.state = STATE_TRAILER_FIRST
        reader.trailers += reader.trailers < 255
    return 1


# The trailer section and the empty line after it. Returns what it consumed.
cdef int64_t _trailers(BodyReader* reader, const char* p, uint64_t count) noexcept nogil:
    cdef uint64_t room = reader.trailer_bytes_max - reader.line_bytes
    cdef const char* end = p + min(count, room)
    cdef const char* at = p
    cdef int64_t taken
    while at < end and not reader.done:
        taken = _trailer_piece(reader, at, end)
        if taken < 0:
            return taken
        at += taken
    reader.line_bytes += <uint32_t>(at - p)
    if not reader.done and reader.line_bytes == reader.trailer_bytes_max:
        return BODY_ERR_TRAILER_TOO_LONG
    return at - p


cdef int64_t body_step(
    BodyReader* reader, const char* p, uint64_t count, BodySpan* span
) noexcept nogil:
    cdef uint64_t at = 0
    cdef int64_t taken
    span.offset = 0
    span.bytes = 0
    while at < count and not reader.done:
        if reader.state == STATE_DATA:
            span.offset = at
            span.bytes = min(reader.left, count - at)
            body_skip(reader, span.bytes)
            return <int64_t>(at + span.bytes)
        if reader.state < STATE_DATA:
            taken = _chunk_line(reader, p + at, count - at)
        else:
            taken = _trailers(reader, p + at, count - at)
        if taken < 0:
            return taken
        at += taken
    return <int64_t>at


cdef int64_t body_pass(BodyReader* reader, const char* p, uint64_t count) noexcept nogil:
    cdef BodySpan span
    cdef uint64_t at = 0
    cdef int64_t taken
    while at < count and not reader.done:
        taken = body_step(reader, p + at, count - at, &span)
        if taken < 0:
            reader.passed = at
            return taken
        at += taken
    reader.passed = at
    return <int64_t>at


cdef bint body_closed(BodyReader* reader) noexcept nogil:
    if reader.kind == BODY_UNTIL_CLOSE:
        reader.done = True
    return reader.done


cdef uint64_t body_expected(const BodyReader* reader) noexcept nogil:
    return reader.left if reader.state == STATE_DATA and not reader.done else 0


cdef void body_skip(BodyReader* reader, uint64_t count) noexcept nogil:
    BUG_ON(count > body_expected(reader))
    if count == 0:
        return
    reader.data_bytes += count
    if reader.kind == BODY_UNTIL_CLOSE:
        return
    reader.left -= count
    if reader.left == 0:
        if reader.kind == BODY_CHUNKED:
            reader.state = STATE_DATA_CR
        else:
            reader.done = True


cdef const char* error_names[BODY_ERR_COUNT]
error_names[:] = [
    "none", "chunk-size", "chunk-overflow", "chunk-extension", "chunk-line", "chunk-end",
    "overhead", "trailer", "trailer-too-long", "trailer-field",
]


cdef const char* body_error_name(int error) noexcept nogil:
    BUG_ON(error > 0)
    BUG_ON(error <= -BODY_ERR_COUNT)
    return error_names[-error]
