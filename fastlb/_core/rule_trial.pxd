# A call of rules outside of any worker: for tests of rules (fastlb/testing.py) and of what runs
# them. All it points to is its own.

from fastlb._core.message cimport Head
from fastlb._core.rule_call cimport RuleCall, RuleStep

cdef class Trial:
    cdef RuleCall call
    cdef RuleStep* steps
    cdef object owned                # what the call's pointers lead to
    cdef object functions
