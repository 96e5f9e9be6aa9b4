"""Parses the head of an HTTP/1 message in one pass over the bytes that were received.

Knows the grammar and the framing rules; does not know connections, limits' defaults or what is
done with a message. Strict on purpose: what another parser could read differently is refused.

    request-line = method SP request-target SP HTTP-version CRLF      RFC 9112 3
    status-line  = HTTP-version SP 3DIGIT [ SP [ reason ] ] CRLF      RFC 9112 4
    field-line   = token ":" OWS field-value OWS CRLF                 RFC 9112 5
    head         = *CRLF start-line *field-line CRLF

How a parse resumes: `line` is where the unfinished line begins, `at` up to where it was looked at,
`stage` in which part of it. No byte is scanned twice except the at most 12 of a version and
status, so a head that arrives byte by byte costs linear time, and a wrong byte is an error at
once, however the head was cut into segments.

Choices where the RFCs leave one:
  - Versions other than 1.0 and 1.1 are refused (505), also HTTP/1.2 and the HTTP/2 preface.
  - A target has no '#' and no byte above 0x7E. Absolute form is http or https, without userinfo.
  - A second Content-Length is refused even with an equal value, and so is "5, 5" (9110 8.6 allows
    both ways): a proxy that folds them forwards something else than it received.
  - Transfer-Encoding is "chunked", once. Also in a response, where another one would be 501.
  - An empty Host is taken only where the target URI needs no authority from it: asterisk form,
    absolute form, HTTP/1.0 (RFC 9110 7.2, 4.2.1).
  - An HTTP/1.1 status line may end after the code, as some servers write it (HEAD_NO_REASON_SPACE).
  - Fields that Connection lists are marked, whatever they are, but Host and framing fields never.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memset

from fastlb._core.authority cimport authority_valid
from fastlb._core.debug cimport BUG_ON, likely, unlikely
from fastlb._core.field cimport (
    STAGE_DONE, STAGE_METHOD, STAGE_NAME, STAGE_REASON, STAGE_START, STAGE_TARGET, STAGE_VERSION,
    bad_byte_error, field_lines_parse,
)
from fastlb._core.framing cimport framing_list_has, framing_mark_hop, framing_read
from fastlb._core.limits cimport (
    HEAD_BYTES_MAX, HEAD_FIELDS_MAX, METHOD_BYTES_MAX,
)
from fastlb._core.scan cimport scan_name, scan_target, scan_value
from fastlb._core.slice cimport Slice, slice_equal_fold, slice_of

cdef enum:
    VERSION_BYTES = 8                # "HTTP/1.1"
    STATUS_BYTES = 12                # "HTTP/1.1 200"
    FRAMING_FIELDS = 1 << FIELD_CONTENT_LENGTH | 1 << FIELD_TRANSFER_ENCODING

cdef const char* HTTP_VERSION = "HTTP/1.1"

cdef void head_reset(Head* head) noexcept nogil:
    memset(head, 0, <size_t>(<char*>head.first - <char*>head))
    memset(head.first, 0xff, sizeof(head.first))


# Checks what is there of "HTTP/1.x": the length of the good part, or the error.
cdef int _version(const char* p, uint32_t count) noexcept nogil:
    cdef uint32_t i
    for i in range(count if count < VERSION_BYTES else VERSION_BYTES):
        if i == 5 or i == 7:
            if not c'0' <= p[i] <= c'9':
                return HEAD_ERR_VERSION
        elif p[i] != HTTP_VERSION[i]:
            return HEAD_ERR_VERSION
    if count < VERSION_BYTES:
        return <int>count
    if p[5] != c'1' or p[7] > c'1':
        return HEAD_ERR_VERSION_UNSUPPORTED
    return VERSION_BYTES


cdef inline int _complete(Head* head) noexcept nogil:
    head.bytes = head.at
    head.stage = STAGE_DONE
    return <int>head.bytes

# ---------------------------------------------------------------------------------------------
# Requests.


cdef uint8_t _method(const char* name, uint32_t count) noexcept nogil:
    if count == 3:
        if memcmp(name, b"GET", 3) == 0:
            return METHOD_GET
        return METHOD_PUT if memcmp(name, b"PUT", 3) == 0 else METHOD_OTHER
    if count == 4:
        if memcmp(name, b"POST", 4) == 0:
            return METHOD_POST
        return METHOD_HEAD if memcmp(name, b"HEAD", 4) == 0 else METHOD_OTHER
    if count == 5:
        if memcmp(name, b"PATCH", 5) == 0:
            return METHOD_PATCH
        return METHOD_TRACE if memcmp(name, b"TRACE", 5) == 0 else METHOD_OTHER
    if count == 6:
        return METHOD_DELETE if memcmp(name, b"DELETE", 6) == 0 else METHOD_OTHER
    if count == 7:
        if memcmp(name, b"OPTIONS", 7) == 0:
            return METHOD_OPTIONS
        return METHOD_CONNECT if memcmp(name, b"CONNECT", 7) == 0 else METHOD_OTHER
    return METHOD_OTHER


# absolute-form = ( "http" / "https" ) "://" authority path-abempty [ "?" query ]
cdef int _absolute_form(Head* head, const char* buf) noexcept nogil:
    cdef Slice target = slice_of(buf + head.target, head.target_bytes)
    cdef uint32_t scheme = 0
    cdef uint32_t at
    if target.bytes > 7 and slice_equal_fold(slice_of(target.at, 7), "http://", 7):
        scheme = 7
    elif target.bytes > 8 and slice_equal_fold(slice_of(target.at, 8), "https://", 8):
        scheme = 8
    if scheme == 0:
        return HEAD_ERR_TARGET
    at = scheme
    while at < target.bytes and target.at[at] != c'/' and target.at[at] != c'?':
        at += 1
    head.target_form = TARGET_ABSOLUTE
    head.authority = head.target + scheme
    head.authority_bytes = at - scheme
    head.path = head.target + at
    head.path_bytes = target.bytes - at
    if at == scheme or not authority_valid(target.at + scheme, at - scheme, False):
        return HEAD_ERR_AUTHORITY
    return 0


# Which form the target has; each method allows only its own (RFC 9112 3.2).
cdef int _target_form(Head* head, const char* buf) noexcept nogil:
    cdef const char* target = buf + head.target
    if head.method == METHOD_CONNECT:
        head.target_form = TARGET_AUTHORITY
        head.authority = head.target
        head.authority_bytes = head.target_bytes
        return 0 if authority_valid(target, head.target_bytes, True) else HEAD_ERR_AUTHORITY
    if target[0] == c'/':
        head.target_form = TARGET_ORIGIN
        head.path = head.target
        head.path_bytes = head.target_bytes
        return 0
    if target[0] == c'*' and head.target_bytes == 1:
        head.target_form = TARGET_ASTERISK
        return 0 if head.method == METHOD_OPTIONS else HEAD_ERR_TARGET
    return _absolute_form(head, buf)


# "HTTP/1.1" CRLF at head.at. 1: the line is done; 0: incomplete; or an error.
cdef int _request_version(Head* head, const char* buf, uint32_t limit) noexcept nogil:
    cdef const char* p = buf + head.at
    cdef uint32_t count = limit - head.at
    cdef int result
    if unlikely(count < 10 or memcmp(p, b"HTTP/1.1\r\n", 10) != 0):
        result = _version(p, count)
        if result < VERSION_BYTES:
            return result if result < 0 else 0
        if count > 8 and p[8] != c'\r':
            return HEAD_ERR_BARE_LF if p[8] == c'\n' else HEAD_ERR_VERSION
        if count < 10:
            return 0
        if p[9] != c'\n':
            return HEAD_ERR_BARE_CR
    head.version_minor = <uint8_t>(p[7] - c'0')
    head.at += 10
    return 1


# Skips CRLFs before the request line (RFC 9112 2.2). 1: the line begins at head.line.
cdef int _empty_lines(
    Head* head, const char* buf, uint32_t bytes, const HeadLimits* limits
) noexcept nogil:
    while head.at < bytes and (buf[head.at] == c'\r' or buf[head.at] == c'\n'):
        if buf[head.at] == c'\n':
            return HEAD_ERR_BARE_LF
        if head.at + 1 == bytes:
            return 0
        if buf[head.at + 1] != c'\n':
            return HEAD_ERR_BARE_CR
        if head.empty_lines >= limits.empty_lines:
            return HEAD_ERR_EMPTY_LINES
        head.empty_lines += 1
        head.at += 2
    if head.at == bytes:
        return 0
    head.line_start = head.line = head.at
    head.stage = STAGE_METHOD
    return 1


# The request line, from wherever it stopped. 1: done; 0: incomplete up to `limit`; or an error.
cdef int _request_line(Head* head, const char* buf, uint32_t limit) noexcept nogil:
    cdef const char* p
    cdef int result
    if head.stage == STAGE_METHOD:
        p = scan_name(buf, buf + head.at, buf + limit)
        head.at = <uint32_t>(p - buf)
        head.method_bytes = head.at - head.line
        if head.method_bytes > METHOD_BYTES_MAX:
            return HEAD_ERR_METHOD
        if head.at == limit:
            return 0
        if p[0] != c' ' or head.method_bytes == 0:
            return HEAD_ERR_METHOD
        head.method = _method(buf + head.line, head.method_bytes)
        head.at += 1
        head.target = head.at
        head.stage = STAGE_TARGET
    if head.stage == STAGE_TARGET:
        p = scan_target(buf, buf + head.at, buf + limit)
        head.at = <uint32_t>(p - buf)
        head.target_bytes = head.at - head.target
        if head.at == limit:
            return 0
        if p[0] != c' ' or head.target_bytes == 0:
            return HEAD_ERR_VERSION if p[0] == c'\r' or p[0] == c'\n' else HEAD_ERR_TARGET
        head.at += 1
        head.stage = STAGE_VERSION
    result = _request_version(head, buf, limit)
    if result <= 0:
        return result
    head.line_end = head.line = head.at
    head.stage = STAGE_NAME
    return _target_form(head, buf) or 1


cdef int _host(const Head* head, const char* buf) noexcept nogil:
    cdef Slice host
    if head.first[FIELD_HOST] < 0:
        return HEAD_ERR_HOST_MISSING if head.version_minor == 1 else 0
    if head.repeated & (<uint64_t>1 << FIELD_HOST):
        return HEAD_ERR_HOST_REPEATED
    host = head_value(head, buf, head.first[FIELD_HOST])
    if host.bytes == 0:
        if head.version_minor == 1 and head.target_form == TARGET_ORIGIN:
            return HEAD_ERR_HOST
        return 0
    return 0 if authority_valid(host.at, host.bytes, False) else HEAD_ERR_HOST


cdef int _request_finish(Head* head, const char* buf) noexcept nogil:
    cdef int result = _host(head, buf)
    if result == 0:
        result = framing_read(head, buf)
    if result < 0:
        return result
    if head.first[FIELD_TRANSFER_ENCODING] >= 0:
        head.framing = BODY_CHUNKED
    elif head.content_length:
        head.framing = BODY_LENGTH
    if head.first[FIELD_EXPECT] >= 0 and head.version_minor == 1:
        if framing_list_has(head, buf, FIELD_EXPECT, "100-continue", 12):
            head.flags |= HEAD_EXPECT_CONTINUE
    return _complete(head)


cdef int request_head_parse(
    Head* head, const char* buf, uint32_t bytes, const HeadLimits* limits
) noexcept nogil:
    cdef uint32_t end = bytes if bytes < limits.head_bytes else limits.head_bytes
    cdef uint32_t limit
    cdef int result = 1
    BUG_ON(limits.head_bytes > HEAD_BYTES_MAX or limits.field_count > HEAD_FIELDS_MAX)
    BUG_ON(head.at > bytes or head.stage == STAGE_DONE)
    if unlikely(head.at > end):
        return HEAD_ERR_TOO_LONG     # a reload has lowered the limit meanwhile
    if head.stage == STAGE_START:
        result = _empty_lines(head, buf, end, limits)
    if result > 0 and head.stage < STAGE_NAME:
        limit = end
        if end - head.line > limits.request_line_bytes:
            limit = head.line + limits.request_line_bytes
            if head.at > limit:
                return HEAD_ERR_LINE_TOO_LONG
        result = _request_line(head, buf, limit)
        if result == 0 and limit - head.line >= limits.request_line_bytes:
            return HEAD_ERR_LINE_TOO_LONG
    if result > 0:
        result = field_lines_parse(head, buf, end, limits)
    if likely(result > 0):
        return _request_finish(head, buf)
    if result == 0 and bytes >= limits.head_bytes:
        return HEAD_ERR_TOO_LONG
    return result

# ---------------------------------------------------------------------------------------------
# Responses.


# "HTTP/1.1 200" and the byte after it. 1: the reason begins at head.at.
cdef int _status(Head* head, const char* buf, uint32_t limit) noexcept nogil:
    cdef const char* p = buf + head.line
    cdef uint32_t count = limit - head.line
    cdef uint32_t i
    cdef int result = _version(p, count)
    if result < VERSION_BYTES:
        return result if result < 0 else 0
    if count > 8 and p[8] != c' ':
        return HEAD_ERR_STATUS
    for i in range(9, count if count < STATUS_BYTES else STATUS_BYTES):
        if not c'0' <= p[i] <= c'9' or (i == 9 and p[i] == c'0'):
            return HEAD_ERR_STATUS
    if count <= STATUS_BYTES:
        return 0
    head.version_minor = <uint8_t>(p[7] - c'0')
    head.status = <uint16_t>((p[9] - c'0') * 100 + (p[10] - c'0') * 10 + (p[11] - c'0'))
    head.at = head.line + STATUS_BYTES
    if p[STATUS_BYTES] == c' ':
        head.at += 1
    elif p[STATUS_BYTES] == c'\r':
        head.flags |= HEAD_NO_REASON_SPACE
    else:
        return HEAD_ERR_BARE_LF if p[STATUS_BYTES] == c'\n' else HEAD_ERR_STATUS
    head.reason = head.at
    head.stage = STAGE_REASON
    return 1


# The status line, from wherever it stopped. 1: done; 0: incomplete up to `limit`; or an error.
cdef int _status_line(Head* head, const char* buf, uint32_t limit) noexcept nogil:
    cdef const char* p
    cdef int result
    if head.stage < STAGE_REASON:
        result = _status(head, buf, limit)
        if result <= 0:
            return result
    p = scan_value(buf, buf + head.at, buf + limit)
    head.at = <uint32_t>(p - buf)
    head.reason_bytes = head.at - head.reason
    if head.at == limit:
        return 0
    if p[0] != c'\r':
        return bad_byte_error(p[0])
    if head.at + 1 == limit:
        return 0
    if p[1] != c'\n':
        return HEAD_ERR_BARE_CR
    head.at += 2
    head.line_end = head.line = head.at
    head.stage = STAGE_NAME
    return 1


# RFC 9112 6.3. A 1xx or 204 with framing fields ends with its head; the fields go no further,
# and what the node may have sent after it must not be read as the next response.
cdef void _response_framing(Head* head, uint8_t method) noexcept nogil:
    cdef bint chunked = head.first[FIELD_TRANSFER_ENCODING] >= 0
    cdef bint tunnel = method == METHOD_CONNECT and 200 <= head.status <= 299
    head.framing = BODY_NONE
    if head.status < 200 or head.status == 204 or tunnel:
        if chunked or head.flags & HEAD_HAS_LENGTH:
            head.flags |= HEAD_FRAMED_BODILESS
            framing_mark_hop(head, FRAMING_FIELDS)
    elif head.status == 304 or method == METHOD_HEAD:
        if chunked and head.status == 304:
            # It says nothing there, and some clients would wait for chunks all the same.
            framing_mark_hop(head, 1 << FIELD_TRANSFER_ENCODING)
    elif chunked:
        head.framing = BODY_CHUNKED
    elif head.flags & HEAD_HAS_LENGTH:
        head.framing = BODY_LENGTH if head.content_length else BODY_NONE
    else:
        head.framing = BODY_UNTIL_CLOSE


cdef int response_head_parse(
    Head* head, const char* buf, uint32_t bytes, const HeadLimits* limits, uint8_t method
) noexcept nogil:
    cdef uint32_t end = bytes if bytes < limits.head_bytes else limits.head_bytes
    cdef uint32_t limit
    cdef int result = 1
    BUG_ON(limits.head_bytes > HEAD_BYTES_MAX or limits.field_count > HEAD_FIELDS_MAX)
    BUG_ON(head.at > bytes or head.stage == STAGE_DONE)
    if head.stage < STAGE_NAME:
        limit = end if end < limits.request_line_bytes else limits.request_line_bytes
        result = _status_line(head, buf, limit)
        if result == 0 and limit >= limits.request_line_bytes:
            return HEAD_ERR_LINE_TOO_LONG
    if result > 0:
        result = field_lines_parse(head, buf, end, limits)
    if result > 0:
        result = framing_read(head, buf)
        if result < 0:
            return result
        _response_framing(head, method)
        return _complete(head)
    if result == 0 and bytes >= limits.head_bytes:
        return HEAD_ERR_TOO_LONG
    return result

# ---------------------------------------------------------------------------------------------


cdef bint host_valid(const char* text, uint32_t count) noexcept nogil:
    return authority_valid(text, count, False)


cdef int head_error_status(int error) noexcept nogil:
    if error == HEAD_ERR_LINE_TOO_LONG:
        return 414
    if error in (HEAD_ERR_FIELD_TOO_LONG, HEAD_ERR_FIELD_COUNT, HEAD_ERR_TOO_LONG):
        return 431
    if error == HEAD_ERR_CODING_UNKNOWN:
        return 501
    if error == HEAD_ERR_VERSION_UNSUPPORTED:
        return 505
    return 400


cdef const char* error_names[HEAD_ERR_COUNT]
error_names[:] = [
    "none", "empty-lines", "method", "target", "authority", "version", "version-unsupported",
    "status", "line-too-long", "bare-cr", "bare-lf", "nul", "control", "field-name",
    "space-before-colon", "folded", "field-too-long", "field-count", "head-too-long",
    "host-missing", "host-repeated", "host", "length", "length-overflow", "length-repeated",
    "coding", "coding-unknown", "coding-repeated", "coding-and-length", "coding-in-1.0",
    "connection",
]


cdef const char* head_error_name(int error) noexcept nogil:
    BUG_ON(error > 0)
    BUG_ON(error <= -HEAD_ERR_COUNT)
    return error_names[-error]
