"""Connection, Content-Length and Transfer-Encoding: one meaning, or an error.

    Connection        = #connection-option                             RFC 9110 7.6.1
    Content-Length    = 1*DIGIT                                        RFC 9110 8.6
    Transfer-Encoding = #transfer-coding, of which only "chunked"      RFC 9112 6.1

Knows fields by their ids, not how they were read nor which body they frame (head.pyx).
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memchr

from fastlb._core.debug cimport unlikely
from fastlb._core.field cimport field_alias_of, field_id
from fastlb._core.limits cimport CONNECTION_OPTIONS_MAX, LENGTH_DIGITS_MAX
from fastlb._core.message cimport (
    FIELD_ALIAS, FIELD_CONNECTION, FIELD_CONTENT_LENGTH, FIELD_COOKIE, FIELD_HOP, FIELD_HOST,
    FIELD_KEEP_ALIVE, FIELD_LISTED, FIELD_OTHER, FIELD_PROXY_CONNECTION, FIELD_SET_COOKIE, FIELD_TE,
    FIELD_TRANSFER_ENCODING, FIELD_UPGRADE, HEAD_CLOSE, HEAD_ERR_CODING,
    HEAD_ERR_CODING_AND_LENGTH, HEAD_ERR_CODING_IN_10, HEAD_ERR_CODING_REPEATED,
    HEAD_ERR_CODING_UNKNOWN, HEAD_ERR_CONNECTION, HEAD_ERR_FIELD_NAME, HEAD_ERR_LENGTH,
    HEAD_ERR_LENGTH_OVERFLOW, HEAD_ERR_LENGTH_REPEATED, HEAD_HAS_ALIAS, HEAD_HAS_COOKIE,
    HEAD_HAS_HOP, HEAD_HAS_LENGTH, HEAD_HAS_SET_COOKIE, HEAD_KEEP_ALIVE, HEAD_UPGRADE, Head,
    head_name, head_next, head_value,
)
from fastlb._core.scan cimport scan_name
from fastlb._core.slice cimport Slice, slice_equal_fold, slice_trim

cdef uint64_t CONTENT_LENGTH_MAX = 0x7fffffffffffffff

cdef enum:                           # bits (1 << FieldId); Connection itself: see _connection
    HOP_FIELDS = (
        1 << FIELD_KEEP_ALIVE | 1 << FIELD_PROXY_CONNECTION | 1 << FIELD_TE | 1 << FIELD_UPGRADE
    )


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


cdef bint framing_list_has(
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


cdef inline uint8_t _fold(char c) noexcept nogil:
    return <uint8_t>c | 0x20 if c'A' <= c <= c'Z' else <uint8_t>c


cdef inline void _mark_hop(Head* head, uint32_t index, uint8_t flags) noexcept nogil:
    head.fields[index].flags |= flags | FIELD_HOP
    head.flags |= HEAD_HAS_HOP


cdef void framing_mark_hop(Head* head, uint64_t wanted) noexcept nogil:
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
    if value.bytes > LENGTH_DIGITS_MAX:
        return HEAD_ERR_LENGTH_OVERFLOW
    for i in range(value.bytes):
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


# Some servers read "_" as "-": what could frame a body there must not pass as something else here.
cdef bint _framing_alias(const Head* head, const char* buf) noexcept nogil:
    cdef uint8_t wanted
    cdef uint32_t i
    for i in range(head.field_count):
        if head.fields[i].flags & FIELD_ALIAS:
            wanted = field_alias_of(buf + head.fields[i].start, head.fields[i].name_bytes)
            if wanted == FIELD_CONTENT_LENGTH or wanted == FIELD_TRANSFER_ENCODING:
                return True
    return False


# Not to HTTP/2: its requests would go through a tunnel, where nobody reads and routes them. A
# server may ignore an Upgrade (RFC 9110 7.8), and RFC 9113 3.1 has dropped this one. Nor with a
# body: to some parsers, what follows such a head is the other protocol already.
cdef bint _may_upgrade(const Head* head, const char* buf) noexcept nogil:
    if head.version_minor == 0 or head.first[FIELD_UPGRADE] < 0:
        return False
    if head.status == 0 and (head.content_length != 0
                             or head.present & <uint64_t>1 << FIELD_TRANSFER_ENCODING):
        return False
    return not (framing_list_has(head, buf, FIELD_UPGRADE, "h2c", 3)
                or framing_list_has(head, buf, FIELD_UPGRADE, "h2", 2))


cdef int framing_read(Head* head, const char* buf) noexcept nogil:
    cdef int result = 0
    cdef uint64_t present = head.present
    if unlikely(head.flags & HEAD_HAS_ALIAS) and head.status == 0 and _framing_alias(head, buf):
        return HEAD_ERR_FIELD_NAME
    if present & <uint64_t>1 << FIELD_CONNECTION:
        result = _connection(head, buf)
    if result == 0 and present & <uint64_t>1 << FIELD_CONTENT_LENGTH:
        result = _content_length(head, buf)
    if result == 0 and present & <uint64_t>1 << FIELD_TRANSFER_ENCODING:
        result = _transfer_encoding(head, buf)
    if result < 0:
        return result
    if head.flags & HEAD_UPGRADE and not _may_upgrade(head, buf):
        head.flags &= ~<uint32_t>HEAD_UPGRADE
    if present & HOP_FIELDS:
        framing_mark_hop(head, HOP_FIELDS)
    if present & <uint64_t>1 << FIELD_COOKIE:
        head.flags |= HEAD_HAS_COOKIE
    if present & <uint64_t>1 << FIELD_SET_COOKIE:
        head.flags |= HEAD_HAS_SET_COOKIE
    return 0
