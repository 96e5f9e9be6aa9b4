# Test-only: a compiled plan in memory of its own, for the other test modules.

from fastlb._core.plan cimport Plan, Text

cdef class PlanImage:
    cdef Plan* plan
    cdef size_t count
    cdef str _text(self, Text text)
