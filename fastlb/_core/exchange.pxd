# One request and its response: decide, connect, send, await, relay, end.
#
#   exchange_begin -> decide -> node connection -> head out -> body out
#                          \-> own answer            <- head in <- body in -> end
#
# Every function here may end the exchange, which frees it: callers must not touch it after.

from libc.stdint cimport uint32_t

from fastlb._core.connection cimport ClientConn, Exchange, NodeConn, Worker

# The client's buffer holds a request whose head is parsed into w.request.
cdef void exchange_begin(Worker* w, ClientConn* c) noexcept nogil
# No request could be made of what the client sent (or it took too long): answer and close.
# `head_error`: the HeadError, 0 when it is none.
cdef void exchange_refuse(Worker* w, ClientConn* c, int status, int cause,
                          int head_error) noexcept nogil
# Events of the client's socket while it has an exchange.
cdef void exchange_client_events(Worker* w, ClientConn* c, uint32_t events) noexcept nogil
# Goes on after giving way to others (FLOW_AGAIN).
cdef void exchange_continue(Worker* w, ClientConn* c) noexcept nogil
# It was let in by its queue.
cdef void exchange_turn(Worker* w, Exchange* x) noexcept nogil
# Rules that it waited for have ended (Worker.rules_done).
cdef void exchange_rules_done(Worker* w, Exchange* x) noexcept nogil
# Timers of the two sides.
cdef void exchange_client_timeout(Worker* w, ClientConn* c) noexcept nogil
cdef void exchange_node_timeout(Worker* w, NodeConn* n) noexcept nogil
# The worker stops now: whatever runs is cut.
cdef void exchange_stop(Worker* w, ClientConn* c) noexcept nogil
