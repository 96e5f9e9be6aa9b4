# The head of an HTTP/1 message: request or status line, fields, framing (RFC 9112, RFC 9110).
# Reads a buffer, keeps offsets into it, owns nothing; the buffer may move between calls.
# The types are in message.pxd, and can be cimported from here.

from libc.stdint cimport uint8_t, uint32_t

from fastlb._core.field cimport field_alias_of, field_id
from fastlb._core.message cimport (
    BODY_CHUNKED, BODY_LENGTH, BODY_NONE, BODY_UNTIL_CLOSE, FIELD_ALIAS, FIELD_AUTHORIZATION,
    FIELD_CACHE_CONTROL, FIELD_CONNECTION, FIELD_CONTENT_LENGTH, FIELD_CONTENT_TYPE, FIELD_COOKIE,
    FIELD_DATE, FIELD_ETAG, FIELD_EXPECT, FIELD_EXPIRES, FIELD_FORWARDED, FIELD_HOP, FIELD_HOST,
    FIELD_ID_COUNT, FIELD_KEEP_ALIVE, FIELD_LAST_MODIFIED, FIELD_LISTED, FIELD_LOCATION,
    FIELD_OTHER, FIELD_PRAGMA, FIELD_PROXY_AUTHORIZATION, FIELD_PROXY_CONNECTION, FIELD_REFERER,
    FIELD_RETRY_AFTER, FIELD_SET_COOKIE, FIELD_TE, FIELD_TRAILER, FIELD_TRANSFER_ENCODING,
    FIELD_UPGRADE, FIELD_USER_AGENT, FIELD_VIA, FIELD_WWW_AUTHENTICATE, FIELD_X_FASTLB_DECISION,
    FIELD_X_FORWARDED_FOR, FIELD_X_FORWARDED_HOST, FIELD_X_FORWARDED_PROTO, FIELD_X_ZEUS_BACKEND,
    HEAD_CLOSE, HEAD_ERR_AUTHORITY, HEAD_ERR_BARE_CR, HEAD_ERR_BARE_LF, HEAD_ERR_CODING,
    HEAD_ERR_CODING_AND_LENGTH, HEAD_ERR_CODING_IN_10, HEAD_ERR_CODING_REPEATED,
    HEAD_ERR_CODING_UNKNOWN, HEAD_ERR_CONNECTION, HEAD_ERR_CONTROL, HEAD_ERR_COUNT,
    HEAD_ERR_EMPTY_LINES, HEAD_ERR_FIELD_COUNT, HEAD_ERR_FIELD_NAME, HEAD_ERR_FIELD_TOO_LONG,
    HEAD_ERR_FOLDED, HEAD_ERR_HOST, HEAD_ERR_HOST_MISSING, HEAD_ERR_HOST_REPEATED, HEAD_ERR_LENGTH,
    HEAD_ERR_LENGTH_OVERFLOW, HEAD_ERR_LENGTH_REPEATED, HEAD_ERR_LINE_TOO_LONG, HEAD_ERR_METHOD,
    HEAD_ERR_NUL, HEAD_ERR_SPACE_BEFORE_COLON, HEAD_ERR_STATUS, HEAD_ERR_TARGET, HEAD_ERR_TOO_LONG,
    HEAD_ERR_VERSION, HEAD_ERR_VERSION_UNSUPPORTED, HEAD_EXPECT_CONTINUE, HEAD_FRAMED_BODILESS,
    HEAD_HAS_ALIAS, HEAD_HAS_COOKIE, HEAD_HAS_HOP, HEAD_HAS_LENGTH, HEAD_HAS_SET_COOKIE,
    HEAD_KEEP_ALIVE, HEAD_NO_REASON_SPACE, HEAD_UPGRADE, METHOD_CONNECT, METHOD_DELETE,
    METHOD_GET, METHOD_HEAD, METHOD_OPTIONS, METHOD_OTHER, METHOD_PATCH, METHOD_POST, METHOD_PUT,
    METHOD_TRACE, TARGET_ABSOLUTE, TARGET_ASTERISK, TARGET_AUTHORITY, TARGET_NONE, TARGET_ORIGIN,
    BodyKind, Field, FieldFlag, Head, HeadError, HeadFlag, HeadLimits, Method, TargetForm,
    head_name, head_next, head_persists, head_value,
)

# Makes `head` ready for a new message; leaves the array of fields as it is.
cdef void head_reset(Head* head) noexcept nogil

# Both parsers: `buf` holds `bytes` bytes of the message so far, from its first byte. > 0: the
# head is complete and this long. 0: incomplete, call again with the same bytes and more. < 0: a
# HeadError; the head is of no use then. Bytes after the head are not looked at.
cdef int request_head_parse(
    Head* head, const char* buf, uint32_t bytes, const HeadLimits* limits
) noexcept nogil
# `method` is that of the request: it decides whether a body follows.
cdef int response_head_parse(
    Head* head, const char* buf, uint32_t bytes, const HeadLimits* limits, uint8_t method
) noexcept nogil

cdef int head_error_status(int error) noexcept nogil          # 400, 414, 431, 501 or 505
cdef const char* head_error_name(int error) noexcept nogil    # static, like "host-missing"

# uri-host [ ":" port ] of RFC 3986 3.2; a port above 65535 is refused.
cdef bint host_valid(const char* text, uint32_t count) noexcept nogil
