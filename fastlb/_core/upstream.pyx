# Node connections (contract in upstream.pxd).

from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc

from fastlb._core cimport system
from fastlb._core.address cimport (
    Address, address_equal, address_is_ipv4, address_to_sockaddr,
)
from fastlb._core.connection cimport (
    NODE_CONN_BUSY, NODE_CONN_CLOSED, NODE_CONN_CONNECTING, NODE_CONN_IDLE, STREAM_WRITABLE,
    TIMER_NODE, ExchangeQueue, NodeConn, Stream, TlsStream, Worker,
)
from fastlb._core.debug cimport BUG_ON, likely, unlikely
from fastlb._core.limits cimport NODES_MAX, NODE_IDLE_MAX, WORKERS_MAX
from fastlb._core.node cimport NO_LIMIT, NodeSlot, node_admit, node_is_awaited, node_open
from fastlb._core.node_tls cimport node_tls_keep
from fastlb._core.plan cimport PlanPool
from fastlb._core.queue cimport QUEUE_IDLE_LOOK_MS
from fastlb._core.slice cimport Slice, slice_equal, slice_of
from fastlb._core.stream cimport (
    stream_close, stream_ignore, stream_is_quiet, stream_note, stream_register, stream_rest,
    stream_unmute,
)
from fastlb._core.timer cimport timer_clear, timer_set, timer_unfile


cdef enum:
    LOOKED_AT_MAX = 32               # pooled connections, for one that is to the right name


cdef NodeConn* _allocate(Worker* w) noexcept nogil:
    cdef NodeConn* n = w.free_node_conns
    if n != NULL:
        w.free_node_conns = n.next
        n.next = NULL
        return n
    n = <NodeConn*> calloc(1, sizeof(NodeConn))
    if n != NULL:
        n.timer.kind = TIMER_NODE
    return n


cdef void _idle_events(Worker* w, Stream* s, uint32_t events) noexcept nogil:
    # Room to write is no news; everything else means that the connection is of no more use.
    # A TLS one may be told a ticket, or an update of keys.
    if events & ~<uint32_t> (system.EPOLLOUT | system.EPOLLIN) == 0 and s.tls != NULL:
        stream_note(s, events)
        if stream_is_quiet(s):
            return
    if events & ~<uint32_t> system.EPOLLOUT:
        upstream_close(w, <NodeConn*> s, False)


cdef void _unlink_idle(Worker* w, NodeConn* n) noexcept nogil:
    if n.prev != NULL:
        n.prev.next = n.next
    else:
        BUG_ON(w.idle[n.slot] != n)
        w.idle[n.slot] = n.next
    if n.next != NULL:
        n.next.prev = n.prev
    n.next = NULL
    n.prev = NULL
    w.idle_count[n.slot] -= 1
    w.stats.nodes[n.slot].idle -= 1


# Whether the connection is by this context, and to this name.
cdef inline bint _fits(const NodeConn* n, const void* context, Slice name) noexcept nogil:
    cdef const TlsStream* t = n.stream.tls
    if likely(t == NULL):
        return context == NULL
    return t.context == context and slice_equal(slice_of(t.sni, t.sni_bytes), name)


cdef NodeConn* upstream_borrow(Worker* w, uint32_t slot, const Address* node,
                               const void* context, Slice name) noexcept nogil:
    cdef NodeConn* n = w.idle[slot]
    cdef uint32_t looked_at = 0
    while n != NULL and not address_equal(&n.address, node):
        # The slot was given to another node by a reload.
        upstream_close(w, n, False)
        n = w.idle[slot]
    while n != NULL and not _fits(n, context, name):
        looked_at += 1
        n = n.next if looked_at < LOOKED_AT_MAX else NULL
    if n == NULL:
        return NULL
    _unlink_idle(w, n)
    n.state = NODE_CONN_BUSY
    n.requests += 1
    timer_clear(&n.timer)
    w.stats.nodes[slot].reuses += 1
    return n


cdef bint upstream_quiet(NodeConn* n) noexcept nogil:
    stream_note(&n.stream, system.EPOLLIN)
    return stream_is_quiet(&n.stream)


cdef bint _drop_one_idle(Worker* w) noexcept nogil:
    cdef uint32_t slot
    for slot in range(<uint32_t> NODES_MAX):
        if w.idle[slot] != NULL:
            upstream_close(w, w.idle[slot], False)
            return True
    return False


cdef int _open_socket(const Address* node, bint speaks) noexcept nogil:
    cdef int one = 1
    cdef int zero = 0
    cdef int family = system.AF_INET if address_is_ipv4(node) else system.AF_INET6
    cdef int fd = system.socket(
        family, system.SOCK_STREAM | system.SOCK_NONBLOCK | system.SOCK_CLOEXEC, 0)
    if fd >= 0:
        system.setsockopt(fd, system.IPPROTO_TCP, system.TCP_NODELAY, &one, sizeof(one))
    if fd >= 0 and speaks:
        # One segment less, and the node is woken once, with the bytes (tcp(7), TCP_QUICKACK).
        system.setsockopt(fd, system.IPPROTO_TCP, system.TCP_QUICKACK, &zero, sizeof(zero))
    return fd


# Counts one more. Own idle connections, which are of no use here, make room.
cdef bint _admit(Worker* w, uint32_t slot, uint32_t limit) noexcept nogil:
    cdef NodeSlot* node = &w.nodes.slots[slot]
    if likely(limit == 0):
        node.open[w.index] += 1
        return True
    # All columns: workers may begin that this one's plan does not know of yet.
    while not node_admit(node, w.index, WORKERS_MAX, limit):
        if w.idle[slot] == NULL:
            w.connect_errno = 0
            return False
        upstream_close(w, w.idle[slot], False)
    return True


cdef inline void _uncount(Worker* w, uint32_t slot) noexcept nogil:
    BUG_ON(w.nodes.slots[slot].open[w.index] == 0)
    w.nodes.slots[slot].open[w.index] -= 1
    w.queues_due = w.queues != NULL


cdef NodeConn* upstream_connect(Worker* w, uint32_t slot, const Address* node, uint32_t limit,
                                bint speaks) noexcept nogil:
    cdef char sockaddr[128]
    cdef NodeConn* n
    cdef int result
    if not _admit(w, slot, limit):
        return NULL
    n = _allocate(w)
    if n == NULL:
        _uncount(w, slot)
        w.connect_errno = system.ENOMEM
        return NULL
    n.stream.fd = _open_socket(node, speaks)
    if n.stream.fd < 0 and system.errno == system.EMFILE and _drop_one_idle(w):
        n.stream.fd = _open_socket(node, speaks)
    if n.stream.fd < 0:
        w.connect_errno = system.errno
        _uncount(w, slot)
        n.next = w.free_node_conns
        w.free_node_conns = n
        return NULL
    n.stream.ready = 0
    n.stream.on_events = stream_ignore
    n.slot = slot
    n.address = node[0]
    n.requests = 1
    n.exchange = NULL
    w.stats.node_connections += 1
    result = system.connect(n.stream.fd, <const system.sockaddr*> sockaddr,
                            address_to_sockaddr(node, sockaddr))
    if result < 0 and system.errno != system.EINPROGRESS:
        w.connect_errno = system.errno
        n.state = NODE_CONN_BUSY
        upstream_close(w, n, False)
        return NULL
    n.state = NODE_CONN_BUSY if result == 0 else NODE_CONN_CONNECTING
    if result == 0:
        n.stream.ready = STREAM_WRITABLE
    if not stream_register(w, &n.stream):
        w.connect_errno = system.errno
        upstream_close(w, n, False)
        return NULL
    w.stats.nodes[slot].connects += 1
    return n


cdef int upstream_connected(NodeConn* n) noexcept nogil:
    cdef int error = 0
    cdef system.socklen_t size = sizeof(error)
    if system.getsockopt(n.stream.fd, system.SOL_SOCKET, system.SO_ERROR, &error, &size) < 0:
        return system.errno
    if error == 0:
        n.state = NODE_CONN_BUSY
    return error


# Whether the connection may rest without keeping others from the node. Own requests that wait
# for it are looked at before the turn ends; one place is left free where other workers are.
cdef bint _may_rest(Worker* w, const NodeConn* n, const PlanPool* pool) noexcept nogil:
    cdef const NodeSlot* node = &w.nodes.slots[n.slot]
    cdef uint32_t columns = w.snapshot.plan.columns
    cdef uint32_t limit = w.limits[n.slot]
    if limit == 0:
        return True
    if limit == NO_LIMIT or node_open(node, columns) > limit:
        return False                 # the node is gone from the plan, or may have fewer now
    if not w.queue_timer.deadline_ms:
        timer_set(&w.timers, &w.queue_timer, w.now_ms + QUEUE_IDLE_LOOK_MS)
    if _own_wait(w.node_queues[n.slot]) or _own_wait(w.pool_queues[pool.slot]):
        w.queues_due = True
        return True
    if node_is_awaited(node.waiting, columns, w.boot_ms, pool.queue_timeout) or node_is_awaited(
            w.nodes.pools[pool.slot].waiting, columns, w.boot_ms, pool.queue_timeout):
        return False
    return columns == 1 or node_open(node, columns) < limit


cdef inline bint _own_wait(const ExchangeQueue* queue) noexcept nogil:
    return queue != NULL and queue.count != 0


cdef void upstream_return(Worker* w, NodeConn* n, const PlanPool* pool) noexcept nogil:
    BUG_ON(n.state != NODE_CONN_BUSY)
    if w.stopping or w.idle_count[n.slot] >= NODE_IDLE_MAX or (
            unlikely(w.limited) and not _may_rest(w, n, pool)):
        upstream_close(w, n, False)
        return
    n.state = NODE_CONN_IDLE
    n.exchange = NULL
    stream_unmute(w, &n.stream)
    if unlikely(n.stream.tls != NULL):
        node_tls_keep(w, n)
        stream_rest(&n.stream)
    n.stream.on_events = _idle_events
    n.prev = NULL
    n.next = w.idle[n.slot]
    if n.next != NULL:
        n.next.prev = n
    w.idle[n.slot] = n
    w.idle_count[n.slot] += 1
    w.stats.nodes[n.slot].idle += 1
    timer_set(&w.timers, &n.timer, w.now_ms + w.snapshot.plan.timeouts.node_keep_alive)


cdef void upstream_close(Worker* w, NodeConn* n, bint reset) noexcept nogil:
    BUG_ON(n.state == NODE_CONN_CLOSED)
    if n.state == NODE_CONN_IDLE:
        _unlink_idle(w, n)
    n.state = NODE_CONN_CLOSED
    n.exchange = NULL
    timer_clear(&n.timer)
    timer_unfile(&w.timers, &n.timer)
    if unlikely(n.stream.tls != NULL):
        node_tls_keep(w, n)
    stream_close(&n.stream, reset)
    _uncount(w, n.slot)              # after it, so that no other is opened before
    n.stream.on_events = stream_ignore
    w.stats.node_connections -= 1
    n.prev = NULL
    n.next = w.dead_node_conns
    w.dead_node_conns = n


cdef void upstream_drop_idle(Worker* w, uint32_t slot) noexcept nogil:
    while w.idle[slot] != NULL:
        upstream_close(w, w.idle[slot], False)


cdef void upstream_drop_all_idle(Worker* w) noexcept nogil:
    cdef uint32_t slot
    for slot in range(<uint32_t> NODES_MAX):
        upstream_drop_idle(w, slot)


cdef void upstream_bury(Worker* w) noexcept nogil:
    cdef NodeConn* n
    while w.dead_node_conns != NULL:
        n = w.dead_node_conns
        w.dead_node_conns = n.next
        n.next = w.free_node_conns
        w.free_node_conns = n
