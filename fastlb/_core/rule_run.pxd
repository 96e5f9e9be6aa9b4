# Runs the rules of one call: attaches the objects that they see, runs one after the other, undoes
# those that fail, and writes what the others asked for into the call's effects.
#
# Plain rules run here, with the GIL, in the worker's thread; the loop of async ones
# (fastlb/rule_loop.py) takes the same steps by the methods of RuleRun.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastlb._core.rule_call cimport RuleCall
from fastlb._core.rule_effects cimport Saved
from fastlb._core.rule_objects cimport Connection, Request
from fastlb._core.rule_response cimport Response
from fastlb._core.stats cimport RuleStats, WorkerStats

# Hands a call back to whom it came from.
ctypedef void (*rule_give_t)(RuleCall* call, uint8_t message) noexcept nogil

cdef class RuleRun:
    cdef RuleCall* call              # NULL: ended
    cdef bint begun                  # one of its rules
    cdef rule_give_t give            # NULL: the caller waits for the end
    cdef Connection connection
    cdef Request request
    cdef Response response
    cdef Connection subject          # the first of them, whichever the rules are about
    cdef Saved saved                 # before the rule that runs; None: nothing was asked for yet
    cdef object keeper               # owns the call, where no worker does
    cdef list failures               # what rules raised; None: it is reported
    cdef uint64_t began_us
    cdef bytes body                  # the request's; None: not asked for, or not here yet
    cdef object future               # set when it is
    cdef uint64_t body_asked
    cdef bint body_too_large         # than that

    cdef int attach(self, RuleCall* call, rule_give_t give) except -1
    cdef int detach(self) except -1
    cdef int close(self) except -1
    cdef int demand(self) except -1
    cdef RuleStats* stats(self, uint32_t i) noexcept
    cdef bint step(self, uint32_t i) except -1
    cdef Request request_or_none(self)
    cdef Response response_or_none(self)
    cdef int stop(self, uint32_t i) except -1
    cdef int body_here(self) except -1
    cdef int start(self, uint32_t i) except -1
    # Whether the rules after it are run.
    cdef bint done(self, uint32_t i, object result) except -1
    cdef bint fail(self, uint32_t i, object error, bint timed_out) except -1
    cdef str name_of(self, uint32_t i)

# Where calls are counted from now on; NULL: nowhere.
cdef void rule_run_open(WorkerStats* stats) noexcept nogil
# All rules of the call, to the end of it.
cdef int rule_run_plain(RuleCall* call) except -1
# For rules that run elsewhere.
cdef RuleRun rule_run_of(RuleCall* call, rule_give_t give)
