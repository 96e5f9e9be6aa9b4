# The decision: which node serves this request, and why. Reads request, plan, node table and
# session caches, does no I/O; traffic, `explain`, tests and simulations run this one.
#
#   class -> its key or node -> session map -> node of this pool -> the node's state
#   nothing found: the fallback class, and so on; still nothing: the pool's algorithm
#
# A node that could not be connected to comes back through decide_again.

from fastlb._core.decision cimport DecideInput, Decision
from fastlb._core.persist cimport LearnInput
from fastlb._core.slice cimport Slice

# No session, no node, no class: what a request has before it is decided.
cdef void decision_reset(Decision* d) noexcept nogil
cdef void decide(const DecideInput* ask, Decision* d) noexcept nogil
# The decision's node could not be connected to: another node, or the failure mode.
cdef void decide_again(const DecideInput* ask, Decision* d) noexcept nogil
# It has waited, and may be let in now: for `d.node` (a session, or what has been recorded or
# reserved for it already), or with `d.node` -1 for any. May come out as ACTION_WAIT again.
cdef void decide_waited(const DecideInput* ask, Decision* d) noexcept nogil
# The request was answered, or will never be: the reservation ends soon, or now.
cdef void decide_answered(const DecideInput* ask, Decision* d, bint answered) noexcept nogil
# The application ended the session: its maps are forgotten. Needs plan, pool and caches only.
cdef void decide_forget(const DecideInput* ask, Decision* d) noexcept nogil
# Keys that the node's response names become maps of its session.
cdef void decide_learn(const DecideInput* ask, Decision* d,
                       const LearnInput* response) noexcept nogil
# So does a key that a response rule set, in the universal classes of the chain.
cdef void decide_learn_key(const DecideInput* ask, Decision* d, Slice key) noexcept nogil
