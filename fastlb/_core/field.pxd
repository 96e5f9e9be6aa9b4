# Field lines of a head (RFC 9112 5), and the names that the proxy knows.

from libc.stdint cimport uint8_t, uint32_t

from fastlb._core.message cimport (
    HEAD_ERR_BARE_CR, HEAD_ERR_BARE_LF, HEAD_ERR_CONTROL, HEAD_ERR_NUL, Head, HeadLimits,
)

cdef enum:                           # Head.stage, in this order
    STAGE_START = 0                  # empty lines before the request line
    STAGE_METHOD
    STAGE_TARGET
    STAGE_VERSION                    # the rest of the request line
    STAGE_REASON                     # the rest of the status line
    STAGE_NAME
    STAGE_VALUE
    STAGE_DONE

# FieldId of a name, which is a token of `count` bytes.
cdef uint8_t field_id(const char* name, uint32_t count) noexcept nogil
# FieldId of a name with FIELD_ALIAS: what it is with "-" for each "_".
cdef uint8_t field_alias_of(const char* name, uint32_t count) noexcept nogil

# Reads field lines from head.at on, up to the empty line. 1: all read, head.at is after the empty
# line; 0: incomplete; or a HeadError.
cdef int field_lines_parse(
    Head* head, const char* buf, uint32_t bytes, const HeadLimits* limits
) noexcept nogil


# The HeadError for a byte that stands where no control character may.
cdef inline int bad_byte_error(char byte) noexcept nogil:
    if byte == c'\r':
        return HEAD_ERR_BARE_CR
    if byte == c'\n':
        return HEAD_ERR_BARE_LF
    if byte == 0:
        return HEAD_ERR_NUL
    return HEAD_ERR_CONTROL
