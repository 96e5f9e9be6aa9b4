# What the fields of a head mean for the connection and for the body's length.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastlb._core.message cimport Head

# Connection, Content-Length, Transfer-Encoding: sets flags, content_length and the fields' marks.
# 0 or a HeadError.
cdef int framing_read(Head* head, const char* buf) noexcept nogil
# Marks as hop-by-hop the fields of which a bit (1 << FieldId) is in `wanted`.
cdef void framing_mark_hop(Head* head, uint64_t wanted) noexcept nogil
# Is there a field of this id whose comma-separated list holds `lower`, in any case?
cdef bint framing_list_has(
    const Head* head, const char* buf, uint8_t wanted, const char* lower, uint32_t count
) noexcept nogil
