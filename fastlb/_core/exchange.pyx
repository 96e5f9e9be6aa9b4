# The state machine of one request (contract in exchange.pxd).
#
# Functions named _on_* act on a result; those that may end the exchange return whether it
# is still there ("alive"), so that no caller uses what is freed.

from libc.stdint cimport uint32_t, uint64_t

from fastlb._core cimport system
from fastlb._core.answer cimport (
    ANSWER_ALIVE, ANSWER_NODE_LOST, answer_pump, answer_rules_done, answer_tunnel,
)
from fastlb._core.attempt cimport (
    ATTEMPT_FAILED, ATTEMPT_FULL, ATTEMPT_READY, ATTEMPT_WAITS, attempt_again, attempt_begin,
    attempt_connected, attempt_elsewhere, attempt_exchange, attempt_failed, attempt_input,
    attempt_may_retry, attempt_reset, attempt_turn,
)
from fastlb._core.body cimport body_start
from fastlb._core.bounds cimport bounds_of_body
from fastlb._core.buffer cimport Buffer, buffer_return
from fastlb._core.connection cimport (
    CLIENT_EXCHANGE, ClientConn, DONE_RESET, Exchange, NodeConn, STAGE_AWAIT, STAGE_CONNECT,
    STAGE_QUEUE, STAGE_RESPONSE, STAGE_RESPONSE_RULES, STAGE_RULES, STAGE_SEND, STAGE_TUNNEL,
    STREAM_ERROR, STREAM_HUP, STREAM_READABLE, STREAM_WRITABLE, Stream, Worker, post_client,
)
from fastlb._core.debug cimport BUG_ON, likely, unlikely
from fastlb._core.decide cimport decide
from fastlb._core.decision cimport (
    ACTION_CLOSE, ACTION_FORWARD, ACTION_NO_NODE, ACTION_REDIRECT, ACTION_WAIT, DecideInput,
)
from fastlb._core.exchange_end cimport exchange_abort, exchange_reply, exchange_uncount_load
from fastlb._core.forwarded cimport forwarded_client
from fastlb._core.head cimport (
    BODY_NONE, METHOD_CONNECT, Head, head_persists,
)
from fastlb._core.health cimport health_is_out
from fastlb._core.message cimport method_idempotent
from fastlb._core.outcome cimport (
    CAUSE_BAD_REQUEST, CAUSE_BAD_REQUEST_BODY, CAUSE_BAD_RESPONSE, CAUSE_BODY_TIMEOUT,
    CAUSE_BODY_TOO_LARGE, CAUSE_CLIENT_CLOSED, CAUSE_CLIENT_STALLED, CAUSE_CONNECT_FAILED,
    CAUSE_CONNECT_TIMEOUT, CAUSE_NODE_CLOSED, CAUSE_NODE_TIMEOUT, CAUSE_NONE, CAUSE_NOT_SUPPORTED,
    CAUSE_NO_BUFFER, CAUSE_NO_NODE, CAUSE_QUEUE_FULL, CAUSE_QUEUE_TIMEOUT, CAUSE_SESSION_CLOSED,
    CAUSE_SESSION_REDIRECTED, CAUSE_STOPPED, CAUSE_TUNNEL_TIMEOUT,
)
from fastlb._core.plan cimport (
    PROTOCOL_HTTP, PROTOCOL_HTTPS, SERVER_CLIENT_SUBJECT, PlanClass, PlanVirtualServer, plan_class,
    plan_pool, plan_text, plan_virtual_server,
)
from fastlb._core.queue cimport queue_enter, queue_follow, queue_time_over
from fastlb._core.relay cimport (
    FLOW_AGAIN, FLOW_BAD_BODY, FLOW_DONE, FLOW_NO_BUFFER, FLOW_SOURCE_END, FLOW_TARGET_FAILED,
    FLOW_TOO_LARGE, FLOW_WAIT_SOURCE, FLOW_WAIT_TARGET, flow_frame, flow_pending,
    flow_run, flow_send_head,
)
from fastlb._core.reply cimport reply_redirect_loops
from fastlb._core.request cimport (
    request_choose_pool, request_edit, request_ends_here, request_head_at, request_note,
    request_reload,
)
from fastlb._core.rules cimport (
    RULES_GO_ON, rules_before, rules_client_events, rules_timeout,
)
from fastlb._core.slice cimport Slice, slice_of
from fastlb._core.stream cimport stream_note
from fastlb._core.timer cimport timer_await, timer_clear, timer_set
from fastlb._core.upstream cimport upstream_close

cdef enum:
    CLOCK_STEP_MS = 10               # Worker.boot_ms is behind by up to this
    ASK_MS = 500                     # a client that has ended its side, while its answer is awaited
    ASK_AGAIN = 3                    # and again after that many times as long as it has waited

cdef const char* CONTINUE = "HTTP/1.1 100 Continue\r\n\r\n"


# --- beginning ----------------------------------------------------------------------------

# Whether a connection that began now would be one of this kind: a reload may have begun to ask for
# TLS, or for certificates, and who has been there before must not stay without.
cdef inline bint _is_as_demanded(const ClientConn* c,
                                 const PlanVirtualServer* server) noexcept nogil:
    if likely(c.stream.tls == NULL):
        return server.protocol == PROTOCOL_HTTP
    return server.protocol == PROTOCOL_HTTPS and (
        c.stream.tls.asked or not server.flags & SERVER_CLIENT_SUBJECT)


cdef void exchange_begin(Worker* w, ClientConn* c) noexcept nogil:
    cdef Exchange* x = attempt_exchange(w, c, CLIENT_EXCHANGE)
    cdef const Head* head = &w.request
    cdef int server = w.server_index[c.virtual_server_slot]
    cdef Buffer* buffer = c.buffer
    cdef bint bad_body
    if x == NULL:
        w.request_done(w, c, DONE_RESET)
        return
    c.buffer = NULL
    c.requests += 1
    x.up.data = buffer
    w.request_of = x
    request_note(x, head, buffer.start)
    x.up.keep = x.head_end
    timer_clear(&c.timer)
    x.client_closes = not head_persists(head)
    x.client_persists = not x.client_closes and not w.stopping
    body_start(&x.up.body, head.framing, head.content_length)
    bounds_of_body(&x.up.body, x.snapshot.plan)
    x.up.data_bytes_max = x.snapshot.plan.limits.body_bytes
    bad_body = flow_frame(&x.up, x.head_end, buffer.end - x.head_end) != 0
    if server < 0 or not _is_as_demanded(c, plan_virtual_server(x.snapshot.plan,
                                                                <uint32_t> server)):
        # The virtual server went with a reload, or changed; what is open on it ends.
        x.refused = True
        x.client_address = c.peer
        x.client_persists = False
        exchange_reply(w, x, 503, CAUSE_STOPPED)
        return
    x.server = plan_virtual_server(x.snapshot.plan, <uint32_t> server)
    x.client_address = c.peer
    if not c.nameless:
        forwarded_client(x.snapshot.plan, x.server, &c.peer, head, request_head_at(x),
                         &x.client_address)
    if x.server.route_count == 0:
        x.pool = plan_pool(x.snapshot.plan, x.server.pool)
    else:
        request_choose_pool(w, x)
    if bad_body:
        x.client_persists = False
        exchange_reply(w, x, 400, CAUSE_BAD_REQUEST_BODY)
        return
    if head.method == METHOD_CONNECT:
        x.client_persists = False
        exchange_reply(w, x, 501, CAUSE_NOT_SUPPORTED)
        return
    if request_ends_here(head, request_head_at(x)):
        exchange_reply(w, x, 501, CAUSE_NOT_SUPPORTED)
        return
    if _body_too_large(x, head.content_length) or _body_too_large(x, x.up.body.data_bytes):
        x.client_persists = False
        exchange_reply(w, x, 413, CAUSE_BODY_TOO_LARGE)
        return
    if unlikely(x.server.rule_count != 0) and rules_before(w, x) != RULES_GO_ON:
        return
    _decide(w, x)


cdef void _decide(Worker* w, Exchange* x) noexcept nogil:
    cdef DecideInput ask
    attempt_input(w, x, &ask)
    decide(&ask, &x.decision)
    _act(w, x)


cdef void exchange_rules_done(Worker* w, Exchange* x) noexcept nogil:
    if x.stage == STAGE_RULES:
        request_reload(w, x)
        if rules_before(w, x) == RULES_GO_ON:
            _decide(w, x)
    elif answer_rules_done(w, x) == ANSWER_ALIVE and x.stage != STAGE_RESPONSE_RULES:
        # What came from the client meanwhile has waited.
        post_client(w, x.client)


cdef inline bint _body_too_large(const Exchange* x, uint64_t count) noexcept nogil:
    cdef uint64_t most = x.snapshot.plan.limits.body_bytes
    return most != 0 and count > most


cdef void exchange_refuse(Worker* w, ClientConn* c, int status, int cause,
                          int head_error) noexcept nogil:
    cdef Exchange* x = attempt_exchange(w, c, CLIENT_EXCHANGE)
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
    exchange_reply(w, x, status, cause)


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
    if x.decision.action == ACTION_WAIT:
        return _wait(w, x)
    if x.decision.action == ACTION_REDIRECT and not _is_redirect_target(x):
        return exchange_reply(w, x, 302, CAUSE_SESSION_REDIRECTED)
    if x.decision.action == ACTION_CLOSE or x.decision.action == ACTION_REDIRECT:
        x.client_persists = False
        return exchange_reply(w, x, 503, CAUSE_SESSION_CLOSED)
    return exchange_reply(w, x, 503, CAUSE_NO_NODE)


cdef bint _try_node(Worker* w, Exchange* x, bint pooled) noexcept nogil:
    cdef int result = attempt_begin(w, x, pooled, _node_events)
    if likely(result == ATTEMPT_READY):
        return _send_request(w, x)
    if unlikely(result == ATTEMPT_FULL):
        return _wait(w, x)
    return result == ATTEMPT_WAITS or _on_connect_failed(w, x, CAUSE_CONNECT_FAILED)


# --- whether the client is still there ----------------------------------------------------

# A client that has closed its connection looks like one that has only sent all it has to say, until
# it is sent something: this, which every client of HTTP/1.1 passes over (RFC 9110 15.2.1). One that
# has closed answers with a reset, and its request is spared its node.
cdef bint _ask_whether_there(Worker* w, Exchange* x) noexcept nogil:
    if x.version_minor == 0:
        return True
    x.continued = True
    w.iov[0].iov_base = <char*> CONTINUE
    w.iov[0].iov_len = 25
    if flow_send_head(w, &x.client.stream, &x.down, w.iov, 1) == 0:
        return True
    exchange_abort(w, x, CAUSE_CLIENT_CLOSED)
    return False


# Its request is whole, and its node works on it: most answers come before it is asked.
cdef void _ask_later(Worker* w, Exchange* x) noexcept nogil:
    cdef uint64_t waited = (w.now_us - x.sent_us) // 1000
    if x.stage == STAGE_AWAIT and x.version_minor and x.down.head == NULL \
            and x.client.timer.deadline_ms == 0:
        timer_set(&w.timers, &x.client.timer, w.now_ms + ASK_MS + waited * ASK_AGAIN)


cdef void _ask_in_time(Worker* w, Exchange* x) noexcept nogil:
    if _ask_whether_there(w, x):
        _ask_later(w, x)


# --- in the queue -------------------------------------------------------------------------

cdef bint _wait(Worker* w, Exchange* x) noexcept nogil:
    if not queue_enter(w, x):
        return exchange_reply(w, x, 503, CAUSE_QUEUE_FULL)
    return _still_waits(w, x)


cdef bint _still_waits(Worker* w, Exchange* x) noexcept nogil:
    # Nothing is read here, so what matters is whether the end comes before the rest of the body.
    cdef char byte
    if not x.client.stream.ready & STREAM_HUP:
        return True
    if x.up.body.done:
        return x.continued or _ask_whether_there(w, x)
    if system.recv(x.client.stream.fd, &byte, 1, system.MSG_PEEK | system.MSG_DONTWAIT) != 0:
        return True
    x.client_persists = False
    return exchange_reply(w, x, 400, CAUSE_CLIENT_CLOSED)


cdef void exchange_turn(Worker* w, Exchange* x) noexcept nogil:
    cdef DecideInput ask
    request_reload(w, x)
    if queue_follow(w, x):
        request_choose_pool(w, x)
    attempt_input(w, x, &ask)
    attempt_turn(w, x, &ask)
    _act(w, x)


# --- the node's connection ----------------------------------------------------------------

cdef bint _on_connect_failed(Worker* w, Exchange* x, int cause) noexcept nogil:
    cause = attempt_again(w, x, cause)
    if cause == CAUSE_NONE:
        return _act(w, x)
    if cause == CAUSE_CONNECT_TIMEOUT:
        return exchange_reply(w, x, 504, cause)
    return exchange_reply(w, x, 502 if x.misnamed else 503, cause)


cdef bint _send_request(Worker* w, Exchange* x) noexcept nogil:
    cdef NodeConn* n = x.node
    cdef int count = request_edit(w, x)
    cdef int result
    x.stage = STAGE_SEND
    if count < 0:
        return exchange_reply(w, x, 431, CAUSE_BAD_REQUEST)
    x.sent_before = x.up.bytes
    x.connected_us = w.now_us
    result = flow_send_head(w, &n.stream, &x.up, w.iov, <uint32_t> count)
    if result == FLOW_TARGET_FAILED:
        return _on_node_lost(w, x)
    if result == FLOW_NO_BUFFER:
        return exchange_reply(w, x, 503, CAUSE_NO_BUFFER)
    x.sent_us = w.now_us
    x.stage = STAGE_AWAIT
    w.stats.nodes[n.slot].requests += 1
    if likely(x.up.body.done and not flow_pending(&x.up)):
        _await_answer(w, x)
        return True
    timer_clear(&n.timer)
    return _pump_up(w, x)


cdef inline void _await_answer(Worker* w, Exchange* x) noexcept nogil:
    timer_set(&w.timers, &x.node.timer, w.now_ms + x.snapshot.plan.timeouts.response)
    if unlikely(x.client.stream.ready & STREAM_HUP):
        _ask_later(w, x)


cdef bint _pump_up(Worker* w, Exchange* x) noexcept nogil:
    # The request's body, as far as it goes now.
    cdef ClientConn* c = x.client
    cdef NodeConn* n = x.node
    cdef uint64_t before = x.up.bytes
    cdef int result
    if not x.up.body.done and c.stream.ready & STREAM_READABLE:
        x.body_sent = True           # what is read now may take the place of what was sent
    result = flow_run(w, &c.stream, &n.stream, &x.up)
    if result == FLOW_TOO_LARGE or _body_too_large(x, x.up.body.data_bytes):
        x.client_persists = False
        return exchange_reply(w, x, 413, CAUSE_BODY_TOO_LARGE)
    if result == FLOW_DONE:
        timer_clear(&c.timer)
        _await_answer(w, x)
        return True
    if result == FLOW_WAIT_SOURCE:
        timer_clear(&n.timer)
        timer_await(&w.timers, &c.timer, w.now_ms + x.snapshot.plan.timeouts.client_body,
                    x.up.bytes != before)
        return True
    if result == FLOW_WAIT_TARGET:
        timer_clear(&c.timer)
        timer_await(&w.timers, &n.timer, w.now_ms + x.snapshot.plan.timeouts.response,
                    x.up.bytes != before)
        return True
    return _on_up_failed(w, x, result)


cdef bint _on_up_failed(Worker* w, Exchange* x, int result) noexcept nogil:
    if result == FLOW_AGAIN:
        post_client(w, x.client)
        return True
    if result == FLOW_TARGET_FAILED:
        if x.response_started:
            # The node answers without wanting the rest of the body.
            x.up.ended = True
            return True
        return _on_node_lost(w, x)
    x.client_persists = False
    if result == FLOW_BAD_BODY:
        return exchange_reply(w, x, 400, CAUSE_BAD_REQUEST_BODY)
    if result == FLOW_NO_BUFFER:
        return exchange_reply(w, x, 503, CAUSE_NO_BUFFER)
    if result == FLOW_SOURCE_END:
        # Half closed in the middle of its request: it may still read why.
        return exchange_reply(w, x, 400, CAUSE_CLIENT_CLOSED)
    exchange_abort(w, x, CAUSE_CLIENT_CLOSED)
    return False


cdef bint _repeatable(const Exchange* x) noexcept nogil:
    # RFC 9110 9.2.2, and all of the request still at hand. What never left us may be repeated
    # whatever it is.
    if x.body_sent:
        return False
    if x.up.bytes == x.sent_before:
        return True
    return method_idempotent(x.method)


cdef bint _pump_down(Worker* w, Exchange* x) noexcept nogil:
    cdef int result = answer_pump(w, x)
    return _on_node_lost(w, x) if result == ANSWER_NODE_LOST else result == ANSWER_ALIVE


cdef bint _on_node_lost(Worker* w, Exchange* x) noexcept nogil:
    # The node's connection ended before a byte of the response. A pooled one may have been
    # closed by the node while the request was on its way: that says nothing about the node.
    if x.response_started:
        return exchange_reply(w, x, 502, CAUSE_NODE_CLOSED)
    if not x.fresh and _repeatable(x):
        return _repeat_here(w, x)
    if _answer_waits(w, x):
        return _pump_down(w, x)
    if not x.fresh:
        return exchange_reply(w, x, 502, CAUSE_NODE_CLOSED)
    x.resets += 1
    w.stats.nodes[x.slot].resets += 1
    attempt_reset(w, x)
    if not _repeatable(x) or x.resets > x.pool.retries or not _may_fail_elsewhere(w, x) \
            or not attempt_may_retry(w, x):
        return exchange_reply(w, x, 502, CAUSE_NODE_CLOSED)
    if _stays_here(w, x):
        return _repeat_here(w, x)
    _let_node_go(w, x)
    _rewind(w, x)
    if attempt_elsewhere(w, x) == ACTION_NO_NODE:
        return exchange_reply(w, x, 502, CAUSE_NODE_CLOSED)
    return _act(w, x)


cdef bint _stays_here(Worker* w, const Exchange* x) noexcept nogil:
    # A session is with its node, which gets a second chance; unless it is known by now that
    # there is none.
    return x.decision.established and x.resets == 1 \
        and not health_is_out(x.pool, &w.nodes.slots[x.slot], w.boot_ms)


cdef bint _may_fail_elsewhere(Worker* w, const Exchange* x) noexcept nogil:
    # No session is moved for a request that its node does not survive, while it answers others.
    cdef uint64_t began_ms = w.boot_ms - (w.now_us - x.tried_us) // 1000
    return not x.decision.established or x.resets == 1 \
        or w.nodes.slots[x.slot].response_at_ms <= began_ms + CLOCK_STEP_MS


cdef void _let_node_go(Worker* w, Exchange* x) noexcept nogil:
    timer_clear(&x.client.timer)
    upstream_close(w, x.node, False)
    x.node = NULL
    exchange_uncount_load(w, x)


cdef bint _repeat_here(Worker* w, Exchange* x) noexcept nogil:
    _let_node_go(w, x)
    w.stats.retries += 1
    _rewind(w, x)
    return _try_node(w, x, False)


cdef bint _answer_waits(Worker* w, Exchange* x) noexcept nogil:
    # Sending failed, but the node may have answered before it closed ("413, go away"); the
    # event that tells of it may come later than that of the client.
    if x.stage >= STAGE_RESPONSE or x.up.ended:
        return False
    x.up.ended = True
    x.node_persists = False
    x.node.stream.ready |= STREAM_READABLE
    timer_set(&w.timers, &x.node.timer, w.now_ms + x.snapshot.plan.timeouts.response)
    return True


cdef void _rewind(Worker* w, Exchange* x) noexcept nogil:
    # Only while nothing of the body was read beyond the first buffer.
    BUG_ON(x.up.kept != NULL)
    x.up.ended = False
    x.up.bytes = x.sent_before       # the client has sent it once
    if x.up.head != NULL:
        buffer_return(&w.buffers, x.up.head)
        x.up.head = NULL
    request_reload(w, x)
    body_start(&x.up.body, w.request.framing, w.request.content_length)
    bounds_of_body(&x.up.body, x.snapshot.plan)
    flow_frame(&x.up, x.head_end, x.up.data.end - x.head_end)


cdef inline bint _came_before(const Worker* w, const Exchange* x) noexcept nogil:
    # Bytes on a pooled connection that were there when this turn's events were asked for, before
    # the request was sent: they can't be its answer.
    return (not x.fresh and x.sent_us == w.now_us and not x.response_started
            and x.stage < STAGE_RESPONSE and x.node.stream.tls == NULL
            and x.node.stream.ready & STREAM_READABLE != 0)


cdef void _node_events(Worker* w, Stream* s, uint32_t events) noexcept nogil:
    cdef NodeConn* n = <NodeConn*> s
    cdef Exchange* x = n.exchange
    cdef int result
    stream_note(s, events)
    if x.stage == STAGE_CONNECT:
        result = attempt_connected(w, x)
        if result == ATTEMPT_WAITS:
            return
        if result == ATTEMPT_FAILED:
            _on_connect_failed(w, x, CAUSE_CONNECT_FAILED)
            return
        if not _send_request(w, x):
            return
    elif x.stage == STAGE_TUNNEL:
        answer_tunnel(w, x)
        return
    elif x.stage == STAGE_RESPONSE_RULES:
        return
    elif unlikely(_came_before(w, x)):
        # What stands there must not be read any more: it looks like an answer.
        if _repeatable(x):
            _on_node_lost(w, x)
        else:
            exchange_reply(w, x, 502, CAUSE_BAD_RESPONSE)
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
        exchange_abort(w, x, CAUSE_CLIENT_CLOSED)
        return
    exchange_continue(w, c)


cdef void exchange_continue(Worker* w, ClientConn* c) noexcept nogil:
    cdef Exchange* x = c.exchange
    if x.stage == STAGE_TUNNEL:
        answer_tunnel(w, x)
        return
    if x.stage == STAGE_CONNECT:
        return
    if x.stage == STAGE_QUEUE:
        _still_waits(w, x)
        return
    if x.stage == STAGE_RULES or x.stage == STAGE_RESPONSE_RULES:
        rules_client_events(w, x)
        return
    if x.node != NULL and not x.up.ended and not x.up.body.done \
            and c.stream.ready & STREAM_READABLE:
        if not _pump_up(w, x):
            return
    if x.stage == STAGE_RESPONSE and c.stream.ready & STREAM_WRITABLE:
        _pump_down(w, x)
    elif x.stage < STAGE_RESPONSE and x.down.head != NULL:
        # An interim response that did not fit.
        _pump_down(w, x)
    elif x.stage == STAGE_AWAIT and x.up.body.done and c.stream.ready & STREAM_HUP:
        _ask_later(w, x)


cdef void exchange_client_timeout(Worker* w, ClientConn* c) noexcept nogil:
    cdef Exchange* x = c.exchange
    if x.stage == STAGE_TUNNEL:
        exchange_abort(w, x, CAUSE_TUNNEL_TIMEOUT)
    elif x.stage == STAGE_RULES or x.stage == STAGE_RESPONSE_RULES:
        rules_timeout(w, x)
    elif x.stage == STAGE_QUEUE:
        queue_time_over(w, x)
        exchange_reply(w, x, 503, CAUSE_QUEUE_TIMEOUT)
    elif x.stage == STAGE_RESPONSE or x.down.head != NULL:
        exchange_abort(w, x, CAUSE_CLIENT_STALLED)
    elif x.up.body.done:
        _ask_in_time(w, x)
    else:
        x.client_persists = False
        exchange_reply(w, x, 408, CAUSE_BODY_TIMEOUT)


cdef void exchange_node_timeout(Worker* w, NodeConn* n) noexcept nogil:
    cdef Exchange* x = n.exchange
    if x.stage == STAGE_CONNECT:
        _on_connect_failed(w, x, CAUSE_CONNECT_TIMEOUT)
    elif x.stage == STAGE_TUNNEL:
        exchange_abort(w, x, CAUSE_TUNNEL_TIMEOUT)
    elif x.stage == STAGE_RESPONSE:
        exchange_abort(w, x, CAUSE_NODE_TIMEOUT)
    else:
        if not x.response_started:
            attempt_failed(w, x)     # one slow page is outweighed by the others' answers
        exchange_reply(w, x, 504, CAUSE_NODE_TIMEOUT)


cdef void exchange_stop(Worker* w, ClientConn* c) noexcept nogil:
    if c.exchange.stage == STAGE_QUEUE:
        c.exchange.client_persists = False
        exchange_reply(w, c.exchange, 503, CAUSE_STOPPED)
    else:
        exchange_abort(w, c.exchange, CAUSE_STOPPED)
