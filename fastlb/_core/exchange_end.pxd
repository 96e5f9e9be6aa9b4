# How an exchange ends: its whole answer was sent, an answer of fastlb's own is sent, or both
# sides are cut. Counting, access log, the way of the connections after it.
#
# All from exchange_reply on may free the exchange.

from fastlb._core.connection cimport Exchange, Worker
from fastlb._core.persist cimport LearnInput
from fastlb._core.slice cimport Slice
from fastlb._core.rule_call cimport RuleCall

# The exchange as one request in progress on its node (NodeSlot.active).
cdef void exchange_count_load(Worker* w, Exchange* x) noexcept nogil
cdef void exchange_uncount_load(Worker* w, Exchange* x) noexcept nogil
# The node answered (its head is in `w.response`), or it is known that it will not: a new session
# is counted, and a reservation ends soon, or now.
cdef void exchange_answered(Worker* w, Exchange* x, bint answered) noexcept nogil
# What the node's answer grants becomes maps of the session. The caller has set what it was read
# from; plan and date are set here.
cdef void exchange_learn(Worker* w, Exchange* x, LearnInput* response) noexcept nogil
# So does the key that a response rule set.
cdef void exchange_learn_key(Worker* w, Exchange* x, Slice key) noexcept nogil
# An answer of our own with `status`; False when the exchange is over already.
cdef bint exchange_reply(Worker* w, Exchange* x, int status, int cause) noexcept nogil
# The answer that the rules of a call gave.
cdef bint exchange_reply_rule(Worker* w, Exchange* x, const RuleCall* call) noexcept nogil
# The whole answer has been sent.
cdef void exchange_finish(Worker* w, Exchange* x) noexcept nogil
# The answer can't be completed, or nobody waits for it: neither side may take it for whole.
cdef void exchange_abort(Worker* w, Exchange* x, int cause) noexcept nogil
# `how`: DoneHow, what becomes of the client's connection.
cdef void exchange_end(Worker* w, Exchange* x, int how) noexcept nogil
