"""def functions over upstream; for tests only."""

from libc.stdint cimport uint32_t

from fastlb._core._testing_rig cimport Rig
from fastlb._core.address cimport Address, address_from_text
from fastlb._core.connection cimport (
    NODE_CONN_BUSY, NODE_CONN_CLOSED, NODE_CONN_CONNECTING, NODE_CONN_IDLE, NodeConn, Stream,
    Worker,
)
from fastlb._core.limits cimport NODE_IDLE_MAX
from fastlb._core.plan cimport PlanPool
from fastlb._core.slice cimport slice_of
from fastlb._core.stream cimport stream_note
from fastlb._core.upstream cimport (
    upstream_borrow, upstream_bury, upstream_close, upstream_connect, upstream_connected,
    upstream_drop_all_idle, upstream_drop_idle, upstream_return,
)

STATES = {
    NODE_CONN_CONNECTING: "connecting", NODE_CONN_BUSY: "busy", NODE_CONN_IDLE: "idle",
    NODE_CONN_CLOSED: "closed",
}
IDLE_MAX = NODE_IDLE_MAX


cdef PlanPool _pool                  # of all nodes


cdef void _note(Worker* w, Stream* s, uint32_t events) noexcept nogil:
    stream_note(s, events)


cdef int _address(Address* out, node) except -1:
    host = node[0].encode()
    if not address_from_text(out, host, <uint32_t> len(host)):
        raise ValueError(f"{node[0]!r} is no IP address")
    out.port = node[1]
    return 0


cdef class Link:
    """A connection to a node; the same connection is an equal one."""
    cdef Rig rig
    cdef NodeConn* n

    def __eq__(self, other):
        return isinstance(other, Link) and (<Link> other).n == self.n

    @property
    def state(self):
        return STATES[self.n.state]

    @property
    def fd(self):
        return self.n.stream.fd

    @property
    def requests(self):
        return self.n.requests

    @property
    def writable(self):
        return bool(self.n.stream.ready & 2)

    def connected(self):
        """0, or the error number."""
        return upstream_connected(self.n)

    def give_back(self):
        upstream_return(self.rig.w, self.n, &_pool)

    def close(self, bint reset=False):
        upstream_close(self.rig.w, self.n, reset)


cdef Link _link(Rig rig, NodeConn* n):
    cdef Link link = Link.__new__(Link)
    link.rig = rig
    link.n = n
    n.stream.on_events = _note
    return link


def connect(Rig rig, uint32_t slot, node, uint32_t limit=0):
    """A Link, or the error number; 0: the node is full."""
    cdef Address address
    _address(&address, node)
    cdef NodeConn* n = upstream_connect(rig.w, slot, &address, limit, False)
    return rig.w.connect_errno if n == NULL else _link(rig, n)


def borrow(Rig rig, uint32_t slot, node):
    """A Link, or None."""
    cdef Address address
    _address(&address, node)
    cdef NodeConn* n = upstream_borrow(rig.w, slot, &address, NULL, slice_of(NULL, 0))
    return None if n == NULL else _link(rig, n)


def idle(Rig rig, uint32_t slot):
    """Pooled connections by the worker's own count and by the counter that others read."""
    return rig.w.idle_count[slot], rig.w.stats.nodes[slot].idle


def counters(Rig rig, uint32_t slot):
    return {"connects": rig.w.stats.nodes[slot].connects,
            "reuses": rig.w.stats.nodes[slot].reuses,
            "open": rig.w.stats.node_connections}


def drop_idle(Rig rig, uint32_t slot):
    upstream_drop_idle(rig.w, slot)


def drop_all_idle(Rig rig):
    upstream_drop_all_idle(rig.w)


def bury(Rig rig):
    upstream_bury(rig.w)
