# Queues (contract in queue.pxd). Each is ordered by when its requests came; one that comes back
# without having been served takes its old place.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from fastlb._core.address cimport address_equal
from fastlb._core.balance cimport balance_limit, balance_may_serve
from fastlb._core.connection cimport (
    Exchange, ExchangeQueue, NodeConn, STAGE_QUEUE, Snapshot, Worker,
)
from fastlb._core.debug cimport BUG_ON, unlikely
from fastlb._core.decision cimport ACTION_FORWARD, ACTION_WAIT, Decision, decision_node
from fastlb._core.health cimport health_is_out
from fastlb._core.limits cimport NODES_MAX
from fastlb._core.node cimport (
    NODE_DRAINING, NODE_UP, NodeSlot, node_is_awaited, node_open, node_waited,
)
from fastlb._core.plan cimport (
    Plan, PlanNode, PlanPool, PlanVirtualServer, plan_nodes, plan_pool, plan_virtual_server,
)
from fastlb._core.resolve cimport resolve_was_tried
from fastlb._core.snapshot cimport snapshot_release
from fastlb._core.timer cimport timer_clear, timer_set
from fastlb._core.upstream cimport upstream_close, upstream_drop_idle

cdef enum:
    SLACK_MS = 20                    # who is older by less counts as equally old
    YIELD_MS = 50                    # room that the older one elsewhere has not taken in that time
    TURNS_MAX = 64                   # let in from one queue at one time
    LOOKS_MAX = 4096                 # nodes and requests looked at in one queue at one time

cdef enum Room:
    ROOM_NONE = 0
    ROOM_NOT_FOR_THIS                # there may be some for those behind it
    ROOM_FOUND


# --- rooms --------------------------------------------------------------------------------

cdef uint32_t queue_limit(const Worker* w, const PlanNode* node) noexcept nogil:
    return balance_limit(w.limits, node)


cdef bint queue_is_awaited(const Worker* w, const Exchange* x,
                           const PlanNode* node) noexcept nogil:
    return node_is_awaited(w.nodes.slots[node.slot].waiting, w.snapshot.plan.columns, w.boot_ms,
                           x.pool.queue_timeout)


cdef inline bint _has_room(const Worker* w, const PlanNode* node) noexcept nogil:
    cdef uint32_t limit = queue_limit(w, node)
    return (limit == 0 or w.idle_count[node.slot] != 0
            or node_open(&w.nodes.slots[node.slot], w.snapshot.plan.columns) < limit)


# A session whose node cannot serve it any more is to be decided again.
cdef int _room_of_node(const Worker* w, const Exchange* x) noexcept nogil:
    cdef const PlanNode* node = decision_node(x.snapshot.plan, x.pool, &x.decision)
    cdef const NodeSlot* slot = &w.nodes.slots[node.slot]
    if (slot.state != NODE_UP and slot.state != NODE_DRAINING) \
            or health_is_out(x.pool, slot, w.boot_ms) or _has_room(w, node):
        return ROOM_FOUND
    return ROOM_NONE


# Whether a request for any node can take the plan in force: where another one would not have made
# anything else of it than another pool. Rules have seen what there was.
cdef bint _may_follow(const Worker* w, const Exchange* x) noexcept nogil:
    cdef int index = w.server_index[x.client.virtual_server_slot]
    cdef const PlanVirtualServer* server
    if x.snapshot == w.snapshot or x.decision.tried_count or index < 0:
        return False
    server = plan_virtual_server(w.snapshot.plan, <uint32_t> index)
    return (server.rule_count == 0 and x.server.rule_count == 0
            and server.protocol == x.server.protocol and server.flags == x.server.flags)


cdef bint queue_follow(Worker* w, Exchange* x) noexcept nogil:
    cdef Snapshot* before = x.snapshot
    if x.decision.node >= 0 or not _may_follow(w, x):
        return False
    x.snapshot = w.snapshot
    x.snapshot.references += 1
    x.server = plan_virtual_server(
        x.snapshot.plan, <uint32_t> w.server_index[x.client.virtual_server_slot])
    x.pool = plan_pool(x.snapshot.plan, x.server.pool)
    snapshot_release(w, before)
    return True


# As balance picks: while any node is well, the draining and the ejected ones do not count. Nor is
# there any use in waiting when no node is left that could be waited for.
cdef int _room_of_pool(const Worker* w, const Exchange* x) noexcept nogil:
    cdef const PlanNode* nodes = plan_nodes(x.snapshot.plan, x.pool)
    cdef const NodeSlot* slot
    cdef bint hopeless = True, some_well = False, room = False, is_well
    cdef uint32_t i
    if unlikely(_may_follow(w, x)):
        return ROOM_FOUND            # where there is none after all, it waits by that plan
    for i in range(x.pool.node_count):
        slot = &w.nodes.slots[nodes[i].slot]
        is_well = slot.state == NODE_UP and not health_is_out(x.pool, slot, w.boot_ms)
        if (some_well and not is_well) or not balance_may_serve(x.pool, &nodes[i], slot) \
                or resolve_was_tried(&x.decision, <int32_t> i):
            continue
        hopeless = False
        if _has_room(w, &nodes[i]) and not queue_is_awaited(w, x, &nodes[i]):
            if is_well:
                return ROOM_FOUND
            room = True
        some_well = some_well or is_well
    if hopeless or (room and not some_well):
        return ROOM_FOUND
    return ROOM_NONE if x.snapshot == w.snapshot and x.decision.tried_count == 0 \
        else ROOM_NOT_FOR_THIS


cdef inline int _room(const Worker* w, const ExchangeQueue* queue,
                      const Exchange* x) noexcept nogil:
    return _room_of_pool(w, x) if queue.of_pool else _room_of_node(w, x)


# --- who waits ----------------------------------------------------------------------------

cdef inline uint32_t* _columns(const Worker* w, const ExchangeQueue* queue) noexcept nogil:
    if queue.of_pool:
        return w.nodes.pools[queue.slot].waiting
    return w.nodes.slots[queue.slot].waiting


# Since when it waits, as the columns say it.
cdef inline uint32_t _since(const Worker* w, const Exchange* x) noexcept nogil:
    cdef uint32_t since = <uint32_t> (w.boot_ms - (w.now_us - x.queued_us) // 1000)
    return since if since else 1


# The oldest one that may have any node; a retry may not, and must not hold up others.
cdef void _tell(Worker* w, ExchangeQueue* queue) noexcept nogil:
    cdef const Exchange* x = queue.first
    while x != NULL and queue.of_pool and x.decision.tried_count:
        x = x.queue_next
    _columns(w, queue)[w.index] = _since(w, x) if x != NULL else 0


cdef ExchangeQueue* _queue(ExchangeQueue** at, uint32_t slot, bint of_pool) noexcept nogil:
    if at[0] == NULL:
        at[0] = <ExchangeQueue*> calloc(1, sizeof(ExchangeQueue))
        if at[0] != NULL:
            at[0].slot = slot
            at[0].of_pool = of_pool
    return at[0]


# What has been recorded or reserved binds as a session does; a mere choice does not.
cdef ExchangeQueue* _queue_of(Worker* w, Exchange* x) noexcept nogil:
    cdef Decision* d = &x.decision
    cdef uint32_t slot
    if d.action == ACTION_FORWARD and (d.established or d.persistence >= 0):
        slot = decision_node(x.snapshot.plan, x.pool, d).slot
        return _queue(&w.node_queues[slot], slot, False)
    d.action = ACTION_WAIT
    d.node = -1
    return _queue(&w.pool_queues[x.pool.slot], x.pool.slot, True)


# This worker's part of the pool's queue.
cdef inline uint32_t _share(const Worker* w, const PlanPool* pool) noexcept nogil:
    cdef uint32_t share = pool.queue // w.snapshot.plan.workers
    return share if share or pool.queue == 0 else 1


cdef void _link(Worker* w, ExchangeQueue* queue, Exchange* x) noexcept nogil:
    cdef Exchange* before = queue.last
    while before != NULL and before.queued_us > x.queued_us:
        before = before.queue_prev
    x.queue_prev = before
    x.queue_next = queue.first if before == NULL else before.queue_next
    if before == NULL:
        queue.first = x
    else:
        before.queue_next = x
    if x.queue_next == NULL:
        queue.last = x
    else:
        x.queue_next.queue_prev = x
    x.queue = queue
    queue.count += 1
    if queue.count > 1:
        return
    queue.prev = NULL
    queue.next = w.queues
    if queue.next != NULL:
        queue.next.prev = queue
    w.queues = queue


cdef void _unlink(Worker* w, ExchangeQueue* queue, Exchange* x) noexcept nogil:
    if queue.resume == x:
        queue.resume = x.queue_next
    if x.queue_prev == NULL:
        queue.first = x.queue_next
    else:
        x.queue_prev.queue_next = x.queue_next
    if x.queue_next == NULL:
        queue.last = x.queue_prev
    else:
        x.queue_next.queue_prev = x.queue_prev
    x.queue_next = x.queue_prev = NULL
    x.queue = NULL
    queue.count -= 1
    if queue.count:
        return
    queue.yields_ms = 0
    if queue.prev == NULL:
        w.queues = queue.next
    else:
        queue.prev.next = queue.next
    if queue.next != NULL:
        queue.next.prev = queue.prev
    queue.next = queue.prev = NULL


cdef bint queue_enter(Worker* w, Exchange* x) noexcept nogil:
    cdef ExchangeQueue* queue
    BUG_ON(x.queue != NULL)
    if w.stats.pools[x.pool.slot].waiting >= _share(w, x.pool):
        w.stats.pools[x.pool.slot].queue_full += 1
        return False
    queue = _queue_of(w, x)
    if queue == NULL:
        return False
    w.stats.pools[x.pool.slot].waited += x.queued_us == 0
    w.stats.pools[x.pool.slot].waiting += 1
    if not queue.of_pool:
        w.stats.nodes[queue.slot].waiting += 1
    # Time that it has waited before counts, so that it comes back to where it was.
    x.queued_us = w.now_us - x.waited_us
    x.stage = STAGE_QUEUE
    x.in_turn = False
    _link(w, queue, x)
    _tell(w, queue)
    timer_set(&w.timers, &x.client.timer, w.now_ms + _left_ms(x))
    return True


cdef inline uint64_t _left_ms(const Exchange* x) noexcept nogil:
    cdef uint64_t waited = x.waited_us // 1000
    return x.pool.queue_timeout - waited if x.pool.queue_timeout > waited else 0


cdef void queue_leave(Worker* w, Exchange* x) noexcept nogil:
    cdef ExchangeQueue* queue = x.queue
    cdef uint64_t waited = w.now_us - x.queued_us
    BUG_ON(queue == NULL)
    w.stats.pools[x.pool.slot].waited_us += waited - x.waited_us
    x.waited_us = waited
    w.stats.pools[x.pool.slot].waiting -= 1
    if not queue.of_pool:
        w.stats.nodes[queue.slot].waiting -= 1
    _unlink(w, queue, x)
    _tell(w, queue)
    timer_clear(&x.client.timer)


cdef void queue_time_over(Worker* w, Exchange* x) noexcept nogil:
    w.stats.pools[x.pool.slot].queue_timeouts += 1
    queue_leave(w, x)


# --- whose turn it is ---------------------------------------------------------------------

cdef bint _is_older_elsewhere(const Worker* w, const ExchangeQueue* queue) noexcept nogil:
    cdef const uint32_t* columns = _columns(w, queue)
    cdef uint32_t timeout = queue.first.pool.queue_timeout
    cdef int64_t own = <int64_t> ((w.now_us - queue.first.queued_us) // 1000)
    cdef uint32_t i
    for i in range(w.snapshot.plan.columns):
        if i != w.index and columns[i] and node_waited(
                columns[i], w.boot_ms, timeout) > own + SLACK_MS:
            return True
    return False


# For another worker, which cannot use them.
cdef void _drop_idle(Worker* w, const ExchangeQueue* queue) noexcept nogil:
    cdef const PlanNode* nodes
    cdef uint32_t i
    if not queue.of_pool:
        upstream_drop_idle(w, queue.slot)
        return
    nodes = plan_nodes(queue.first.snapshot.plan, queue.first.pool)
    for i in range(queue.first.pool.node_count):
        if queue_limit(w, &nodes[i]):
            upstream_drop_idle(w, nodes[i].slot)


# There is room. It is left to who has waited longer elsewhere, but not for ever: that worker may be
# stuck, or have no use for it.
cdef bint _is_in_turn(Worker* w, ExchangeQueue* queue) noexcept nogil:
    if not _is_older_elsewhere(w, queue):
        return True
    if queue.yields_ms == 0:
        queue.yields_ms = w.now_ms
    if w.now_ms - queue.yields_ms >= YIELD_MS:
        return True
    _drop_idle(w, queue)
    return False


# There is more to look at, and others have their turns first.
cdef inline void _go_on_at(Worker* w, ExchangeQueue* queue, Exchange* x) noexcept nogil:
    queue.resume = x
    w.queues_due = True


cdef void _serve(Worker* w, ExchangeQueue* queue, queue_turn_t turn) noexcept nogil:
    cdef Exchange* x = queue.resume if queue.resume != NULL else queue.first
    cdef Exchange* following
    cdef uint32_t count, looks = 0
    cdef int turns = 0, room = ROOM_NONE
    queue.resume = NULL
    while x != NULL:
        following = x.queue_next
        if turns == TURNS_MAX or looks >= <uint32_t> LOOKS_MAX:
            _go_on_at(w, queue, x)
            return
        looks += 1 + x.pool.node_count
        room = _room(w, queue, x)
        if room == ROOM_NONE:
            break
        if room == ROOM_FOUND:
            if not _is_in_turn(w, queue):
                queue.resume = x
                return
            turns += 1
            count = queue.count
            queue_leave(w, x)
            x.in_turn = True
            turn(w, x)               # whatever becomes of it: of others in queues, nothing does
            if queue.count == count:
                return               # it is back: there is no room after all
        x = following
    if turns == 0:
        queue.yields_ms = 0


cdef void queue_run(Worker* w, queue_turn_t turn) noexcept nogil:
    cdef ExchangeQueue* queue
    cdef ExchangeQueue* following
    cdef int of_pools
    if not w.queues_due and w.queues_looked_ms == w.now_ms:
        return
    w.queues_due = False
    w.queues_looked_ms = w.now_ms
    for of_pools in range(2):
        queue = w.queues
        while queue != NULL:
            following = queue.next
            if queue.of_pool == of_pools:
                _serve(w, queue, turn)
            queue = following


# --- idle connections ---------------------------------------------------------------------

cdef void _look_at_idle_of(Worker* w, const PlanPool* pool, const PlanNode* node) noexcept nogil:
    cdef const NodeSlot* slot = &w.nodes.slots[node.slot]
    cdef uint32_t columns = w.snapshot.plan.columns
    cdef NodeConn* n = w.idle[node.slot]
    if n == NULL or node.max_connections == 0:
        return
    if not address_equal(&n.address, &node.address) or node_is_awaited(
            slot.waiting, columns, w.boot_ms, pool.queue_timeout) or node_is_awaited(
            w.nodes.pools[pool.slot].waiting, columns, w.boot_ms, pool.queue_timeout):
        upstream_drop_idle(w, node.slot)
        return
    while n != NULL and columns > 1 and node_open(slot, columns) >= node.max_connections:
        upstream_close(w, n, False)
        n = w.idle[node.slot]
    if n != NULL:
        timer_set(&w.timers, &w.queue_timer, w.now_ms + QUEUE_IDLE_LOOK_MS)


cdef void queue_look_at_idle(Worker* w) noexcept nogil:
    cdef const Plan* plan = w.snapshot.plan
    cdef const PlanPool* pool
    cdef uint32_t i, j
    for i in range(plan.pool_count):
        pool = plan_pool(plan, i)
        for j in range(pool.node_count):
            _look_at_idle_of(w, pool, plan_nodes(plan, pool) + j)


cdef void queue_free_all(Worker* w) noexcept nogil:
    cdef uint32_t i
    for i in range(<uint32_t> NODES_MAX):
        free(w.node_queues[i])
        free(w.pool_queues[i])
