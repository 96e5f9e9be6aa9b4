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

from libc.stdint cimport int16_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset

from fastlb._core.authority cimport authority_valid
from fastlb._core.debug cimport BUG_ON, likely, unlikely
from fastlb._core.limits cimport (
    CONNECTION_OPTIONS_MAX, EMPTY_LINES_MAX, HEAD_BYTES_MAX, HEAD_FIELDS_MAX, METHOD_BYTES_MAX,
)
from fastlb._core.scan cimport (
    BYTE_VALUE, ValueStops, byte_is, scan_name, scan_target, scan_value, stops_begin, stops_next,
)
from fastlb._core.slice cimport Slice, slice_equal_fold, slice_of, slice_trim

cdef enum:                           # stages
    STAGE_START = 0                  # empty lines before the request line
    STAGE_METHOD
    STAGE_TARGET
    STAGE_VERSION                    # request: the rest of the line; response: up to the status
    STAGE_REASON
    STAGE_NAME
    STAGE_VALUE
    STAGE_DONE

cdef enum:
    NAME_SLOTS = 128                 # power of two
    VERSION_BYTES = 8                # "HTTP/1.1"
    STATUS_BYTES = 12                # "HTTP/1.1 200"

cdef uint64_t CONTENT_LENGTH_MAX = 0x7fffffffffffffff
cdef const char* HTTP_VERSION = "HTTP/1.1"

cdef enum:                           # bits (1 << FieldId); Connection itself: see _connection
    HOP_FIELDS = (
        1 << FIELD_KEEP_ALIVE | 1 << FIELD_PROXY_CONNECTION | 1 << FIELD_TE | 1 << FIELD_UPGRADE
    )
    FRAMING_FIELDS = 1 << FIELD_CONTENT_LENGTH | 1 << FIELD_TRANSFER_ENCODING

# ---------------------------------------------------------------------------------------------
# Names. A slot is found from a name's length, first and last byte; the slots hold no two known
# names (checked at import), so an unknown name costs one look, mostly at its length alone.

ctypedef struct KnownName:           # folded to lower case
    uint64_t head                    # first 8 bytes (see _name_word for shorter names)
    uint64_t middle                  # bytes 8..15 of a name longer than 16
    uint64_t tail                    # last 8 bytes
    uint32_t bytes

cdef KnownName known_names[FIELD_ID_COUNT]
cdef uint8_t name_slots[NAME_SLOTS]
cdef uint64_t FOLD = 0x2020202020202020


cdef inline uint32_t _name_slot(const char* name, uint32_t count) noexcept nogil:
    return (
        count + (<uint8_t>name[0] | 0x20) + 11 * (<uint8_t>name[count - 1] | 0x20)
    ) & (NAME_SLOTS - 1)


# Setting bit 5 folds case; no other byte of a token becomes a letter, a digit or '-' by it.
cdef inline uint64_t _load8(const char* p) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, p, 8)
    return word | FOLD


cdef inline uint64_t _name_word(const char* name, uint32_t count) noexcept nogil:
    cdef uint32_t low, high
    if count >= 8:
        return _load8(name)
    if count >= 4:
        memcpy(&low, name, 4)
        memcpy(&high, name + count - 4, 4)
        return (low | (<uint64_t>high << 32)) | FOLD
    return (
        <uint8_t>name[0] | <uint32_t>(<uint8_t>name[count >> 1]) << 8
        | <uint32_t>(<uint8_t>name[count - 1]) << 16
    ) | FOLD


cdef bint _name_is(const KnownName* known, const char* name, uint32_t count) noexcept nogil:
    if known.head != _name_word(name, count):
        return False
    if count > 8 and known.tail != _load8(name + count - 8):
        return False
    return count <= 16 or known.middle == _load8(name + 8)


# `count` is not 0.
cdef inline uint8_t _field_id(const char* name, uint32_t count) noexcept nogil:
    cdef uint8_t wanted = name_slots[_name_slot(name, count)]
    if known_names[wanted].bytes != count or not _name_is(&known_names[wanted], name, count):
        return FIELD_OTHER
    return wanted


cdef uint8_t field_id(const char* name, uint32_t count) noexcept nogil:
    return _field_id(name, count) if count else <uint8_t>FIELD_OTHER


cdef int _name_add(uint8_t wanted, bytes name) except -1:
    cdef const char* text = name
    cdef uint32_t count = <uint32_t>len(name)
    cdef uint32_t slot = _name_slot(text, count)
    cdef KnownName* known = &known_names[wanted]
    if name_slots[slot] != FIELD_OTHER:
        raise ImportError(f"field names {name!r} and number {name_slots[slot]} share a slot")
    if not 2 <= count <= 24 or name != name.lower():
        raise ImportError(f"{name!r} does not fit the table of field names")
    name_slots[slot] = wanted
    known.bytes = count
    known.head = _name_word(text, count)
    known.tail = _load8(text + count - 8) if count >= 8 else 0
    known.middle = _load8(text + 8) if count >= 16 else 0
    return 0


for _wanted, _name in (
    (FIELD_HOST, b"host"), (FIELD_CONNECTION, b"connection"),
    (FIELD_CONTENT_LENGTH, b"content-length"), (FIELD_TRANSFER_ENCODING, b"transfer-encoding"),
    (FIELD_COOKIE, b"cookie"), (FIELD_SET_COOKIE, b"set-cookie"), (FIELD_EXPECT, b"expect"),
    (FIELD_UPGRADE, b"upgrade"), (FIELD_TE, b"te"), (FIELD_TRAILER, b"trailer"),
    (FIELD_KEEP_ALIVE, b"keep-alive"), (FIELD_PROXY_CONNECTION, b"proxy-connection"),
    (FIELD_PROXY_AUTHORIZATION, b"proxy-authorization"),
    (FIELD_X_FORWARDED_FOR, b"x-forwarded-for"), (FIELD_X_FORWARDED_PROTO, b"x-forwarded-proto"),
    (FIELD_X_FORWARDED_HOST, b"x-forwarded-host"), (FIELD_FORWARDED, b"forwarded"),
    (FIELD_VIA, b"via"), (FIELD_USER_AGENT, b"user-agent"),
    (FIELD_CACHE_CONTROL, b"cache-control"), (FIELD_PRAGMA, b"pragma"),
    (FIELD_EXPIRES, b"expires"), (FIELD_ETAG, b"etag"), (FIELD_LAST_MODIFIED, b"last-modified"),
    (FIELD_LOCATION, b"location"), (FIELD_DATE, b"date"), (FIELD_AUTHORIZATION, b"authorization"),
    (FIELD_WWW_AUTHENTICATE, b"www-authenticate"), (FIELD_RETRY_AFTER, b"retry-after"),
    (FIELD_REFERER, b"referer"), (FIELD_CONTENT_TYPE, b"content-type"),
    (FIELD_X_ZEUS_BACKEND, b"x-zeus-backend"), (FIELD_X_FASTLB_DECISION, b"x-fastlb-decision"),
):
    _name_add(_wanted, _name)

if FIELD_ID_COUNT > 64:
    raise ImportError("Head.repeated has 64 bits")

# ---------------------------------------------------------------------------------------------
# Pieces that both parsers use.


cdef void head_reset(Head* head) noexcept nogil:
    memset(head, 0, <size_t>(<char*>head.first - <char*>head))
    memset(head.first, 0xff, sizeof(head.first))


# The error for a byte that stands where no control character may.
cdef int _bad_byte(char byte) noexcept nogil:
    if byte == c'\r':
        return HEAD_ERR_BARE_CR
    if byte == c'\n':
        return HEAD_ERR_BARE_LF
    if byte == 0:
        return HEAD_ERR_NUL
    return HEAD_ERR_CONTROL


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


# One element of a comma-separated list, without white space around it; empty elements too.
cdef bint _list_next(Slice* rest, Slice* item) noexcept nogil:
    cdef const char* comma
    if rest.at == NULL:
        return False
    item[0] = rest[0]
    comma = <const char*>memchr(rest.at, c',', rest.bytes)
    rest.at = NULL
    if comma != NULL:
        rest.at = comma + 1
        rest.bytes = <uint32_t>(item.at + item.bytes - rest.at)
        item.bytes = <uint32_t>(comma - item.at)
    item[0] = slice_trim(item[0])
    return True


# Is a field of this id there whose list holds `lower`?
cdef bint _list_has(
    const Head* head, const char* buf, uint8_t wanted, const char* lower, uint32_t count
) noexcept nogil:
    cdef Slice rest, item
    cdef int i = head.first[wanted]
    while i >= 0:
        rest = head_value(head, buf, i)
        while _list_next(&rest, &item):
            if slice_equal_fold(item, lower, count):
                return True
        i = head_next(head, i)
    return False

# ---------------------------------------------------------------------------------------------
# Field lines.


# A line that is no field: the empty one that ends the head (1), incomplete (0), or an error.
cdef int _line_without_colon(
    const char* line, const char* p, const char* limit
) noexcept nogil:
    if p[0] == c' ' or p[0] == c'\t':
        return HEAD_ERR_FOLDED if p == line else HEAD_ERR_SPACE_BEFORE_COLON
    if p[0] == c'\r' and p == line:
        if p + 1 == limit:
            return 0
        return 1 if p[1] == c'\n' else HEAD_ERR_BARE_CR
    if p[0] == c'\n' and p == line:
        return HEAD_ERR_BARE_LF
    if p[0] == c'\r' or p[0] == c'\n' or byte_is(p[0], BYTE_VALUE):
        return HEAD_ERR_FIELD_NAME
    return _bad_byte(p[0])


cdef inline void _known_field(Head* head, uint8_t known, uint32_t index) noexcept nogil:
    cdef uint64_t bit = <uint64_t>1 << known
    if head.present & bit:
        head.repeated |= bit
    else:
        head.present |= bit
        head.first[known] = <int16_t>index


cdef inline bint _is_white(char c) noexcept nogil:
    return c == c' ' or c == c'\t'


cdef inline uint8_t _field_store(
    Field* field, const char* buf, const char* line, const char* name_end, const char* value_end
) noexcept nogil:
    cdef const char* value = name_end + 1
    cdef uint8_t known = _field_id(line, <uint32_t>(name_end - line))
    field.start = <uint32_t>(line - buf)
    field.end = <uint32_t>(value_end - buf) + 2
    field.name_bytes = <uint16_t>(name_end - line)
    field.id = known
    field.flags = 0
    # Every line has CR after its value, which ends the first of these loops.
    if likely(value[0] == c' '):
        value += 1
    while unlikely(_is_white(value[0])):
        value += 1
    while unlikely(_is_white((value_end - 1)[0])) and value_end > value:
        value_end -= 1
    field.value = <uint32_t>(value - buf)
    field.value_bytes = <uint16_t>(value_end - value)
    return known


# All field lines up to the empty line. 1: complete, head.at is after it; 0: incomplete; or error.
cdef int _fields(
    Head* head, const char* buf, uint32_t bytes, const HeadLimits* limits
) noexcept nogil:
    cdef uint32_t field_bytes = limits.field_bytes if limits.field_bytes else HEAD_BYTES_MAX
    cdef uint32_t count = head.field_count
    cdef const char* end = buf + bytes
    cdef const char* line = buf + head.line
    cdef const char* p = buf + head.at
    cdef const char* name_end = buf + head.token_end
    cdef const char* limit
    cdef ValueStops stops
    cdef bint in_value = head.stage == STAGE_VALUE
    cdef uint8_t known
    cdef int result = 0
    stops_begin(&stops, buf, p, end)
    while True:
        limit = end if end - line <= field_bytes else line + field_bytes
        if likely(not in_value):
            p = scan_name(buf, p, limit)
            if unlikely(p == limit):
                break
            if unlikely(p[0] != c':'):
                result = _line_without_colon(line, p, limit)
                break
            if unlikely(p == line):
                return HEAD_ERR_FIELD_NAME
            name_end = p
            p += 1
        in_value = True
        p = stops_next(&stops, p)
        if unlikely(limit - p < 2):
            p = min(p, limit)
            if p < limit and p[0] != c'\r':
                return _bad_byte(p[0])
            break
        if unlikely(p[0] != c'\r' or p[1] != c'\n'):
            return _bad_byte(p[0])
        if unlikely(count == limits.field_count):
            return HEAD_ERR_FIELD_COUNT
        known = _field_store(&head.fields[count], buf, line, name_end, p)
        if known != FIELD_OTHER:
            _known_field(head, known, count)
        count += 1
        p += 2
        line = p
        in_value = False
    if result == 0 and limit - line >= field_bytes:
        return HEAD_ERR_FIELD_TOO_LONG
    head.field_count = count
    head.line = <uint32_t>(line - buf)
    head.token_end = <uint32_t>(name_end - buf)
    head.at = <uint32_t>(p - buf) + (2 if result == 1 else 0)
    head.stage = STAGE_VALUE if in_value else STAGE_NAME
    return result

# ---------------------------------------------------------------------------------------------
# What the fields mean for the connection and the body.


cdef inline void _mark_hop(Head* head, uint32_t index, uint8_t flags) noexcept nogil:
    head.fields[index].flags |= flags | FIELD_HOP
    head.flags |= HEAD_HAS_HOP


# Fields of which a bit (1 << FieldId) is in `wanted`.
cdef void _mark_all(Head* head, uint64_t wanted) noexcept nogil:
    cdef uint32_t i
    for i in range(head.field_count):
        if wanted >> head.fields[i].id & 1:
            _mark_hop(head, i, 0)


# Marks every field called `option`, but Host and the framing fields.
cdef void _mark_listed(
    Head* head, const char* buf, Slice option, uint8_t wanted
) noexcept nogil:
    cdef uint32_t i, j
    cdef Slice name
    if wanted == FIELD_HOST or wanted == FIELD_CONTENT_LENGTH or wanted == FIELD_TRANSFER_ENCODING:
        return
    if wanted != FIELD_OTHER and head.first[wanted] < 0:
        return
    for i in range(head.field_count):
        if head.fields[i].id != wanted:
            continue
        if wanted == FIELD_OTHER:
            name = head_name(head, buf, i)
            if name.bytes != option.bytes:
                continue
            j = 0
            while j < name.bytes and _fold(name.at[j]) == _fold(option.at[j]):
                j += 1
            if j < name.bytes:
                continue
        _mark_hop(head, i, FIELD_LISTED)


cdef inline uint8_t _fold(char c) noexcept nogil:
    return <uint8_t>c | 0x20 if c'A' <= c <= c'Z' else <uint8_t>c


# Connection = #connection-option (RFC 9110 7.6.1). An element that is no token names no field.
cdef int _connection(Head* head, const char* buf) noexcept nogil:
    cdef Slice rest, option
    cdef uint32_t options = 0
    cdef uint8_t wanted
    cdef int i = head.first[FIELD_CONNECTION]
    while i >= 0:
        _mark_hop(head, i, 0)
        rest = head_value(head, buf, i)
        while _list_next(&rest, &option):
            options += 1
            if options > CONNECTION_OPTIONS_MAX:
                return HEAD_ERR_CONNECTION
            wanted = field_id(option.at, option.bytes)
            if wanted == FIELD_KEEP_ALIVE:
                head.flags |= HEAD_KEEP_ALIVE
            elif wanted == FIELD_UPGRADE:
                head.flags |= HEAD_UPGRADE
            elif slice_equal_fold(option, "close", 5):
                head.flags |= HEAD_CLOSE
            elif option.bytes:
                _mark_listed(head, buf, option, wanted)
        i = head_next(head, i)
    return 0


cdef int _content_length(Head* head, const char* buf) noexcept nogil:
    cdef Slice value = head_value(head, buf, head.first[FIELD_CONTENT_LENGTH])
    cdef uint64_t length = 0
    cdef uint64_t digit
    cdef uint32_t i
    if head.repeated & (<uint64_t>1 << FIELD_CONTENT_LENGTH):
        return HEAD_ERR_LENGTH_REPEATED
    if value.bytes == 0:
        return HEAD_ERR_LENGTH
    for i in range(value.bytes):
        if not c'0' <= value.at[i] <= c'9':
            return HEAD_ERR_LENGTH
        digit = value.at[i] - c'0'
        if length > (CONTENT_LENGTH_MAX - digit) // 10:
            return HEAD_ERR_LENGTH_OVERFLOW
        length = length * 10 + digit
    head.content_length = length
    head.flags |= HEAD_HAS_LENGTH
    return 0


# Transfer-Encoding (RFC 9112 6.1, 7): "chunked" alone. Anything else is malformed, or names a
# coding that this proxy does not have.
cdef int _transfer_encoding(Head* head, const char* buf) noexcept nogil:
    cdef Slice rest = head_value(head, buf, head.first[FIELD_TRANSFER_ENCODING])
    cdef Slice item
    cdef bint chunked = False
    cdef bint other = False
    if head.version_minor == 0:
        return HEAD_ERR_CODING_IN_10
    if head.first[FIELD_CONTENT_LENGTH] >= 0:
        return HEAD_ERR_CODING_AND_LENGTH
    if head.repeated & (<uint64_t>1 << FIELD_TRANSFER_ENCODING):
        return HEAD_ERR_CODING_REPEATED
    while _list_next(&rest, &item):
        if chunked or item.bytes == 0:
            return HEAD_ERR_CODING
        if slice_equal_fold(item, "chunked", 7):
            chunked = True
        elif scan_name(item.at, item.at, item.at + item.bytes) == item.at + item.bytes:
            other = True
        else:
            return HEAD_ERR_CODING
    return HEAD_ERR_CODING_UNKNOWN if other else 0


cdef int _meaning(Head* head, const char* buf) noexcept nogil:
    cdef int result = 0
    cdef uint64_t present = head.present
    if present & <uint64_t>1 << FIELD_CONNECTION:
        result = _connection(head, buf)
    if result == 0 and present & <uint64_t>1 << FIELD_CONTENT_LENGTH:
        result = _content_length(head, buf)
    if result == 0 and present & <uint64_t>1 << FIELD_TRANSFER_ENCODING:
        result = _transfer_encoding(head, buf)
    if result < 0:
        return result
    if head.version_minor == 0 or head.first[FIELD_UPGRADE] < 0:
        head.flags &= ~<uint32_t>HEAD_UPGRADE
    if present & HOP_FIELDS:
        _mark_all(head, HOP_FIELDS)
    if present & <uint64_t>1 << FIELD_COOKIE:
        head.flags |= HEAD_HAS_COOKIE
    if present & <uint64_t>1 << FIELD_SET_COOKIE:
        head.flags |= HEAD_HAS_SET_COOKIE
    return 0


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
cdef int _empty_lines(Head* head, const char* buf, uint32_t bytes) noexcept nogil:
    while head.at < bytes and (buf[head.at] == c'\r' or buf[head.at] == c'\n'):
        if buf[head.at] == c'\n':
            return HEAD_ERR_BARE_LF
        if head.at + 1 == bytes:
            return 0
        if buf[head.at + 1] != c'\n':
            return HEAD_ERR_BARE_CR
        if head.empty_lines == EMPTY_LINES_MAX:
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
        result = _meaning(head, buf)
    if result < 0:
        return result
    if head.first[FIELD_TRANSFER_ENCODING] >= 0:
        head.framing = BODY_CHUNKED
    elif head.content_length:
        head.framing = BODY_LENGTH
    if head.first[FIELD_EXPECT] >= 0 and head.version_minor == 1:
        if _list_has(head, buf, FIELD_EXPECT, "100-continue", 12):
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
    if head.stage == STAGE_START:
        result = _empty_lines(head, buf, end)
    if result > 0 and head.stage < STAGE_NAME:
        limit = end
        if end - head.line > limits.request_line_bytes:
            limit = head.line + limits.request_line_bytes
        result = _request_line(head, buf, limit)
        if result == 0 and limit - head.line >= limits.request_line_bytes:
            return HEAD_ERR_LINE_TOO_LONG
    if result > 0:
        result = _fields(head, buf, end, limits)
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
        return _bad_byte(p[0])
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
            _mark_all(head, FRAMING_FIELDS)
    elif head.status == 304 or method == METHOD_HEAD:
        pass
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
        result = _fields(head, buf, end, limits)
    if result > 0:
        result = _meaning(head, buf)
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
