# What a plan allows of heads and bodies, for their parsers.

from fastlb._core.body cimport BodyReader, body_limit
from fastlb._core.head cimport HeadLimits
from fastlb._core.limits cimport EMPTY_LINES_MAX
from fastlb._core.plan cimport Plan


cdef inline HeadLimits bounds_of_heads(const Plan* plan) noexcept nogil:
    cdef HeadLimits limits
    limits.request_line_bytes = plan.limits.request_line_bytes
    limits.field_bytes = plan.limits.field_bytes
    limits.head_bytes = plan.limits.head_bytes
    limits.field_count = plan.limits.field_count
    limits.empty_lines = plan.limits.empty_lines
    return limits


# For a head that was accepted once: only the array's bounds count, not those of a newer plan.
cdef inline HeadLimits bounds_again(unsigned head_bytes, unsigned field_count) noexcept nogil:
    cdef HeadLimits limits
    limits.request_line_bytes = head_bytes
    limits.field_bytes = 0
    limits.head_bytes = head_bytes
    limits.field_count = field_count
    limits.empty_lines = EMPTY_LINES_MAX
    return limits


cdef inline void bounds_of_body(BodyReader* reader, const Plan* plan) noexcept nogil:
    body_limit(reader, plan.limits.chunk_line_bytes, plan.limits.trailer_bytes)
