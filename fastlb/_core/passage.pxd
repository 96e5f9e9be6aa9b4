# A connection that is relayed as it is: protocol tcp, and TLS that is passed through.
#
#   passage_begin -> decide -> node connection -> first bytes -> tunnel -> end
#                         \-> closed
#
# A passage is an exchange without messages (Exchange.passage). One that reaches no node, or is
# cut, ends with a reset, never in order: a client that had a node's orderly end can tell the two.
#
# Every function here may end the passage, and with it the client's connection.

from libc.stdint cimport uint32_t

from fastlb._core.connection cimport ClientConn, Exchange, NodeConn, Worker
from fastlb._core.tls_hello cimport TlsClientHello

# c.buffer: NULL, or the bytes that go to the node first (the whole ClientHello and what came
# behind it). `hello`: NULL on tcp; its slices point into c.buffer or into w.scratch.
cdef void passage_begin(Worker* w, ClientConn* c, const TlsClientHello* hello) noexcept nogil
# No passage can be made of it (not TLS, a bad PROXY header, a time-out): counted, logged, closed.
cdef void passage_refuse(Worker* w, ClientConn* c, int cause) noexcept nogil
# Events of the client's socket.
cdef void passage_client_events(Worker* w, ClientConn* c, uint32_t events) noexcept nogil
# Goes on after giving way to others.
cdef void passage_continue(Worker* w, ClientConn* c) noexcept nogil
# It was let in by its queue.
cdef void passage_turn(Worker* w, Exchange* x) noexcept nogil
# Rules that it waited for have ended (Worker.rules_done).
cdef void passage_rules_done(Worker* w, Exchange* x) noexcept nogil
# Timers of the two sides.
cdef void passage_client_timeout(Worker* w, ClientConn* c) noexcept nogil
cdef void passage_node_timeout(Worker* w, NodeConn* n) noexcept nogil
# The worker stops now.
cdef void passage_stop(Worker* w, ClientConn* c) noexcept nogil
