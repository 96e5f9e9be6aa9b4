# The body of an HTTP/1 message as it arrives (RFC 9112 6 and 7): where it ends, and which bytes of
# the stream are data. Holds no byte of it, and never looks at data bytes.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum BodyError:
    BODY_ERR_CHUNK_SIZE = -1         # not 1*HEXDIG followed by an extension or CRLF
    BODY_ERR_CHUNK_OVERFLOW = -2     # over 2^63-1, or of more digits than that has
    BODY_ERR_CHUNK_EXTENSION = -3    # against the grammar of RFC 9112 7.1.1
    BODY_ERR_CHUNK_LINE = -4         # longer than the limit
    BODY_ERR_CHUNK_END = -5          # no CRLF after the data
    BODY_ERR_OVERHEAD = -6           # far more framing than data (CHUNK_OVERHEAD_BYTES_MAX)
    BODY_ERR_TRAILER = -7            # not a valid field line, or folded
    BODY_ERR_TRAILER_TOO_LONG = -8   # the section is longer than the limit
    BODY_ERR_TRAILER_FIELD = -9      # a field that may not be a trailer (framing, routing, cookies)

cdef enum:
    BODY_ERR_COUNT = 10              # -error < BODY_ERR_COUNT
    TRAILER_NAME_BYTES_MAX = 32      # longer names are none of those that are refused

ctypedef struct BodyReader:
    uint64_t left                    # data bytes left of the body, or of the current chunk
    uint64_t data_bytes              # data bytes seen so far
    uint64_t passed                  # body_pass: bytes before the error that it returned
    uint32_t line_bytes              # of the chunk line or of the trailer section, so far
    uint32_t overhead_bytes          # framing bytes that data has not paid for
    uint32_t line_bytes_max          # limits of either
    uint32_t trailer_bytes_max
    uint8_t kind                     # BodyKind of head.pxd
    uint8_t state                    # private to body.pyx
    uint8_t done                     # the message has ended
    uint8_t trailers                 # trailer fields seen (saturates at 255)
    uint8_t name_bytes               # of the trailer line in work
    uint8_t digits                   # of the chunk size in work
    char name[TRAILER_NAME_BYTES_MAX]

ctypedef struct BodySpan:            # data inside the input of one body_step
    uint64_t offset
    uint64_t bytes                   # 0: no data in this step

# `length` counts only for BODY_LENGTH. Chunk lines and trailers have their usual limits.
cdef void body_start(BodyReader* reader, uint8_t kind, uint64_t length) noexcept nogil


# Other limits, before the first byte is read.
cdef inline void body_limit(BodyReader* reader, uint32_t line_bytes,
                            uint32_t trailer_bytes) noexcept nogil:
    reader.line_bytes_max = line_bytes
    reader.trailer_bytes_max = trailer_bytes


# Consumes a part of the input and reports at most one run of data. Returns the bytes consumed
# (0 only when `count` is 0 or the body is done) or a BodyError. Bytes after the message's end,
# reader.done, are not consumed.
cdef int64_t body_step(
    BodyReader* reader, const char* p, uint64_t count, BodySpan* span
) noexcept nogil
# How many of the `count` bytes belong to the message, framing and trailers included; for passing
# it on as it is. On a BodyError, reader.passed says how many bytes before it were good.
cdef int64_t body_pass(BodyReader* reader, const char* p, uint64_t count) noexcept nogil
# The peer has closed. True when the message is complete by that (or was before).
cdef bint body_closed(BodyReader* reader) noexcept nogil
# Data bytes that must come next, before anything else has to be read: what may be spliced.
# 2^63-1 for a body that ends with the connection.
cdef uint64_t body_expected(const BodyReader* reader) noexcept nogil
# `count` data bytes, at most body_expected(), were moved without being read.
cdef void body_skip(BodyReader* reader, uint64_t count) noexcept nogil
cdef const char* body_error_name(int error) noexcept nogil    # static, like "chunk-size"
