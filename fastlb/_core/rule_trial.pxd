# A call of rules outside of any worker: for tests of rules (fastlb/testing.py) and of what runs
# them. All it points to is its own.

from fastlb._core.arena cimport Span
from fastlb._core.rule_call cimport RuleCall, RuleStep
from fastlb._core.slice cimport Slice

cdef class Trial:
    cdef RuleCall call
    cdef RuleStep* steps
    cdef object owned                # what the call's pointers lead to
    cdef object functions

    cdef Slice keep(self, bytes data) except *
    cdef int clear(self) except -1
    cdef bytes text(self, Span span)
