# The state machine of one request (contract in exchange.pxd).
#
# Functions named _on_* act on a result; those that may end the exchange return whether it
# is still there ("alive"), so that no caller uses what is freed.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memcpy, memset

from fastlb._core cimport system
from fastlb._core.access_log cimport access_log_write
from fastlb._core.body cimport body_closed, body_start
from fastlb._core.buffer cimport (
    BUFFER_LARGE_BYTES, Buffer, buffer_borrow, buffer_pending, buffer_return, buffer_shrink,
)
from fastlb._core.connection cimport (
    CLIENT_EXCHANGE, DONE_CLOSE, DONE_KEEP, DONE_RESET, NODE_CONN_CONNECTING, STAGE_AWAIT,
    STAGE_CONNECT, STAGE_RESPONSE, STAGE_SEND, STAGE_TUNNEL, STREAM_ERROR, STREAM_HUP,
    STREAM_READABLE, STREAM_WRITABLE, ClientConn, Exchange, Flow, NodeConn, Stream, Worker,
)
from fastlb._core.debug cimport BUG_ON, likely
from fastlb._core.decide cimport (
    ACTION_CLOSE, ACTION_FORWARD, ACTION_NO_NODE, ACTION_REDIRECT, DecideInput, decide,
    decide_again, decide_answered, decision_reset,
)
from fastlb._core.forwarded cimport forwarded_client
from fastlb._core.head cimport (
    BODY_CHUNKED, BODY_NONE, BODY_UNTIL_CLOSE, FIELD_HOST, FIELD_REFERER, FIELD_USER_AGENT,
    HEAD_EXPECT_CONTINUE, HEAD_UPGRADE, Head, HeadLimits, METHOD_CONNECT, METHOD_DELETE, METHOD_GET,
    METHOD_HEAD, METHOD_OPTIONS, METHOD_PUT, METHOD_TRACE, head_persists, head_reset,
    response_head_parse,
)
from fastlb._core.node cimport node_feed_response
from fastlb._core.outcome cimport (
    CAUSE_BAD_REQUEST, CAUSE_BAD_REQUEST_BODY, CAUSE_BAD_RESPONSE, CAUSE_BAD_RESPONSE_BODY,
    CAUSE_BODY_TIMEOUT, CAUSE_BODY_TOO_LARGE, CAUSE_CLIENT_CLOSED, CAUSE_CLIENT_STALLED,
    CAUSE_CONNECT_FAILED, CAUSE_CONNECT_TIMEOUT, CAUSE_NODE_CLOSED, CAUSE_NODE_TIMEOUT, CAUSE_NONE,
    CAUSE_NO_BUFFER, CAUSE_NO_DESCRIPTOR, CAUSE_NO_NODE, CAUSE_NOT_SUPPORTED, CAUSE_SESSION_CLOSED,
    CAUSE_SESSION_REDIRECTED, CAUSE_STOPPED, CAUSE_TUNNEL_TIMEOUT, FOUND_RESERVATION,
)
from fastlb._core.plan cimport (
    LOG_OFF, Plan, PlanClass, PlanNode, plan_class, plan_nodes, plan_pool, plan_text,
    plan_virtual_server,
)
from fastlb._core.relay cimport (
    FLOW_AGAIN, FLOW_BAD_BODY, FLOW_DONE, FLOW_NO_BUFFER, FLOW_SOURCE_END, FLOW_SOURCE_FAILED,
    FLOW_TARGET_FAILED, FLOW_TOO_LARGE, FLOW_WAIT_SOURCE, FLOW_WAIT_TARGET, flow_end, flow_flush, flow_frame,
    flow_pending, flow_run, flow_send_head,
)
from fastlb._core.reply cimport reply_redirect_loops, reply_write
from fastlb._core.request cimport request_edit, request_head_at, request_reload
from fastlb._core.response cimport response_edit, response_edit_interim
from fastlb._core.route cimport route_host, route_pool
from fastlb._core.slice cimport Slice, slice_of
from fastlb._core.snapshot cimport snapshot_release
from fastlb._core.stats cimport ClassStats, VirtualServerStats
from fastlb._core.stream cimport STREAM_AGAIN, stream_note, stream_recv
from fastlb._core.timer cimport timer_clear, timer_set
from fastlb._core.tunnel cimport (
    TUNNEL_AGAIN, TUNNEL_ENDED, TUNNEL_OPEN, tunnel_run, tunnel_start,
)
from fastlb._core.upstream cimport (
    upstream_borrow, upstream_close, upstream_connect, upstream_connected, upstream_return,
)

cdef enum:
    INTERIMS_MAX = 32                # 1xx responses to one request


# --- beginning and end --------------------------------------------------------------------

cdef Exchange* _allocate(Worker* w, ClientConn* c) noexcept nogil:
    cdef Exchange* x = w.free_exchanges
    if likely(x != NULL):
        w.free_exchanges = x.next
        memset(x, 0, sizeof(Exchange))
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
    c.state = CLIENT_EXCHANGE
    return x


cdef void _decide_input(Worker* w, Exchange* x, DecideInput* ask) noexcept nogil:
    ask.request.plan = x.snapshot.plan
    ask.request.client = &x.client_address
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


cdef void _answered(Worker* w, Exchange* x, bint answered) noexcept nogil:
    cdef DecideInput ask
    if x.decision.holds_reservation:
        ask.request.plan = x.snapshot.plan
        ask.pool = x.pool
        ask.reservations = x.snapshot.reservations
        ask.now_ticks = w.now_ticks
        decide_answered(&ask, &x.decision, answered)


cdef void _count_load(Worker* w, Exchange* x) noexcept nogil:
    BUG_ON(x.counted)
    w.nodes.slots[x.slot].active[w.index] += 1
    x.counted = True


cdef void _uncount_load(Worker* w, Exchange* x) noexcept nogil:
    if x.counted:
        w.nodes.slots[x.slot].active[w.index] -= 1
        x.counted = False


cdef void _count(Worker* w, Exchange* x) noexcept nogil:
    cdef VirtualServerStats* server = &w.stats.virtual_servers[x.client.virtual_server_slot]
    cdef ClassStats* cls
    cdef uint32_t kind = x.status // 100
    server.requests += 1
    server.bytes_in += x.up.bytes
    server.bytes_out += x.down.bytes
    server.statuses[kind if kind < 6 else 0] += 1
    if x.cause:
        w.stats.causes[x.cause] += 1
    if x.decision.persistence < 0:
        return
    cls = &w.stats.classes[plan_class(x.snapshot.plan, <uint32_t> x.decision.persistence).slot]
    cls.outcomes[x.decision.outcome] += 1
    if x.decision.node >= 0 and not x.decision.established and x.status \
            and x.decision.found_in != FOUND_RESERVATION:
        w.stats.nodes[x.slot].sessions += 1
    cls.duplicates += x.decision.duplicates
    if x.decision.found_class >= 0 and x.decision.found_class != x.decision.persistence:
        cls.found_by_fallback += 1


cdef void _give_rest_back(ClientConn* c, Flow* up) noexcept nogil:
    # Bytes of a next request that were read with this one.
    cdef Buffer* data = up.data
    if data == NULL or not up.body.done or data.end <= up.run:
        return
    data.start = up.run
    c.buffer = data
    up.data = NULL


cdef void _end(Worker* w, Exchange* x, int how) noexcept nogil:
    cdef ClientConn* c = x.client
    if x.node != NULL:
        upstream_close(w, x.node, how == DONE_RESET)
        x.node = NULL
    _uncount_load(w, x)
    _answered(w, x, False)
    _count(w, x)
    if w.log.fd >= 0 and x.snapshot.plan.log_format != LOG_OFF:
        access_log_write(w, x)
    if w.request_of == x:
        w.request_of = NULL
    if how == DONE_KEEP:
        _give_rest_back(c, &x.up)
    flow_end(w, &x.up)
    flow_end(w, &x.down)
    snapshot_release(w, x.snapshot)
    c.exchange = NULL
    x.next = w.free_exchanges
    w.free_exchanges = x
    w.stats.exchanges -= 1
    w.request_done(w, c, how)


cdef void _abort(Worker* w, Exchange* x, int cause) noexcept nogil:
    # The answer can't be completed, or nobody waits for it: neither side may take it for whole.
    if x.cause == CAUSE_NONE:
        x.cause = <unsigned char> cause
    _end(w, x, DONE_RESET)


cdef bint _said_all(Worker* w, NodeConn* n) noexcept nogil:
    # A read of just the body's rest does not tell whether the socket is empty now, and there may
    # be no other edge: bytes behind the response must not become the answer of the next request.
    if likely(not n.stream.ready & STREAM_READABLE):
        return True
    return stream_recv(&n.stream, w.joined, 1) == STREAM_AGAIN


cdef void _finish(Worker* w, Exchange* x) noexcept nogil:
    # The whole response has been sent.
    cdef NodeConn* n = x.node
    cdef bint request_sent = x.up.body.done and not flow_pending(&x.up)
    cdef bint dirty = x.down.data != NULL and x.down.data.end > x.down.run
    if n != NULL:
        x.node = NULL
        if x.node_persists and request_sent and not dirty and not x.up.ended \
                and not n.stream.ready & (STREAM_HUP | STREAM_ERROR) and _said_all(w, n):
            upstream_return(w, n)
        else:
            upstream_close(w, n, not request_sent)
    _end(w, x, DONE_KEEP if x.client_persists and request_sent else DONE_CLOSE)


cdef bint _reply(Worker* w, Exchange* x, int status, int cause) noexcept nogil:
    # An answer of our own. Not alive after it, or still being sent.
    if x.stage >= STAGE_RESPONSE or x.down.head != NULL:
        # Another answer, or a part of an interim one, is on its way already.
        _abort(w, x, cause)
        return False
    if x.node != NULL:
        upstream_close(w, x.node, True)
        x.node = NULL
    _uncount_load(w, x)
    x.status = <unsigned short> status
    x.cause = <unsigned char> cause
    _drop_request(w, x)
    flow_end(w, &x.down)
    x.down.data = buffer_borrow(&w.buffers, False)
    if x.down.data == NULL:
        _abort(w, x, cause)
        return False
    body_start(&x.down.body, BODY_NONE, 0)
    x.down.decode = False
    x.down.run = 0
    x.down.run_bytes = reply_write(w, x, x.down.data.data, x.down.data.size)
    BUG_ON(x.down.run_bytes == 0)
    x.down.data.end = x.down.run_bytes
    x.response_started = True
    x.stage = STAGE_RESPONSE
    return _pump_down(w, x)


cdef void _drop_request(Worker* w, Exchange* x) noexcept nogil:
    # Nothing more of this request is sent. One that has not arrived whole ends the connection:
    # its rest is no next request.
    if not x.up.body.done:
        x.client_persists = False
    if x.up.head != NULL:
        buffer_return(&w.buffers, x.up.head)
        x.up.head = NULL
    x.up.run += x.up.run_bytes
    x.up.run_bytes = 0


cdef void _note_request(Exchange* x, const Head* head, uint32_t start) noexcept nogil:
    # What is needed of the head after it was sent; offsets in the buffer.
    x.head_start = start
    x.head_end = start + head.bytes
    x.method_at = start + head.line_start
    x.method_bytes = head.method_bytes
    x.target = start + head.target
    x.target_bytes = head.target_bytes
    x.method = head.method
    x.version_minor = head.version_minor
    x.upgrade = head.flags & HEAD_UPGRADE != 0
    x.expect_continue = head.flags & HEAD_EXPECT_CONTINUE != 0
    if head.first[FIELD_REFERER] >= 0:
        x.referer = start + head.fields[head.first[FIELD_REFERER]].value
        x.referer_bytes = head.fields[head.first[FIELD_REFERER]].value_bytes
    if head.first[FIELD_USER_AGENT] >= 0:
        x.user_agent = start + head.fields[head.first[FIELD_USER_AGENT]].value
        x.user_agent_bytes = head.fields[head.first[FIELD_USER_AGENT]].value_bytes
    if head.authority_bytes:
        x.host = start + head.authority
        x.host_bytes = head.authority_bytes
    elif head.first[FIELD_HOST] >= 0:
        x.host = start + head.fields[head.first[FIELD_HOST]].value
        x.host_bytes = head.fields[head.first[FIELD_HOST]].value_bytes


cdef void _choose_pool(Worker* w, Exchange* x) noexcept nogil:
    cdef const Plan* plan = x.snapshot.plan
    cdef const char* data = x.up.data.data
    cdef Slice path
    if x.server.route_count == 0:
        x.pool = plan_pool(plan, x.server.pool)
        return
    path = slice_of(data + x.head_start + w.request.path, w.request.path_bytes)
    x.pool = plan_pool(plan, route_pool(
        plan, x.server, route_host(slice_of(data + x.host, x.host_bytes)), path))


cdef void exchange_begin(Worker* w, ClientConn* c) noexcept nogil:
    cdef Exchange* x = _allocate(w, c)
    cdef const Head* head = &w.request
    cdef int server = w.server_index[c.virtual_server_slot]
    cdef DecideInput ask
    cdef Buffer* buffer = c.buffer
    cdef bint bad_body
    if x == NULL:
        w.request_done(w, c, DONE_RESET)
        return
    c.buffer = NULL
    c.requests += 1
    x.up.data = buffer
    w.request_of = x
    _note_request(x, head, buffer.start)
    x.up.keep = x.head_end
    timer_clear(&c.timer)
    x.client_persists = head_persists(head) and not w.stopping
    body_start(&x.up.body, head.framing, head.content_length)
    x.up.data_bytes_max = x.snapshot.plan.limits.body_bytes
    bad_body = flow_frame(&x.up, x.head_end, buffer.end - x.head_end) != 0
    if server < 0:
        # The virtual server went with a reload; what is open on it ends.
        x.refused = True
        x.client_persists = False
        _reply(w, x, 503, CAUSE_STOPPED)
        return
    x.server = plan_virtual_server(x.snapshot.plan, <uint32_t> server)
    forwarded_client(x.snapshot.plan, x.server, &c.peer, head, request_head_at(x),
                     &x.client_address)
    _choose_pool(w, x)
    if bad_body:
        x.client_persists = False
        _reply(w, x, 400, CAUSE_BAD_REQUEST_BODY)
        return
    if head.method == METHOD_CONNECT:
        x.client_persists = False
        _reply(w, x, 501, CAUSE_NOT_SUPPORTED)
        return
    if _body_too_large(x, head.content_length) or _body_too_large(x, x.up.body.data_bytes):
        x.client_persists = False
        _reply(w, x, 413, CAUSE_BODY_TOO_LARGE)
        return
    _decide_input(w, x, &ask)
    decide(&ask, &x.decision)
    _act(w, x)


cdef inline bint _body_too_large(const Exchange* x, uint64_t count) noexcept nogil:
    cdef uint64_t most = x.snapshot.plan.limits.body_bytes
    return most != 0 and count > most


cdef void exchange_refuse(Worker* w, ClientConn* c, int status, int cause,
                          int head_error) noexcept nogil:
    cdef Exchange* x = _allocate(w, c)
    cdef int server = w.server_index[c.virtual_server_slot]
    if x == NULL:
        w.request_done(w, c, DONE_RESET)
        return
    x.refused = True
    x.head_error = <unsigned char> -head_error
    x.client_address = c.peer
    x.version_minor = 1
    x.server = plan_virtual_server(x.snapshot.plan, <uint32_t> (server if server >= 0 else 0))
    # What the client sent is no request and no next one either.
    x.up.data = c.buffer
    c.buffer = NULL
    x.client_persists = False
    body_start(&x.up.body, BODY_NONE, 0)
    _reply(w, x, status, cause)


# --- towards the node ---------------------------------------------------------------------

cdef bint _is_redirect_target(const Exchange* x) noexcept nogil:
    # A client that asks for the very page it would be sent to is not sent there again.
    cdef const PlanClass* cls = plan_class(x.snapshot.plan, <uint32_t> x.decision.found_class)
    cdef Slice url = slice_of(plan_text(x.snapshot.plan, cls.redirect_url), cls.redirect_url.bytes)
    cdef const char* base = request_head_at(x) - x.head_start
    return reply_redirect_loops(url, slice_of(base + x.host, x.host_bytes),
                                slice_of(base + x.target, x.target_bytes))


cdef bint _act(Worker* w, Exchange* x) noexcept nogil:
    if x.decision.action == ACTION_FORWARD:
        return _try_node(w, x, True)
    if x.decision.action == ACTION_REDIRECT and not _is_redirect_target(x):
        return _reply(w, x, 302, CAUSE_SESSION_REDIRECTED)
    if x.decision.action == ACTION_CLOSE or x.decision.action == ACTION_REDIRECT:
        x.client_persists = False
        return _reply(w, x, 503, CAUSE_SESSION_CLOSED)
    return _reply(w, x, 503, CAUSE_NO_NODE)


cdef bint _try_node(Worker* w, Exchange* x, bint pooled) noexcept nogil:
    cdef const PlanNode* node = plan_nodes(x.snapshot.plan, x.pool) + x.decision.node
    cdef NodeConn* n = NULL
    x.slot = node.slot
    _count_load(w, x)
    w.nodes.slots[node.slot].used_at_ms = w.boot_ms
    if pooled:
        n = upstream_borrow(w, node.slot, &node.address)
    x.fresh = n == NULL
    if n == NULL:
        n = upstream_connect(w, node.slot, &node.address)
        if n == NULL:
            return _on_connect_failed(w, x, CAUSE_CONNECT_FAILED)
    x.node = n
    n.exchange = x
    n.stream.on_events = _node_events
    if n.state == NODE_CONN_CONNECTING:
        x.stage = STAGE_CONNECT
        timer_set(&w.timers, &n.timer, w.now_ms + x.snapshot.plan.timeouts.connect)
        return True
    return _send_request(w, x)


cdef bint _on_connect_failed(Worker* w, Exchange* x, int cause) noexcept nogil:
    cdef DecideInput ask
    cdef int error = w.connect_errno
    if x.node != NULL:
        error = 0
        upstream_close(w, x.node, False)
        x.node = NULL
    _uncount_load(w, x)
    if error in (system.EMFILE, system.ENFILE, system.ENOMEM, system.ENOBUFS):
        return _reply(w, x, 503, CAUSE_NO_DESCRIPTOR)
    w.stats.nodes[x.slot].connect_failures += 1
    request_reload(w, x)
    _decide_input(w, x, &ask)
    decide_again(&ask, &x.decision)
    if x.decision.action == ACTION_FORWARD:
        if x.retries >= x.pool.retries:
            return _reply(w, x, 504 if cause == CAUSE_CONNECT_TIMEOUT else 503, cause)
        x.retries += 1
        w.stats.retries += 1
    elif x.decision.action == ACTION_NO_NODE:
        return _reply(w, x, 504 if cause == CAUSE_CONNECT_TIMEOUT else 503, cause)
    return _act(w, x)


cdef bint _send_request(Worker* w, Exchange* x) noexcept nogil:
    cdef NodeConn* n = x.node
    cdef int count = request_edit(w, x)
    cdef int result
    x.stage = STAGE_SEND
    if count < 0:
        return _reply(w, x, 431, CAUSE_BAD_REQUEST)
    x.sent_before = x.up.bytes
    x.connected_us = w.now_us
    result = flow_send_head(w, &n.stream, &x.up, w.iov, <uint32_t> count)
    if result == FLOW_TARGET_FAILED:
        return _on_node_lost(w, x)
    if result == FLOW_NO_BUFFER:
        return _reply(w, x, 503, CAUSE_NO_BUFFER)
    x.sent_us = w.now_us
    x.stage = STAGE_AWAIT
    w.stats.nodes[n.slot].requests += 1
    if likely(x.up.body.done and not flow_pending(&x.up)):
        timer_set(&w.timers, &n.timer, w.now_ms + x.snapshot.plan.timeouts.response)
        return True
    return _pump_up(w, x)


cdef bint _pump_up(Worker* w, Exchange* x) noexcept nogil:
    # The request's body, as far as it goes now.
    cdef ClientConn* c = x.client
    cdef NodeConn* n = x.node
    cdef int result
    if not x.up.body.done:
        x.body_sent = True
    result = flow_run(w, &c.stream, &n.stream, &x.up)
    if result == FLOW_TOO_LARGE or _body_too_large(x, x.up.body.data_bytes):
        x.client_persists = False
        return _reply(w, x, 413, CAUSE_BODY_TOO_LARGE)
    if result == FLOW_DONE:
        timer_clear(&c.timer)
        timer_set(&w.timers, &n.timer, w.now_ms + x.snapshot.plan.timeouts.response)
        return True
    if result == FLOW_WAIT_SOURCE:
        timer_clear(&n.timer)
        timer_set(&w.timers, &c.timer, w.now_ms + x.snapshot.plan.timeouts.client_body)
        return True
    if result == FLOW_WAIT_TARGET:
        timer_clear(&c.timer)
        timer_set(&w.timers, &n.timer, w.now_ms + x.snapshot.plan.timeouts.response)
        return True
    return _on_up_failed(w, x, result)


cdef bint _on_up_failed(Worker* w, Exchange* x, int result) noexcept nogil:
    if result == FLOW_AGAIN:
        _post(w, x.client)
        return True
    if result == FLOW_TARGET_FAILED:
        if x.response_started:
            # The node answers without wanting the rest of the body.
            x.up.ended = True
            return True
        return _on_node_lost(w, x)
    x.client_persists = False
    if result == FLOW_BAD_BODY:
        return _reply(w, x, 400, CAUSE_BAD_REQUEST_BODY)
    if result == FLOW_NO_BUFFER:
        return _reply(w, x, 503, CAUSE_NO_BUFFER)
    if result == FLOW_SOURCE_END:
        # Half closed in the middle of its request: it may still read why.
        return _reply(w, x, 400, CAUSE_CLIENT_CLOSED)
    _abort(w, x, CAUSE_CLIENT_CLOSED)
    return False


cdef bint _repeatable(const Exchange* x) noexcept nogil:
    # RFC 9110 9.2.2, and all of the request still at hand. What never left us may be repeated
    # whatever it is.
    if x.body_sent:
        return False
    if x.up.bytes == x.sent_before:
        return True
    return x.method in (METHOD_GET, METHOD_HEAD, METHOD_PUT, METHOD_DELETE, METHOD_OPTIONS,
                        METHOD_TRACE)


cdef bint _on_node_lost(Worker* w, Exchange* x) noexcept nogil:
    # The node's connection ended before a byte of the response. A pooled one may have been
    # closed by the node while the request was on its way: that says nothing about the node.
    cdef NodeConn* n = x.node
    if x.response_started:
        return _reply(w, x, 502, CAUSE_NODE_CLOSED)
    if x.fresh or not _repeatable(x):
        if _answer_waits(w, x):
            return _pump_down(w, x)
        return _reply(w, x, 502, CAUSE_NODE_CLOSED)
    upstream_close(w, n, False)
    x.node = NULL
    _uncount_load(w, x)
    w.stats.retries += 1
    _rewind(w, x)
    return _try_node(w, x, False)


cdef bint _answer_waits(Worker* w, Exchange* x) noexcept nogil:
    # Sending failed, but the node may have answered before it closed ("413, go away").
    if x.stage >= STAGE_RESPONSE or not x.node.stream.ready & STREAM_READABLE or x.up.ended:
        return False
    x.up.ended = True
    x.node_persists = False
    return True


cdef void _rewind(Worker* w, Exchange* x) noexcept nogil:
    # Only while nothing of the body was read beyond the first buffer.
    BUG_ON(x.up.kept != NULL)
    if x.up.head != NULL:
        buffer_return(&w.buffers, x.up.head)
        x.up.head = NULL
    request_reload(w, x)
    body_start(&x.up.body, w.request.framing, w.request.content_length)
    flow_frame(&x.up, x.head_end, x.up.data.end - x.head_end)


# --- the response -------------------------------------------------------------------------

cdef bint _pump_down(Worker* w, Exchange* x) noexcept nogil:
    cdef ClientConn* c = x.client
    cdef Stream* source              # NULL: the answer is our own, and all there
    cdef int result
    if x.stage < STAGE_RESPONSE:
        if not _read_head(w, x):
            return False
        if x.stage != STAGE_RESPONSE:
            return True
    source = &x.node.stream if x.node != NULL else NULL
    result = flow_run(w, source, &c.stream, &x.down)
    if likely(result == FLOW_DONE):
        _finish(w, x)
        return False
    if result == FLOW_WAIT_SOURCE:
        timer_set(&w.timers, &x.node.timer, w.now_ms + x.snapshot.plan.timeouts.response)
        if x.up.body.done:
            timer_clear(&c.timer)
        return True
    if result == FLOW_WAIT_TARGET:
        if x.node != NULL:
            timer_clear(&x.node.timer)
        timer_set(&w.timers, &c.timer, w.now_ms + x.snapshot.plan.timeouts.client_body)
        return True
    return _on_down_failed(w, x, result)


cdef bint _on_down_failed(Worker* w, Exchange* x, int result) noexcept nogil:
    if result == FLOW_AGAIN:
        _post(w, x.client)
        return True
    if result == FLOW_SOURCE_END and body_closed(&x.down.body):
        x.node_persists = False
        _finish(w, x)
    elif result == FLOW_SOURCE_END or result == FLOW_SOURCE_FAILED:
        _abort(w, x, CAUSE_NODE_CLOSED)
    elif result == FLOW_BAD_BODY:
        _abort(w, x, CAUSE_BAD_RESPONSE_BODY)
    elif result == FLOW_NO_BUFFER:
        _abort(w, x, CAUSE_NO_BUFFER)
    else:
        _abort(w, x, CAUSE_CLIENT_CLOSED)
    return False


cdef bint _room_for_head(Worker* w, Exchange* x) noexcept nogil:
    cdef Buffer* data = x.down.data
    cdef Buffer* larger
    if data == NULL:
        x.down.data = buffer_borrow(&w.buffers, False)
        return x.down.data != NULL
    if data.end < data.size:
        return True
    if data.start:
        memcpy(data.data, data.data + data.start, buffer_pending(data))
        data.end -= data.start
        data.start = 0
        return True
    if data.size >= BUFFER_LARGE_BYTES:
        return False
    larger = buffer_borrow(&w.buffers, True)
    if larger == NULL:
        return False
    memcpy(larger.data, data.data, data.end)
    larger.end = data.end
    buffer_return(&w.buffers, data)
    x.down.data = larger
    return True


cdef bint _read_head(Worker* w, Exchange* x) noexcept nogil:
    # Reads and parses until the final response's head is there and sent on.
    cdef NodeConn* n = x.node
    cdef Buffer* data
    cdef int64_t got
    while n.stream.ready & STREAM_READABLE:
        if not _room_for_head(w, x):
            return _reply(w, x, 502 if x.down.data != NULL else 503,
                          CAUSE_BAD_RESPONSE if x.down.data != NULL else CAUSE_NO_BUFFER)
        data = x.down.data
        got = stream_recv(&n.stream, data.data + data.end, data.size - data.end)
        if got == STREAM_AGAIN:
            break
        if got < 0:
            if x.up.ended and not x.response_started:
                return _reply(w, x, 502, CAUSE_NODE_CLOSED)
            return _on_node_lost(w, x)
        data.end += <uint32_t> got
        if not x.response_started:
            x.response_started = True
            x.first_byte_us = w.now_us
        if not _parse_head(w, x):
            return False
        if x.stage >= STAGE_RESPONSE:
            return True
    if x.down.data != NULL and buffer_pending(x.down.data) == 0:
        buffer_return(&w.buffers, x.down.data)
        x.down.data = NULL
    return True


cdef bint _parse_head(Worker* w, Exchange* x) noexcept nogil:
    # What has arrived of it; 1xx responses are passed on and the next head is looked for.
    cdef const Plan* plan = x.snapshot.plan
    cdef Buffer* data = x.down.data
    cdef HeadLimits limits
    cdef int parsed
    limits.request_line_bytes = plan.limits.request_line_bytes
    limits.field_bytes = 0
    limits.head_bytes = plan.limits.head_bytes
    limits.field_count = plan.limits.field_count
    while x.stage < STAGE_RESPONSE:
        head_reset(&w.response)
        parsed = response_head_parse(&w.response, data.data + data.start, buffer_pending(data),
                                     &limits, x.method)
        if parsed == 0:
            return True
        if parsed < 0:
            w.stats.head_errors[-parsed] += 1
            x.head_error = <unsigned char> -parsed
            return _reply(w, x, 502, CAUSE_BAD_RESPONSE)
        if w.response.status == 101:
            if not x.upgrade:
                return _reply(w, x, 502, CAUSE_BAD_RESPONSE)
            return _begin_tunnel(w, x)
        if w.response.status >= 200:
            return _begin_response(w, x)
        if not _pass_interim(w, x):
            return False
    return True


cdef bint _pass_interim(Worker* w, Exchange* x) noexcept nogil:
    # RFC 9110 15.2: never to a 1.0 client; the final response is still to come.
    cdef Buffer* data = x.down.data
    cdef const char* buf = data.data + data.start
    cdef int count
    x.interims += 1
    if x.interims > INTERIMS_MAX:
        return _reply(w, x, 502, CAUSE_BAD_RESPONSE)
    if x.version_minor == 1:
        if x.down.head != NULL:
            # The client does not even take the interim before this one.
            _abort(w, x, CAUSE_CLIENT_STALLED)
            return False
        count = response_edit_interim(w, buf)
        if count < 0:
            return _reply(w, x, 502, CAUSE_BAD_RESPONSE)
        x.down.run_bytes = 0
        if flow_send_head(w, &x.client.stream, &x.down, w.iov, <uint32_t> count) != 0:
            _abort(w, x, CAUSE_CLIENT_CLOSED)
            return False
    data.start += w.response.bytes
    return True


cdef bint _begin_response(Worker* w, Exchange* x) noexcept nogil:
    cdef const Head* head = &w.response
    cdef Buffer* data = x.down.data
    cdef uint32_t body = data.start + head.bytes
    cdef bint bad_body
    cdef int count
    x.status = head.status
    x.node_persists = head_persists(head)
    body_start(&x.down.body, head.framing, head.content_length)
    if head.framing == BODY_CHUNKED and x.version_minor == 0:
        x.down.decode = True
        x.client_persists = False
    if head.framing == BODY_UNTIL_CLOSE or not x.up.body.done or w.stopping:
        x.client_persists = False
    bad_body = flow_frame(&x.down, body, data.end - body) != 0
    count = response_edit(w, x, data.data + data.start)
    if count < 0:
        return _reply(w, x, 502, CAUSE_BAD_RESPONSE)
    if x.down.head != NULL:
        return _queue_head(w, x, <uint32_t> count)
    node_feed_response(&w.nodes.slots[x.slot], x.first_byte_us - x.sent_us, w.boot_ms)
    _answered(w, x, True)
    x.stage = STAGE_RESPONSE
    count = flow_send_head(w, &x.client.stream, &x.down, w.iov, <uint32_t> count)
    if count == FLOW_NO_BUFFER:
        _abort(w, x, CAUSE_NO_BUFFER)
        return False
    if count != 0:
        _abort(w, x, CAUSE_CLIENT_CLOSED)
        return False
    if bad_body:
        flow_flush(w, &x.client.stream, &x.down)
        _abort(w, x, CAUSE_BAD_RESPONSE_BODY)
        return False
    return True


cdef bint _queue_head(Worker* w, Exchange* x, uint32_t count) noexcept nogil:
    # An interim response is still waiting in front of this head.
    cdef Buffer* waiting = x.down.head
    cdef uint32_t i
    for i in range(count):
        if waiting.end + w.iov[i].iov_len > waiting.size:
            _abort(w, x, CAUSE_CLIENT_STALLED)
            return False
        memcpy(waiting.data + waiting.end, w.iov[i].iov_base, w.iov[i].iov_len)
        waiting.end += <uint32_t> w.iov[i].iov_len
    _answered(w, x, True)
    x.stage = STAGE_RESPONSE
    return True


cdef bint _begin_tunnel(Worker* w, Exchange* x) noexcept nogil:
    # What came behind either head belongs to the other protocol already.
    cdef Buffer* data = x.down.data
    cdef uint32_t body = data.start + w.response.bytes
    cdef uint32_t rest
    cdef int count
    if not x.up.body.done or flow_pending(&x.up) or x.up.kept != NULL:
        # A request whose body is still under way can't become another protocol.
        return _reply(w, x, 502, CAUSE_BAD_RESPONSE)
    rest = x.up.data.end - x.up.run
    x.status = 101
    x.client_persists = False
    tunnel_start(&x.up)
    tunnel_start(&x.down)
    count = response_edit(w, x, data.data + data.start)
    if count < 0:
        return _reply(w, x, 502, CAUSE_BAD_RESPONSE)
    flow_frame(&x.up, x.up.run, rest)
    flow_frame(&x.down, body, data.end - body)
    _answered(w, x, True)
    x.stage = STAGE_TUNNEL
    count = flow_send_head(w, &x.client.stream, &x.down, w.iov, <uint32_t> count)
    if count != 0:
        _abort(w, x, CAUSE_CLIENT_CLOSED)
        return False
    if rest == 0:
        _shrink_head(w, x)
    return _run_tunnel(w, x)


cdef void _shrink_head(Worker* w, Exchange* x) noexcept nogil:
    # A tunnel may stay for hours: only the head's own bytes are kept for the access log.
    cdef uint32_t start = x.head_start
    cdef Buffer* small = buffer_shrink(&w.buffers, x.up.data, start, x.head_end - start)
    if small == x.up.data:
        return
    x.up.data = NULL
    x.up.kept = small
    x.up.keep = 0
    x.head_start = 0
    x.head_end -= start
    x.method_at -= start
    x.target -= start
    x.host -= start if x.host_bytes else 0
    x.referer -= start if x.referer_bytes else 0
    x.user_agent -= start if x.user_agent_bytes else 0


cdef bint _run_tunnel(Worker* w, Exchange* x) noexcept nogil:
    cdef int result = tunnel_run(w, &x.client.stream, &x.node.stream, &x.up, &x.down)
    cdef uint64_t deadline = w.now_ms + x.snapshot.plan.timeouts.tunnel
    if result == TUNNEL_OPEN or result == TUNNEL_AGAIN:
        timer_clear(&x.client.timer)
        timer_set(&w.timers, &x.node.timer, deadline)
        if result == TUNNEL_AGAIN:
            _post(w, x.client)
        return True
    if result == TUNNEL_ENDED:
        _end(w, x, DONE_CLOSE)
    else:
        _abort(w, x, CAUSE_NODE_CLOSED if x.node.stream.ready & STREAM_ERROR
               else CAUSE_CLIENT_CLOSED)
    return False


# --- events and timers --------------------------------------------------------------------

cdef void _post(Worker* w, ClientConn* c) noexcept nogil:
    if not c.posted:
        c.posted = True
        c.next = w.posted
        w.posted = c


cdef void _node_events(Worker* w, Stream* s, uint32_t events) noexcept nogil:
    cdef NodeConn* n = <NodeConn*> s
    cdef Exchange* x = n.exchange
    cdef int error
    stream_note(s, events)
    if x.stage == STAGE_CONNECT:
        error = upstream_connected(n)
        if error:
            _on_connect_failed(w, x, CAUSE_CONNECT_FAILED)
            return
        if not s.ready & STREAM_WRITABLE:
            return
        if not _send_request(w, x):
            return
    elif x.stage == STAGE_TUNNEL:
        _run_tunnel(w, x)
        return
    elif not x.up.ended and s.ready & STREAM_WRITABLE and (
            flow_pending(&x.up) or not x.up.body.done):
        if not _pump_up(w, x):
            return
    if s.ready & STREAM_READABLE and x.node == n:
        _pump_down(w, x)


cdef void exchange_client_events(Worker* w, ClientConn* c, uint32_t events) noexcept nogil:
    cdef Exchange* x = c.exchange
    stream_note(&c.stream, events)
    if c.stream.ready & STREAM_ERROR:
        _abort(w, x, CAUSE_CLIENT_CLOSED)
        return
    exchange_continue(w, c)


cdef void exchange_continue(Worker* w, ClientConn* c) noexcept nogil:
    cdef Exchange* x = c.exchange
    if x.stage == STAGE_TUNNEL:
        _run_tunnel(w, x)
        return
    if x.stage == STAGE_CONNECT:
        return
    if x.node != NULL and not x.up.ended and not x.up.body.done \
            and c.stream.ready & STREAM_READABLE:
        if not _pump_up(w, x):
            return
    if x.stage == STAGE_RESPONSE and c.stream.ready & STREAM_WRITABLE:
        _pump_down(w, x)
    elif x.stage < STAGE_RESPONSE and x.down.head != NULL:
        # An interim response that did not fit.
        if flow_flush(w, &c.stream, &x.down) == FLOW_TARGET_FAILED:
            _abort(w, x, CAUSE_CLIENT_CLOSED)


cdef void exchange_client_timeout(Worker* w, ClientConn* c) noexcept nogil:
    cdef Exchange* x = c.exchange
    if x.stage == STAGE_TUNNEL:
        _abort(w, x, CAUSE_TUNNEL_TIMEOUT)
    elif x.stage == STAGE_RESPONSE:
        _abort(w, x, CAUSE_CLIENT_STALLED)
    else:
        x.client_persists = False
        _reply(w, x, 408, CAUSE_BODY_TIMEOUT)


cdef void exchange_node_timeout(Worker* w, NodeConn* n) noexcept nogil:
    cdef Exchange* x = n.exchange
    if x.stage == STAGE_CONNECT:
        _on_connect_failed(w, x, CAUSE_CONNECT_TIMEOUT)
    elif x.stage == STAGE_TUNNEL:
        _abort(w, x, CAUSE_TUNNEL_TIMEOUT)
    elif x.stage == STAGE_RESPONSE:
        _abort(w, x, CAUSE_NODE_TIMEOUT)
    else:
        _reply(w, x, 504, CAUSE_NODE_TIMEOUT)


cdef void exchange_stop(Worker* w, ClientConn* c) noexcept nogil:
    _abort(w, c.exchange, CAUSE_STOPPED)
