"""Reads field lines in one pass, and knows fields by their names; not what any field means.

    field-line = token ":" OWS field-value OWS CRLF                   RFC 9112 5

Strict: no white space before the colon (RFC 9112 5.1), no folded line (5.2), CRLF only.

A name is found in a table by its length, first and last byte. No two known names share a slot
(checked at import), so an unknown name costs one look, mostly at its length alone.
"""

from libc.stdint cimport int16_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastlb._core.debug cimport likely, unlikely
from fastlb._core.limits cimport HEAD_BYTES_MAX
from fastlb._core.message cimport (
    FIELD_ALIAS, FIELD_AUTHORIZATION, FIELD_CACHE_CONTROL, FIELD_CONNECTION, FIELD_CONTENT_LENGTH,
    FIELD_CONTENT_TYPE, FIELD_COOKIE, FIELD_DATE, FIELD_ETAG, FIELD_EXPECT, FIELD_EXPIRES,
    FIELD_FORWARDED, FIELD_HOST, FIELD_ID_COUNT, FIELD_KEEP_ALIVE, FIELD_LAST_MODIFIED,
    FIELD_LOCATION, FIELD_OTHER, FIELD_PRAGMA, FIELD_PROXY_AUTHORIZATION, FIELD_PROXY_CONNECTION,
    FIELD_REFERER, FIELD_RETRY_AFTER, FIELD_SET_COOKIE, FIELD_TE, FIELD_TRAILER,
    FIELD_TRANSFER_ENCODING, FIELD_UPGRADE, FIELD_USER_AGENT, FIELD_VIA, FIELD_WWW_AUTHENTICATE,
    FIELD_X_FASTLB_DECISION, FIELD_X_FORWARDED_FOR, FIELD_X_FORWARDED_HOST,
    FIELD_X_FORWARDED_PROTO, FIELD_X_ZEUS_BACKEND, HEAD_ERR_BARE_CR, HEAD_ERR_BARE_LF,
    HEAD_ERR_FIELD_COUNT, HEAD_ERR_FIELD_NAME, HEAD_ERR_FIELD_TOO_LONG, HEAD_ERR_FOLDED,
    HEAD_ERR_SPACE_BEFORE_COLON, HEAD_HAS_ALIAS, Field, Head, HeadLimits,
)
from fastlb._core.scan cimport (
    BYTE_VALUE, ValueStops, byte_is, scan_name, stops_begin, stops_next,
)

cdef enum:
    NAME_SLOTS = 128                 # power of two
    NAME_BYTES_MAX = 24              # three words

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


# A name of the length and the slot of a known one: is it that one but for "_"?
cdef uint8_t _alias_of(uint8_t wanted, const char* name, uint32_t count) noexcept nogil:
    cdef char[NAME_BYTES_MAX] dashed
    cdef uint32_t i
    if known_names[wanted].bytes != count:
        return FIELD_OTHER
    for i in range(count):
        dashed[i] = c'-' if name[i] == c'_' else name[i]
    return wanted if _name_is(&known_names[wanted], dashed, count) else <uint8_t>FIELD_OTHER


cdef uint8_t field_alias_of(const char* name, uint32_t count) noexcept nogil:
    return _alias_of(name_slots[_name_slot(name, count)], name, count)


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
    if not 2 <= count <= NAME_BYTES_MAX or name != name.lower():
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
    return bad_byte_error(p[0])


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
    cdef uint32_t name_bytes = <uint32_t>(name_end - line)
    cdef uint8_t wanted = name_slots[_name_slot(line, name_bytes)]
    cdef uint8_t known = FIELD_OTHER
    field.flags = 0
    if known_names[wanted].bytes == name_bytes:
        known = wanted
        if unlikely(not _name_is(&known_names[wanted], line, name_bytes)):
            known = FIELD_OTHER
            if _alias_of(wanted, line, name_bytes) != FIELD_OTHER:
                field.flags = FIELD_ALIAS
    field.start = <uint32_t>(line - buf)
    field.end = <uint32_t>(value_end - buf) + 2
    field.name_bytes = <uint16_t>name_bytes
    field.id = known
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


cdef int field_lines_parse(
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
    if unlikely(p - line > field_bytes):
        return HEAD_ERR_FIELD_TOO_LONG        # a reload has lowered the limit meanwhile
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
                return bad_byte_error(p[0])
            break
        if unlikely(p[0] != c'\r' or p[1] != c'\n'):
            return bad_byte_error(p[0])
        if unlikely(count >= limits.field_count):
            return HEAD_ERR_FIELD_COUNT
        known = _field_store(&head.fields[count], buf, line, name_end, p)
        if known != FIELD_OTHER:
            _known_field(head, known, count)
        elif unlikely(head.fields[count].flags):
            head.flags |= HEAD_HAS_ALIAS
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
