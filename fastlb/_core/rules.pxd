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

from fastlb._core.connection cimport Exchange, Worker

cdef enum RulesResult:
    RULES_ENDED = 0
    RULES_GO_ON = 1
    RULES_WAIT = 2

# Connection rules, where this is the first request, and request rules; for servers with rules.
cdef int rules_before(Worker* w, Exchange* x) noexcept nogil
# Response rules. The head as it would be sent is the worker's `edit` of its `response`, of which
# `buf` is the received form; where response rules are configured, w.iov with `count` entries is
# what is to be sent instead: `count` is changed. The first call has `count` >= 0, one after a
# wait -1.
cdef int rules_after(Worker* w, Exchange* x, const char* buf, int* count) noexcept nogil
# The client's socket has something, while the exchange waits for rules: the body that one asked
# for, or the end. The exchange may be over after it.
cdef void rules_client_events(Worker* w, Exchange* x) noexcept nogil
# The time of the async rules is over, or that of the body that one asked for.
cdef void rules_timeout(Worker* w, Exchange* x) noexcept nogil
