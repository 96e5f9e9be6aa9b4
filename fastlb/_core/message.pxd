# What the head of an HTTP/1 message says, as offsets into the buffer that it was read from: types
# only. head.pxd passes them all on; only the parsers themselves cimport them from here.

from libc.stdint cimport int16_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastlb._core.limits cimport HEAD_FIELDS_MAX
from fastlb._core.slice cimport Slice, slice_of

# Methods that the proxy itself must know; all others are METHOD_OTHER and pass by name.
cdef enum Method:
    METHOD_OTHER = 0
    METHOD_GET
    METHOD_HEAD
    METHOD_POST
    METHOD_PUT
    METHOD_DELETE
    METHOD_CONNECT
    METHOD_OPTIONS
    METHOD_TRACE
    METHOD_PATCH

# RFC 9110 9.2.2: asked twice is asked once. Those that we do not know may be anything.
cdef inline bint method_idempotent(unsigned int method) noexcept nogil:
    return method in (METHOD_GET, METHOD_HEAD, METHOD_PUT, METHOD_DELETE, METHOD_OPTIONS,
                      METHOD_TRACE)

# RFC 9112 3.2
cdef enum TargetForm:
    TARGET_NONE = 0
    TARGET_ORIGIN                    # "/path?query"
    TARGET_ABSOLUTE                  # "http://authority/path?query"
    TARGET_AUTHORITY                 # "host:port", CONNECT only
    TARGET_ASTERISK                  # "*", OPTIONS only

# RFC 9112 6
cdef enum BodyKind:
    BODY_NONE = 0                    # no body follows (also Content-Length: 0 in a request)
    BODY_LENGTH                      # Head.content_length bytes
    BODY_CHUNKED
    BODY_UNTIL_CLOSE                 # responses only

# FieldId: fields that some part of the proxy asks for. Order is free: ids are never stored.
# (Cython does not take a named enum as an index, as in head.first[FIELD_COOKIE].)
cdef enum:
    FIELD_OTHER = 0
    FIELD_HOST
    FIELD_CONNECTION
    FIELD_CONTENT_LENGTH
    FIELD_TRANSFER_ENCODING
    FIELD_COOKIE
    FIELD_SET_COOKIE
    FIELD_EXPECT
    FIELD_UPGRADE
    FIELD_TE
    FIELD_TRAILER
    FIELD_KEEP_ALIVE
    FIELD_PROXY_CONNECTION
    FIELD_PROXY_AUTHORIZATION
    FIELD_X_FORWARDED_FOR
    FIELD_X_FORWARDED_PROTO
    FIELD_X_FORWARDED_HOST
    FIELD_FORWARDED
    FIELD_VIA
    FIELD_USER_AGENT
    FIELD_CACHE_CONTROL
    FIELD_PRAGMA
    FIELD_EXPIRES
    FIELD_ETAG
    FIELD_LAST_MODIFIED
    FIELD_LOCATION
    FIELD_DATE
    FIELD_AUTHORIZATION
    FIELD_WWW_AUTHENTICATE
    FIELD_RETRY_AFTER
    FIELD_REFERER
    FIELD_CONTENT_TYPE
    FIELD_X_ZEUS_BACKEND
    FIELD_X_FASTLB_DECISION
    FIELD_ID_COUNT

cdef enum FieldFlag:
    FIELD_LISTED = 1                 # named by Connection; never set on Host or framing fields
    # Must not be forwarded: Connection, Keep-Alive, Proxy-Connection, TE, Upgrade, listed fields,
    # and framing fields of a 1xx or 204 response. The caller puts Connection and Upgrade back.
    FIELD_HOP = 2
    # A known name but for "_" in place of "-": FIELD_OTHER here, the same one to a CGI program.
    FIELD_ALIAS = 4

ctypedef struct Field:               # offsets are from the buffer's start
    uint32_t start                   # first byte of the line, which is that of the name
    uint32_t value                   # first byte of the value, after optional white space
    uint32_t end                     # first byte of the next line
    uint16_t name_bytes
    uint16_t value_bytes             # without white space at either end
    uint8_t id                       # FieldId
    uint8_t flags                    # FieldFlag bits

cdef enum HeadFlag:
    HEAD_CLOSE = 1                   # Connection lists close
    HEAD_KEEP_ALIVE = 2              # Connection lists keep-alive
    HEAD_UPGRADE = 4                 # HTTP/1.1, Connection lists it, an Upgrade, not to HTTP/2
    HEAD_EXPECT_CONTINUE = 8         # HTTP/1.1 and Expect lists 100-continue
    HEAD_HAS_COOKIE = 16
    HEAD_HAS_SET_COOKIE = 32
    HEAD_HAS_LENGTH = 64             # a valid Content-Length is there (content_length holds it)
    HEAD_HAS_HOP = 128               # some field has FIELD_HOP
    HEAD_NO_REASON_SPACE = 256       # status line ends after the code: "HTTP/1.1 200"
    HEAD_FRAMED_BODILESS = 512       # 1xx or 204 with framing fields: do not reuse the connection
    HEAD_HAS_ALIAS = 1024            # some field has FIELD_ALIAS

ctypedef struct HeadLimits:
    uint32_t request_line_bytes      # request or status line with its CRLF
    uint32_t field_bytes             # one field line with its CRLF; 0 = only head_bytes counts
    uint32_t head_bytes              # whole head with its empty line, <= HEAD_BYTES_MAX
    uint32_t field_count             # <= HEAD_FIELDS_MAX
    uint32_t empty_lines             # before a request line, <= EMPTY_LINES_MAX

ctypedef struct Head:
    # Resume state: private to head.pyx and field.pyx.
    uint32_t line                    # first byte of the unfinished line
    uint32_t at                      # every byte before this one has been looked at
    uint32_t token_end               # end of the method, target or name of the unfinished line
    uint8_t stage
    uint8_t empty_lines              # skipped before the request line
    # The first line. Valid when the parser returned > 0.
    uint8_t method                   # Method
    uint8_t target_form              # TargetForm
    uint8_t version_minor            # 0 or 1
    uint8_t framing                  # BodyKind
    uint16_t status                  # responses: 100..999
    # The whole head: from the buffer's start (with skipped empty lines) to the end of the empty
    # line; 0 while unfinished.
    uint32_t bytes
    uint32_t line_start              # first byte of the request or status line
    uint32_t line_end                # first byte after that line's CRLF
    uint32_t method_bytes            # method starts at line_start
    uint32_t target                  # offset
    uint32_t target_bytes
    uint32_t authority               # offset; absolute and authority form only, else bytes = 0
    uint32_t authority_bytes
    uint32_t path                    # offset of path and query: origin form: the target; absolute
    uint32_t path_bytes              # form: what follows the authority, may be empty or "?query"
    uint32_t reason                  # offset, responses
    uint32_t reason_bytes
    uint32_t flags                   # HeadFlag bits
    uint32_t field_count
    uint64_t content_length          # bytes; 0 unless HEAD_HAS_LENGTH
    uint64_t present                 # bit (1 << FieldId): there is a field of this id
    uint64_t repeated                # likewise: there is a second one
    int16_t first[FIELD_ID_COUNT]    # index of the first field of each id, -1 = none
    # Not cleared by head_reset.
    Field fields[HEAD_FIELDS_MAX]

# Negative results of both parsers. head_error_status says what a client is answered; from a node
# every one of them is a 502.
cdef enum HeadError:
    HEAD_ERR_EMPTY_LINES = -1        # more than HeadLimits.empty_lines before the request line
    HEAD_ERR_METHOD = -2             # not a token, or longer than METHOD_BYTES_MAX
    HEAD_ERR_TARGET = -3             # empty, a byte outside 0x21-0x7E, '#', or a wrong form
    HEAD_ERR_AUTHORITY = -4          # of an absolute-form or CONNECT target
    HEAD_ERR_VERSION = -5            # not "HTTP/" DIGIT "." DIGIT
    HEAD_ERR_VERSION_UNSUPPORTED = -6  # well formed, but neither 1.0 nor 1.1
    HEAD_ERR_STATUS = -7             # status code
    HEAD_ERR_LINE_TOO_LONG = -8      # request or status line
    HEAD_ERR_BARE_CR = -9
    HEAD_ERR_BARE_LF = -10
    HEAD_ERR_NUL = -11
    HEAD_ERR_CONTROL = -12           # another control character
    HEAD_ERR_FIELD_NAME = -13        # empty, not a token, no colon, or Content_Length and its like
    HEAD_ERR_SPACE_BEFORE_COLON = -14
    HEAD_ERR_FOLDED = -15            # line folding
    HEAD_ERR_FIELD_TOO_LONG = -16
    HEAD_ERR_FIELD_COUNT = -17
    HEAD_ERR_TOO_LONG = -18          # whole head
    HEAD_ERR_HOST_MISSING = -19
    HEAD_ERR_HOST_REPEATED = -20
    HEAD_ERR_HOST = -21              # not uri-host [ ":" port ], or empty where it may not be
    HEAD_ERR_LENGTH = -22            # Content-Length is not 1*DIGIT
    HEAD_ERR_LENGTH_OVERFLOW = -23   # over 2^63-1, or of more digits than that has
    HEAD_ERR_LENGTH_REPEATED = -24   # also with equal values
    HEAD_ERR_CODING = -25            # Transfer-Encoding: malformed, or chunked is not last
    HEAD_ERR_CODING_UNKNOWN = -26    # a coding other than chunked
    HEAD_ERR_CODING_REPEATED = -27
    HEAD_ERR_CODING_AND_LENGTH = -28
    HEAD_ERR_CODING_IN_10 = -29      # Transfer-Encoding in HTTP/1.0
    HEAD_ERR_CONNECTION = -30        # more than CONNECTION_OPTIONS_MAX options

cdef enum:
    HEAD_ERR_COUNT = 31              # -error < HEAD_ERR_COUNT: size of an array of counters


cdef inline Slice head_name(const Head* head, const char* buf, uint32_t index) noexcept nogil:
    return slice_of(buf + head.fields[index].start, head.fields[index].name_bytes)


cdef inline Slice head_value(const Head* head, const char* buf, uint32_t index) noexcept nogil:
    return slice_of(buf + head.fields[index].value, head.fields[index].value_bytes)


# Index of the next field with the same id as field `index`, -1 when there is none.
cdef inline int head_next(const Head* head, int index) noexcept nogil:
    cdef uint8_t wanted = head.fields[index].id
    cdef int i
    if not head.repeated & (<uint64_t>1 << wanted):
        return -1
    for i in range(index + 1, <int>head.field_count):
        if head.fields[i].id == wanted:
            return i
    return -1


# May the connection carry another message after this one (RFC 9112 9.3)?
cdef inline bint head_persists(const Head* head) noexcept nogil:
    if head.flags & HEAD_CLOSE or head.framing == BODY_UNTIL_CLOSE:
        return False
    if head.flags & HEAD_FRAMED_BODILESS:
        return False
    return head.version_minor == 1 or head.flags & HEAD_KEEP_ALIVE != 0
