# TLS towards nodes (a pool's `tls`): who the node has to be, its handshake, and the session that
# shortens the next one. Knows pools, contexts and connections to nodes; nothing of decisions.

from libc.stdint cimport uint64_t

from fastlb._core.address cimport Address
from fastlb._core.connection cimport Exchange, NodeConn, Worker
from fastlb._core.slice cimport Slice

# What a connection of this exchange has to be: by which context (NULL: plain), and to whom. The
# name is in `room`, NODE_NAME_BYTES of it, and ends with a NUL.
cdef enum:
    NODE_NAME_BYTES = 256

cdef const void* node_tls_context(const Exchange* x) noexcept nogil
cdef Slice node_tls_name(const Exchange* x, const Address* node, char* room) noexcept nogil
# Makes x.node, connected and new, a TLS connection. False: not for any doing of the node's, but
# for want of memory.
cdef bint node_tls_open(Worker* w, Exchange* x) noexcept nogil
# The handshake as far as it goes: > 0 when it is done, 0 when it waits, < 0 when it failed; then
# x.verify_error says what was wrong with the node's certificate, where that was it.
cdef int node_tls_shake(Worker* w, Exchange* x) noexcept nogil
# Whether the handshake of x.node may have failed for a name that the client made up: one that no
# node of the pool has proven to have, by this plan and in this worker.
cdef bint node_tls_doubtful(const Worker* w, const Exchange* x) noexcept nogil
# Before the connection rests, or is closed: its session is kept for the next one.
cdef void node_tls_keep(Worker* w, NodeConn* n) noexcept nogil
cdef void node_tls_forget_all(Worker* w) noexcept nogil
# Sessions kept in this process.
cdef uint64_t node_tls_count() noexcept nogil
