# Calls and states of rules come from free lists and go back there; how an exchange and a
# connection let go of theirs.

from fastlb._core.connection cimport ClientConn, Exchange, Worker
from fastlb._core.decision cimport DecideInput
from fastlb._core.plan cimport Plan, PlanRule
from fastlb._core.rule_call cimport RuleCall, RuleState
from fastlb._core.slice cimport Slice

# NULL: no memory. All zero but for what says "none" in another way.
cdef RuleState* rule_state_take(Worker* w) noexcept nogil
cdef void rule_state_free(Worker* w, RuleState* state) noexcept nogil
cdef RuleCall* rule_call_take(Worker* w) noexcept nogil
# Also gives back its body, its hold on the snapshot and on the connection's state.
cdef void rule_call_free(Worker* w, RuleCall* call) noexcept nogil

# What rules have asked for becomes part of what is decided.
cdef void rules_input(const Exchange* x, DecideInput* ask) noexcept nogil
# Nobody waits any more for the call that is under way, if any: the other thread is told, and gives
# it back in its own time.
cdef void rules_cancel(Worker* w, RuleState* state) noexcept nogil
# The exchange ends: a call that is under way is cancelled, and what is kept of calls before is
# given back.
cdef void rules_leave(Worker* w, Exchange* x) noexcept nogil
# The client's connection ends: what its connection rules asked for is given back.
cdef void rules_forget(Worker* w, ClientConn* c) noexcept nogil
cdef void rules_free_all(Worker* w) noexcept nogil
# What the client sent as its target, where rules changed the head; `at` NULL: as it stands there.
cdef Slice rules_target(const Exchange* x) noexcept nogil
# The rule that answered, closed or failed; NULL: none did.
cdef const PlanRule* rules_decided_by(const Plan* plan, const Exchange* x) noexcept nogil
