# What rules have asked for, carried out on an exchange and kept for what comes after.

from fastlb._core.connection cimport Exchange, Worker
from fastlb._core.rule_call cimport RuleCall, RuleState
from fastlb._core.slice cimport Slice

# The effects of a call that has ended, but for its action. False: no memory for them, or for a
# head that is longer than the one before.
cdef bint rule_apply(Worker* w, Exchange* x, RuleCall* call) noexcept nogil
# The connection rules of an http connection have ended: what they asked for is kept for all its
# requests. False: no memory.
cdef bint rule_remember(Worker* w, Exchange* x) noexcept nogil
# And a request begins with that. False: no memory.
cdef bint rule_inherit(Worker* w, Exchange* x) noexcept nogil
# The members of the log that were there and are not said anew, and then what is new; too much is
# left out. False: no memory.
cdef bint rule_merge_log(RuleState* state, Slice more) noexcept nogil
