# Connections to nodes: opened, counted for all workers (NodeSlot.open), lent to an exchange, pooled
# while idle, closed.
#
# The pool is per worker and node, last used first. An idle connection that says anything
# (bytes, an end, an error) is closed at once, so it is never reused dirty.

from libc.stdint cimport uint32_t

from fastlb._core.address cimport Address
from fastlb._core.connection cimport NodeConn, Worker
from fastlb._core.plan cimport PlanPool
from fastlb._core.slice cimport Slice
from fastlb._core.timer cimport Timer

# An idle connection to the node, or NULL. The caller sets exchange and on_events.
cdef NodeConn* upstream_borrow(Worker* w, uint32_t slot, const Address* node,
                               const void* context, Slice name) noexcept nogil
# Whether nothing has come from the node of which the event loop does not know yet: a look at the
# socket itself, for requests that could not be sent again.
cdef bint upstream_quiet(NodeConn* n) noexcept nogil
# A new one, NODE_CONN_BUSY if it is connected already, else NODE_CONN_CONNECTING; NULL when
# the kernel refuses at once (no route, no descriptor), or when the node has `limit` connections
# (0: it may have any number), of all workers: then w.connect_errno is 0. `speaks`: something will
# be sent as soon as it stands, so that the handshake's last segment may wait for that.
cdef NodeConn* upstream_connect(Worker* w, uint32_t slot, const Address* node, uint32_t limit,
                                bint speaks) noexcept nogil
# After EPOLLOUT or an error on a connecting one: 0, or the error number.
cdef int upstream_connected(NodeConn* n) noexcept nogil
# Gives a clean connection of a node of `pool` back to the pool of connections; closes it where
# another worker would have to wait for the node.
cdef void upstream_return(Worker* w, NodeConn* n, const PlanPool* pool) noexcept nogil
cdef void upstream_close(Worker* w, NodeConn* n, bint reset) noexcept nogil
# Closes all idle connections: of one slot, or of all.
cdef void upstream_drop_idle(Worker* w, uint32_t slot) noexcept nogil
cdef void upstream_drop_all_idle(Worker* w) noexcept nogil
# Frees what was closed in this turn.
cdef void upstream_bury(Worker* w) noexcept nogil
