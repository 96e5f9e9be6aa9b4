# One try to reach a node (contract in attempt.pxd).
#
# A pool with proxy_protocol gets a header ahead of all else on each connection, which tells of
# one client: such connections are never pooled.

from libc.stdint cimport uint16_t, uint32_t
from libc.stdlib cimport calloc
from libc.string cimport memset

from fastlb._core cimport system
from fastlb._core.address cimport Address, address_from_sockaddr
from fastlb._core.connection cimport (
    ClientConn, Exchange, NODE_CONN_BUSY, NODE_CONN_CONNECTING, NodeConn, STAGE_CONNECT,
    STREAM_ERROR, STREAM_HUP, STREAM_WRITABLE, Worker,
)
from fastlb._core.debug cimport BUG_ON, likely, unlikely
from fastlb._core.decide cimport decide_again, decide_waited, decision_reset
from fastlb._core.decision cimport (
    ACTION_FORWARD, ACTION_NO_NODE, ACTION_WAIT, DecideInput, decision_node,
)
from fastlb._core.exchange_end cimport exchange_count_load, exchange_uncount_load
from fastlb._core.health cimport (
    TRY_PROBE, TRY_USUAL, health_answered, health_excuse, health_failed, health_try,
)
from fastlb._core.limits cimport NODE_SLOT_UNLISTED
from fastlb._core.message cimport method_idempotent
from fastlb._core.node_tls cimport (
    NODE_NAME_BYTES, node_tls_context, node_tls_doubtful, node_tls_name, node_tls_open,
    node_tls_shake,
)
from fastlb._core.node cimport NODE_DRAINING, NODE_UP, NodeSlot
from fastlb._core.outcome cimport (
    CAUSE_CONNECT_FAILED, CAUSE_NODE_HANDSHAKE, CAUSE_NONE, CAUSE_NO_DESCRIPTOR,
)
from fastlb._core.plan cimport (
    POOL_PROXY_V1, POOL_PROXY_V2, POOL_TLS, PlanNode, plan_nodes, plan_virtual_server,
)
from fastlb._core.proxy_protocol cimport (
    PROXY_WRITE_BYTES_MAX, proxy_v1_write, proxy_v2_write,
)
from fastlb._core.queue cimport queue_is_awaited, queue_limit
from fastlb._core.request cimport request_head_at, request_reload
from fastlb._core.retry_budget cimport retry_budget_request, retry_budget_take
from fastlb._core.rule_state cimport rules_input
from fastlb._core.slice cimport slice_of
from fastlb._core.timer cimport timer_set
from fastlb._core.upstream cimport (
    upstream_borrow, upstream_close, upstream_connect, upstream_connected, upstream_quiet,
)

cdef enum:
    SUSPECT_MANY = 0xFFFF            # in Exchange.suspect


cdef Exchange* attempt_exchange(Worker* w, ClientConn* c, int state) noexcept nogil:
    cdef Exchange* x = w.free_exchanges
    if likely(x != NULL):
        w.free_exchanges = x.next
        memset(x, 0, <size_t> (<char*> &x.decision - <char*> x))
    else:
        x = <Exchange*> calloc(1, sizeof(Exchange))
        if x == NULL:
            return NULL
    w.stats.exchanges += 1
    x.client = c
    x.snapshot = w.snapshot
    x.snapshot.references += 1
    x.started_us = w.now_us
    decision_reset(&x.decision)
    c.exchange = x
    c.state = <unsigned char> state
    return x


cdef const Address* attempt_local_address(ClientConn* c) noexcept nogil:
    cdef system.sockaddr_storage sockaddr
    cdef system.socklen_t size = sizeof(sockaddr)
    if not c.local_known:
        c.local_known = True
        if system.getsockname(c.stream.fd, <system.sockaddr*> &sockaddr, &size) == 0:
            address_from_sockaddr(&c.local, &sockaddr)
    return &c.local


cdef void attempt_input(Worker* w, Exchange* x, DecideInput* ask) noexcept nogil:
    ask.request.plan = x.snapshot.plan
    ask.request.pool = x.pool
    ask.request.client = &x.client_address
    ask.request.local = NULL
    if x.snapshot.plan.needs_local:
        ask.request.local = attempt_local_address(x.client)
    ask.request.sni = slice_of(x.sni, x.sni_bytes)
    ask.request.hello = NULL
    ask.request.key = slice_of(NULL, 0)
    ask.request.named = NULL
    ask.request.virtual_server = <uint32_t> (x.server - plan_virtual_server(x.snapshot.plan, 0))
    ask.request.head = NULL
    ask.request.buf = NULL
    if not x.passage:
        BUG_ON(w.request_of != x)
        ask.request.head = &w.request
        ask.request.buf = request_head_at(x)
    ask.request.wall_s = w.wall_s
    ask.pool = x.pool
    ask.persistence = x.pool.persistence
    ask.table = w.nodes
    ask.caches = x.snapshot.caches
    ask.reservations = x.snapshot.reservations
    ask.random = &w.random
    ask.now_ms = w.boot_ms
    ask.now_ticks = w.now_ticks
    ask.peek = False
    ask.limits = w.limits if unlikely(w.limited) else NULL
    ask.idle = w.idle_count
    ask.in_turn = x.in_turn
    if unlikely(x.rules != NULL):
        rules_input(x, ask)


# --- the try ------------------------------------------------------------------------------

# In one segment with what follows, where anything does.
cdef bint _send_proxy_header(Worker* w, Exchange* x) noexcept nogil:
    cdef char[PROXY_WRITE_BYTES_MAX] out
    cdef ClientConn* c = x.client
    cdef int flags = system.MSG_NOSIGNAL
    cdef uint32_t count
    if x.pool.flags & POOL_PROXY_V1:
        count = proxy_v1_write(out, &c.peer, attempt_local_address(c))
    else:
        count = proxy_v2_write(out, &c.peer, attempt_local_address(c), slice_of(x.sni, x.sni_bytes),
                               slice_of(x.alpn, x.alpn_bytes))
    if not x.passage or x.up.run_bytes or x.pool.flags & POOL_TLS:
        flags |= system.MSG_MORE
    # A new connection has room for it.
    return system.send(x.node.stream.fd, out, count, flags) == <ssize_t> count


cdef int _connected(Worker* w, Exchange* x) noexcept nogil:
    if not x.fresh:
        return ATTEMPT_READY
    if x.node.stream.tls != NULL:
        return _shaken(w, x)
    if x.pool.flags & (POOL_PROXY_V1 | POOL_PROXY_V2) and not _send_proxy_header(w, x):
        return ATTEMPT_FAILED
    if not x.pool.flags & POOL_TLS:
        return ATTEMPT_READY
    if node_tls_open(w, x):
        return _shaken(w, x)
    upstream_close(w, x.node, False)
    x.node = NULL
    w.connect_errno = system.ENOMEM
    return ATTEMPT_FAILED


cdef int _shaken(Worker* w, Exchange* x) noexcept nogil:
    # The time to connect is that of the handshake, too.
    cdef int result = node_tls_shake(w, x)
    if result == 0:
        x.stage = STAGE_CONNECT
        if x.node.timer.deadline_ms == 0:
            timer_set(&w.timers, &x.node.timer, w.now_ms + x.snapshot.plan.timeouts.connect)
        return ATTEMPT_WAITS
    return ATTEMPT_READY if result > 0 else ATTEMPT_FAILED


# One that rests, and is what this exchange needs. One that the node closes just now must not get
# a request that could not be sent again. What lies on a plain one before its request is sent shows
# by its event (exchange, _came_before), but not in which order records of TLS have come.
cdef NodeConn* _borrow(Worker* w, Exchange* x, const PlanNode* node) noexcept nogil:
    cdef NodeConn* n = _resting(w, x, node)
    if likely(method_idempotent(x.method) and not x.pool.flags & POOL_TLS):
        return n
    while n != NULL and not upstream_quiet(n):
        upstream_close(w, n, False)
        n = _resting(w, x, node)
    return n


cdef NodeConn* _resting(Worker* w, Exchange* x, const PlanNode* node) noexcept nogil:
    cdef char[NODE_NAME_BYTES] room
    if x.pool.flags & (POOL_PROXY_V1 | POOL_PROXY_V2):
        return NULL
    if likely(not x.pool.flags & POOL_TLS):
        return upstream_borrow(w, node.slot, &node.address, NULL, slice_of(NULL, 0))
    return upstream_borrow(w, node.slot, &node.address, node_tls_context(x),
                           node_tls_name(x, &node.address, room))


# Whether the node hears something of us at once.
cdef inline bint _speaks(const Exchange* x) noexcept nogil:
    return (not x.passage or x.up.run_bytes != 0
            or x.pool.flags & (POOL_PROXY_V1 | POOL_PROXY_V2) != 0)


cdef int _refused(Worker* w, Exchange* x) noexcept nogil:
    if w.connect_errno:
        return ATTEMPT_FAILED
    exchange_uncount_load(w, x)
    return ATTEMPT_FULL


cdef void _note_try(Worker* w, Exchange* x, uint32_t slot) noexcept nogil:
    # A second connection for the same try is the same probe.
    if slot == NODE_SLOT_UNLISTED:
        x.probes = TRY_USUAL
    elif x.probes != TRY_PROBE or x.slot != slot:
        x.probes = <unsigned char> health_try(
            x.pool, &w.nodes.slots[slot], &w.stats.nodes[slot], w.boot_ms,
            x.snapshot.plan.timeouts.connect + x.pool.backoff_min, x.decision.established)


cdef int attempt_begin(Worker* w, Exchange* x, bint pooled,
                       attempt_events_t on_events) noexcept nogil:
    cdef const PlanNode* node = decision_node(x.snapshot.plan, x.pool, &x.decision)
    cdef NodeConn* n = NULL
    cdef uint32_t limit = 0
    if unlikely(w.limited):
        limit = queue_limit(w, node)
        if limit and not x.in_turn and queue_is_awaited(w, x, node):
            return ATTEMPT_FULL
    if likely(x.tried_us == 0):
        retry_budget_request(&w.budgets[x.pool.slot], w.now_ms)
    if unlikely(w.nodes.slots[node.slot].ejected_until_ms != 0 or x.probes):
        _note_try(w, x, node.slot)
    x.slot = node.slot
    x.tried_us = w.now_us
    exchange_count_load(w, x)
    w.nodes.slots[node.slot].used_at_ms = w.boot_ms
    if pooled:
        n = _borrow(w, x, node)
    x.fresh = n == NULL
    if n == NULL:
        n = upstream_connect(w, node.slot, &node.address, limit, _speaks(x))
        if n == NULL:
            return _refused(w, x)
    x.node = n
    x.in_turn = True                 # should it need another one
    n.exchange = x
    n.stream.on_events = on_events
    if n.state == NODE_CONN_CONNECTING:
        x.stage = STAGE_CONNECT
        timer_set(&w.timers, &n.timer, w.now_ms + x.snapshot.plan.timeouts.connect)
        return ATTEMPT_WAITS
    return _connected(w, x)


cdef int attempt_connected(Worker* w, Exchange* x) noexcept nogil:
    cdef NodeConn* n = x.node
    if n.stream.tls != NULL:
        return _shaken(w, x)
    # A connection that failed never reports room alone.
    if n.stream.ready & (STREAM_HUP | STREAM_ERROR) and upstream_connected(n) != 0:
        return ATTEMPT_FAILED
    if not n.stream.ready & STREAM_WRITABLE:
        return ATTEMPT_WAITS
    n.state = NODE_CONN_BUSY
    return _connected(w, x)


# --- when it is over ----------------------------------------------------------------------

cdef bint attempt_may_retry(Worker* w, Exchange* x) noexcept nogil:
    if retry_budget_take(&w.budgets[x.pool.slot], x.pool.retry_budget, w.now_ms):
        w.stats.pools[x.pool.slot].retries += 1
        return True
    w.stats.pools[x.pool.slot].retries_refused += 1
    return False


cdef void attempt_failed(Worker* w, Exchange* x) noexcept nogil:
    if x.slot != NODE_SLOT_UNLISTED:
        health_failed(x.pool, &w.nodes.slots[x.slot], &w.stats.nodes[x.slot], w.boot_ms, x.probes)
    x.probes = TRY_USUAL


cdef void _suspect(Exchange* x) noexcept nogil:
    if x.suspect == 0:
        x.suspect = <uint16_t> (x.slot + 1)
    elif x.suspect != x.slot + 1:
        x.suspect = SUSPECT_MANY     # no node survives this request
    x.probes = TRY_USUAL


cdef void attempt_reset(Worker* w, Exchange* x) noexcept nogil:
    if x.probes == TRY_PROBE:        # one node, and nobody else has its sessions any more
        attempt_failed(w, x)
    else:
        _suspect(x)


cdef void _blame(Worker* w, Exchange* x) noexcept nogil:
    cdef uint32_t slot = x.suspect - 1
    if x.suspect != SUSPECT_MANY and slot != x.slot and slot != NODE_SLOT_UNLISTED:
        health_failed(x.pool, &w.nodes.slots[slot], &w.stats.nodes[slot], w.boot_ms, TRY_USUAL)
    x.suspect = 0


# The node is back, as the only one of its pool: what they all had is over, of a network say. The
# sessions of the others would move to it, before a probe shows that theirs are well too.
cdef void _excuse_others(Worker* w, const Exchange* x) noexcept nogil:
    cdef const PlanNode* nodes = plan_nodes(x.snapshot.plan, x.pool)
    cdef NodeSlot* slot
    cdef uint32_t i
    for i in range(x.pool.node_count):
        slot = &w.nodes.slots[nodes[i].slot]
        if nodes[i].slot != x.slot and slot.ejected_until_ms == 0 \
                and (slot.state == NODE_UP or slot.state == NODE_DRAINING):
            return
    for i in range(x.pool.node_count):
        slot = &w.nodes.slots[nodes[i].slot]
        if slot.ejected_until_ms:
            health_excuse(x.pool, slot, w.boot_ms)


cdef void attempt_reached(Worker* w, Exchange* x) noexcept nogil:
    if unlikely(x.probes != TRY_USUAL):
        x.probes = TRY_USUAL
        health_excuse(x.pool, &w.nodes.slots[x.slot], w.boot_ms)
        _excuse_others(w, x)


cdef void attempt_answered(Worker* w, Exchange* x, int status) noexcept nogil:
    if unlikely(x.suspect):
        _blame(w, x)
    if unlikely(x.slot == NODE_SLOT_UNLISTED):
        return
    health_answered(x.pool, &w.nodes.slots[x.slot], &w.stats.nodes[x.slot], w.boot_ms,
                    x.probes, status)
    if unlikely(x.probes != TRY_USUAL) and w.nodes.slots[x.slot].ejected_until_ms == 0:
        x.probes = TRY_USUAL
        _excuse_others(w, x)


cdef int attempt_elsewhere(Worker* w, Exchange* x) noexcept nogil:
    cdef DecideInput ask
    cdef bint established = x.decision.established
    if not x.passage:
        request_reload(w, x)
    attempt_input(w, x, &ask)
    decide_again(&ask, &x.decision)
    if x.decision.action == ACTION_FORWARD or x.decision.action == ACTION_WAIT:
        # The new node of a session is the failure mode's; only those after it are retries.
        x.retries += not established
        w.stats.retries += 1
    return x.decision.action


cdef void attempt_turn(Worker* w, Exchange* x, const DecideInput* ask) noexcept nogil:
    cdef bint was_tried = x.decision.node < 0 and x.decision.tried_count != 0
    decide_waited(ask, &x.decision)
    if was_tried and x.decision.action == ACTION_FORWARD:
        x.retries += x.decision.moves
        w.stats.retries += 1


cdef int attempt_again(Worker* w, Exchange* x, int cause) noexcept nogil:
    cdef bint established = x.decision.established
    cdef bint doubtful = False
    cdef int error = w.connect_errno
    if x.node != NULL:
        error = 0
        doubtful = node_tls_doubtful(w, x)
        if x.node.stream.tls != NULL and cause == CAUSE_CONNECT_FAILED:
            cause = CAUSE_NODE_HANDSHAKE
        upstream_close(w, x.node, False)
        x.node = NULL
    exchange_uncount_load(w, x)
    if error in (system.EMFILE, system.ENFILE, system.ENOMEM, system.ENOBUFS):
        return CAUSE_NO_DESCRIPTOR
    if x.misnamed or (doubtful and established):
        # Another node would hardly be it, and no session moves for what a client made up.
        x.misnamed = True
        return cause
    w.stats.nodes[x.slot].connect_failures += 1
    if doubtful:
        _suspect(x)
    elif error != system.EADDRNOTAVAIL:  # our own ports are used up
        attempt_failed(w, x)
    if not established and (x.retries >= x.pool.retries or not attempt_may_retry(w, x)):
        # Its map must not move on to a node that nobody tries.
        return cause
    return cause if attempt_elsewhere(w, x) == ACTION_NO_NODE else CAUSE_NONE
