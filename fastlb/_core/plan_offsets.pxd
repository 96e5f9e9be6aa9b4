# While a plan is put together, texts, schedules and indexes are counted from the beginning of
# their own area; once the areas have their places, from the beginning of the plan.

from libc.stdint cimport uint32_t

ctypedef struct PlanOffsets:
    uint32_t texts                   # where each area begins
    uint32_t schedules
    uint32_t indexes
    uint32_t cookie_names            # entries of the tables that the plan has no count of
    uint32_t key_parts
    uint32_t server_names
    uint32_t error_pages

# `plan` is a whole one but for these offsets, once each.
cdef void plan_offsets_move(char* plan, const PlanOffsets* areas) noexcept nogil
