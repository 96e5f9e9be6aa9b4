# One try to reach the decision's node, and what follows when it fails: the same for requests
# (exchange) and for passages.
#
#   attempt_begin -> READY, or WAITS -> attempt_connected -> READY
#               \-> FAILED             /-> FAILED, or a time-out
#                     attempt_again -> another decision, or the cause to end with

from libc.stdint cimport uint32_t

from fastlb._core.address cimport Address
from fastlb._core.connection cimport ClientConn, Exchange, Stream, Worker
from fastlb._core.decision cimport DecideInput

ctypedef void (*attempt_events_t)(Worker* w, Stream* s, uint32_t events) noexcept nogil

cdef enum AttemptResult:
    ATTEMPT_READY = 0                # x.node takes bytes
    ATTEMPT_WAITS                    # the connection is being opened; its timer is set
    ATTEMPT_FAILED                   # attempt_again is next
    ATTEMPT_FULL                     # the node has its max_connections, or others wait for it

# A new exchange of the client, in ClientState `state`; NULL when there is no memory.
cdef Exchange* attempt_exchange(Worker* w, ClientConn* c, int state) noexcept nogil
# What the decision is asked about; a request's head has to be in w.request.
cdef void attempt_input(Worker* w, Exchange* x, DecideInput* ask) noexcept nogil
# Where the client connected to; all zero: a Unix socket.
cdef const Address* attempt_local_address(ClientConn* c) noexcept nogil
# Takes a pooled connection if `pooled`, else opens one.
cdef int attempt_begin(Worker* w, Exchange* x, bint pooled,
                       attempt_events_t on_events) noexcept nogil
# After events of a connection that is being opened.
cdef int attempt_connected(Worker* w, Exchange* x) noexcept nogil
# One retry more: whether the pool's budget has it. It is counted.
cdef bint attempt_may_retry(Worker* w, Exchange* x) noexcept nogil
# A node that need not say anything is connected to: that has to do for a probe.
cdef void attempt_reached(Worker* w, Exchange* x) noexcept nogil
# The node of this try failed, by its own doing.
cdef void attempt_failed(Worker* w, Exchange* x) noexcept nogil
# It ended the connection without an answer. Whether that was its doing or the request's is known
# when another node answers the same request: then it has failed.
cdef void attempt_reset(Worker* w, Exchange* x) noexcept nogil
# Its answer has begun, with this status; 0: the connection itself is all that is known of.
cdef void attempt_answered(Worker* w, Exchange* x, int status) noexcept nogil
# Another decision, without the node of this try: the new action. x.node is closed before.
cdef int attempt_elsewhere(Worker* w, Exchange* x) noexcept nogil
# It was let in by its queue: what is decided then. `ask` is as attempt_input has made it.
cdef void attempt_turn(Worker* w, Exchange* x, const DecideInput* ask) noexcept nogil
# The try failed for `cause`: CAUSE_NONE when it was decided again, else the Cause to end with.
cdef int attempt_again(Worker* w, Exchange* x, int cause) noexcept nogil
