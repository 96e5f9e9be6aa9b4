# Rules on the way of a request, a response, a passage: runs them, waits for the async ones, and
# carries out what they ask for. Without the GIL: plain rules are called through hooks, async ones
# through rule_queue.
#
#   connection rules   once per connection: before its first request, or before a passage's
#                      decision
#   request rules      before each request's decision; what they change of the head takes its
#                      place, so that persistence, routes and the node see one message
#   response rules     after the node's final head was edited as it would be sent
#
# What calls these functions goes on when they say RULES_GO_ON; after RULES_WAIT it is called by
# Worker.rules_done, and calls the same function again, which says RULES_GO_ON, or waits for the
# next one. After RULES_ENDED the exchange is over, or its answer is on its way.

from fastlb._core.connection cimport ClientConn, Exchange, Worker
from fastlb._core.decision cimport DecideInput
from fastlb._core.plan cimport PlanVirtualServer
from fastlb._core.rule_call cimport RuleState

cdef enum RulesResult:
    RULES_ENDED = 0
    RULES_GO_ON = 1
    RULES_WAIT = 2

# Connection rules, where this is the first request, and request rules.
cdef int rules_before(Worker* w, Exchange* x) noexcept nogil
# Response rules. The head as it would be sent is the worker's `edit` of its `response`, of which
# `buf` is the received form; where rules are configured, w.iov with `count` entries is what is to
# be sent instead: `count` is changed. The first call has `count` >= 0, one after a wait -1.
cdef int rules_after(Worker* w, Exchange* x, const char* buf, int* count) noexcept nogil
# What rules have asked for becomes part of what is decided.
cdef void rules_input(const Exchange* x, DecideInput* ask) noexcept nogil
# The exchange ends, or does not wait any more: a call that is under way is cancelled, and what is
# kept of calls before is given back.
cdef void rules_leave(Worker* w, Exchange* x) noexcept nogil
# The client's connection ends: what its connection rules asked for is given back.
cdef void rules_forget(Worker* w, ClientConn* c) noexcept nogil
# The client's socket has something, while the exchange waits for request rules: the body that one
# asked for, or the end. False: the exchange is over.
cdef bint rules_client_events(Worker* w, Exchange* x) noexcept nogil
# The time of the async rules is over.
cdef void rules_timeout(Worker* w, Exchange* x) noexcept nogil
cdef void rules_free_all(Worker* w) noexcept nogil
