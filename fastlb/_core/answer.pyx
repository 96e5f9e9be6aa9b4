# The response on its way from the node to the client (contract in answer.pxd).
#
# ANSWER_ALIVE and ANSWER_ENDED are True and False, so what only can tell those two is a bint.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from fastlb._core.attempt cimport attempt_answered
from fastlb._core.body cimport body_closed, body_start
from fastlb._core.bounds cimport bounds_of_body, bounds_of_heads
from fastlb._core.buffer cimport (
    BUFFER_LARGE_BYTES, Buffer, buffer_borrow, buffer_pending, buffer_return, buffer_shrink,
)
from fastlb._core.connection cimport (
    ClientConn, DONE_CLOSE, Exchange, NodeConn, STAGE_RESPONSE, STAGE_RESPONSE_RULES,
    STAGE_TUNNEL, STREAM_ERROR, STREAM_READABLE, Stream, Worker, post_client,
)
from fastlb._core.debug cimport likely, unlikely
from fastlb._core.exchange_end cimport (
    exchange_abort, exchange_answered, exchange_end, exchange_finish, exchange_learn,
    exchange_reply,
)
from fastlb._core.head cimport (
    BODY_CHUNKED, BODY_UNTIL_CLOSE, Head, HeadLimits, head_persists, head_reset,
    response_head_parse,
)
from fastlb._core.node cimport node_feed_response
from fastlb._core.outcome cimport (
    CAUSE_BAD_RESPONSE, CAUSE_BAD_RESPONSE_BODY, CAUSE_CLIENT_CLOSED, CAUSE_NODE_CLOSED,
    CAUSE_NO_BUFFER,
)
from fastlb._core.persist cimport LearnInput
from fastlb._core.plan cimport CLASS_LEARNS, plan_class
from fastlb._core.relay cimport (
    FLOW_AGAIN, FLOW_BAD_BODY, FLOW_DONE, FLOW_NO_BUFFER, FLOW_SOURCE_END, FLOW_SOURCE_FAILED,
    FLOW_WAIT_SOURCE, FLOW_WAIT_TARGET, flow_flush, flow_frame, flow_pending, flow_run,
    flow_send_head,
)
from fastlb._core.request cimport request_path_at
from fastlb._core.response cimport response_edit, response_edit_interim
from fastlb._core.rules cimport RULES_GO_ON, RULES_WAIT, rules_after
from fastlb._core.stream cimport STREAM_AGAIN, stream_recv
from fastlb._core.timer cimport timer_await, timer_clear, timer_set
from fastlb._core.tunnel cimport TUNNEL_AGAIN, TUNNEL_ENDED, TUNNEL_OPEN, tunnel_run, tunnel_start

cdef enum:
    INTERIMS_MAX = 32                # 1xx responses to one request


cdef bint _room_for_head(Worker* w, Exchange* x) noexcept nogil:
    cdef Buffer* data = x.down.data
    cdef Buffer* larger
    if data == NULL:
        x.down.data = buffer_borrow(&w.buffers, False)
        return x.down.data != NULL
    if data.end < data.size:
        return True
    if data.start:
        memmove(data.data, data.data + data.start, buffer_pending(data))
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


cdef int _read_head(Worker* w, Exchange* x) noexcept nogil:
    # Reads and parses until the final response's head is there and sent on.
    cdef NodeConn* n = x.node
    cdef Buffer* data
    cdef int64_t got
    if x.down.head != NULL and not _flush_interim(w, x):
        return False
    while x.stage < STAGE_RESPONSE_RULES and x.down.head == NULL \
            and n.stream.ready & STREAM_READABLE:
        if not _room_for_head(w, x):
            if x.down.data == NULL or x.down.data.size < BUFFER_LARGE_BYTES:
                return exchange_reply(w, x, 503, CAUSE_NO_BUFFER)
            return exchange_reply(w, x, 502, CAUSE_BAD_RESPONSE)
        data = x.down.data
        got = stream_recv(&n.stream, data.data + data.end, data.size - data.end)
        if got == STREAM_AGAIN:
            break
        if got < 0:
            return ANSWER_NODE_LOST
        data.end += <uint32_t> got
        if not x.response_started:
            x.response_started = True
            x.first_byte_us = w.now_us
        if not _parse_head(w, x):
            return False
    if x.stage < STAGE_RESPONSE_RULES and x.down.data != NULL and buffer_pending(x.down.data) == 0:
        buffer_return(&w.buffers, x.down.data)
        x.down.data = NULL
    return True


cdef bint _flush_interim(Worker* w, Exchange* x) noexcept nogil:
    # What is behind an interim response waits, here and at the node, until the client takes it.
    cdef int result = flow_flush(w, &x.client.stream, &x.down)
    if result == FLOW_WAIT_TARGET:
        return True
    if result != FLOW_DONE:
        exchange_abort(w, x, CAUSE_CLIENT_CLOSED)
        return False
    if x.up.body.done:
        timer_clear(&x.client.timer)
    _await_response(w, x)
    return x.down.data == NULL or _parse_head(w, x)


cdef inline void _await_response(Worker* w, Exchange* x) noexcept nogil:
    # While the request is still on its way, the limits are those of its sending.
    if x.up.body.done and not flow_pending(&x.up):
        timer_set(&w.timers, &x.node.timer, w.now_ms + x.snapshot.plan.timeouts.response)


cdef bint _parse_head(Worker* w, Exchange* x) noexcept nogil:
    # What has arrived of it; 1xx responses are passed on and the next head is looked for.
    cdef Buffer* data = x.down.data
    cdef HeadLimits limits = bounds_of_heads(x.snapshot.plan)
    cdef int parsed
    while x.stage < STAGE_RESPONSE_RULES and x.down.head == NULL:
        head_reset(&w.response)
        parsed = response_head_parse(&w.response, data.data + data.start, buffer_pending(data),
                                     &limits, x.method)
        if parsed == 0:
            return True
        if parsed < 0:
            w.stats.head_errors[-parsed] += 1
            x.head_error = <unsigned char> -parsed
            return exchange_reply(w, x, 502, CAUSE_BAD_RESPONSE)
        if w.response.status == 101:
            if not x.upgrade:
                return exchange_reply(w, x, 502, CAUSE_BAD_RESPONSE)
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
        return exchange_reply(w, x, 502, CAUSE_BAD_RESPONSE)
    if x.version_minor == 1:
        count = response_edit_interim(w, buf)
        if count < 0:
            return exchange_reply(w, x, 502, CAUSE_BAD_RESPONSE)
        x.down.run_bytes = 0
        if flow_send_head(w, &x.client.stream, &x.down, w.iov, <uint32_t> count) != 0:
            exchange_abort(w, x, CAUSE_CLIENT_CLOSED)
            return False
    data.start += w.response.bytes
    if x.down.head != NULL:
        timer_clear(&x.node.timer)
        timer_set(&w.timers, &x.client.timer, w.now_ms + x.snapshot.plan.timeouts.client_body)
    else:
        _await_response(w, x)
    return True


cdef void _learn(Worker* w, Exchange* x) noexcept nogil:
    # Session ids that the response grants.
    cdef LearnInput response
    if x.decision.persistence < 0 or not CLASS_LEARNS & plan_class(
            x.snapshot.plan, <uint32_t> x.decision.persistence).chain_flags:
        return
    response.head = &w.response
    response.buf = x.down.data.data + x.down.data.start
    response.path = request_path_at(x)
    response.flight = NULL
    exchange_learn(w, x, &response)


cdef bint _begin_response(Worker* w, Exchange* x) noexcept nogil:
    cdef const Head* head = &w.response
    cdef Buffer* data = x.down.data
    cdef uint32_t body = data.start + head.bytes
    cdef int count
    if x.up.body.done:
        timer_clear(&x.client.timer)  # it is not asked any more whether it is there
    x.status = head.status
    x.node_persists = head_persists(head)
    body_start(&x.down.body, head.framing, head.content_length)
    bounds_of_body(&x.down.body, x.snapshot.plan)
    if head.framing == BODY_CHUNKED and x.version_minor == 0:
        x.down.decode = True
        x.client_persists = False
    if head.framing == BODY_UNTIL_CLOSE or not x.up.body.done or w.stopping:
        x.client_persists = False
    x.bad_body = flow_frame(&x.down, body, data.end - body) != 0
    _learn(w, x)
    count = response_edit(w, x, data.data + data.start)
    if count < 0:
        return exchange_reply(w, x, 502, CAUSE_BAD_RESPONSE)
    node_feed_response(&w.nodes.slots[x.slot], x.first_byte_us - x.sent_us, w.boot_ms)
    attempt_answered(w, x, head.status)
    exchange_answered(w, x, True)
    if unlikely(x.server.rule_count != 0):
        return _run_rules(w, x, data.data + data.start, count)
    return _send_response(w, x, count)


# Response rules, and then the head goes out. `count`: see rules_after.
cdef bint _run_rules(Worker* w, Exchange* x, const char* buf, int count) noexcept nogil:
    cdef int result = rules_after(w, x, buf, &count)
    if result == RULES_WAIT:
        x.stage = STAGE_RESPONSE_RULES
        return True
    if result != RULES_GO_ON:
        # An answer of our own may be on its way, but nothing that is left to be done here.
        return False
    return _open_tunnel(w, x, count) if x.status == 101 else _send_response(w, x, count)


cdef bint _send_response(Worker* w, Exchange* x, int count) noexcept nogil:
    x.stage = STAGE_RESPONSE
    count = flow_send_head(w, &x.client.stream, &x.down, w.iov, <uint32_t> count)
    if count == FLOW_NO_BUFFER:
        exchange_abort(w, x, CAUSE_NO_BUFFER)
        return False
    if count != 0:
        exchange_abort(w, x, CAUSE_CLIENT_CLOSED)
        return False
    return True


cdef bint _begin_tunnel(Worker* w, Exchange* x) noexcept nogil:
    # What came behind either head belongs to the other protocol already.
    cdef Buffer* data = x.down.data
    cdef uint32_t body = data.start + w.response.bytes
    cdef int count
    if not x.up.body.done or flow_pending(&x.up) or x.up.kept != NULL:
        # A request whose body is still under way can't become another protocol.
        return exchange_reply(w, x, 502, CAUSE_BAD_RESPONSE)
    timer_clear(&x.client.timer)
    x.status = 101
    x.client_persists = False
    tunnel_start(&x.up)
    tunnel_start(&x.down)
    _learn(w, x)
    count = response_edit(w, x, data.data + data.start)
    if count < 0:
        return exchange_reply(w, x, 502, CAUSE_BAD_RESPONSE)
    flow_frame(&x.up, x.up.run, x.up.data.end - x.up.run)
    flow_frame(&x.down, body, data.end - body)
    attempt_answered(w, x, 101)
    exchange_answered(w, x, True)
    if unlikely(x.server.rule_count != 0):
        return _run_rules(w, x, data.data + data.start, count)
    return _open_tunnel(w, x, count)


cdef bint _open_tunnel(Worker* w, Exchange* x, int count) noexcept nogil:
    cdef bint rest = x.up.run_bytes != 0
    x.stage = STAGE_TUNNEL
    count = flow_send_head(w, &x.client.stream, &x.down, w.iov, <uint32_t> count)
    if count != 0:
        exchange_abort(w, x, CAUSE_CLIENT_CLOSED)
        return False
    if not rest:
        _shrink_head(w, x)
    return answer_tunnel(w, x)


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


cdef bint answer_tunnel(Worker* w, Exchange* x) noexcept nogil:
    cdef int result = tunnel_run(w, &x.client.stream, &x.node.stream, &x.up, &x.down)
    cdef uint64_t deadline = w.now_ms + x.snapshot.plan.timeouts.tunnel
    if result == TUNNEL_OPEN or result == TUNNEL_AGAIN:
        timer_clear(&x.client.timer)
        timer_set(&w.timers, &x.node.timer, deadline)
        if result == TUNNEL_AGAIN:
            post_client(w, x.client)
        return True
    if result == TUNNEL_ENDED:
        exchange_end(w, x, DONE_CLOSE)
    else:
        exchange_abort(w, x, CAUSE_NODE_CLOSED if x.node.stream.ready & STREAM_ERROR
                       else CAUSE_CLIENT_CLOSED)
    return False


cdef int answer_rules_done(Worker* w, Exchange* x) noexcept nogil:
    if not _run_rules(w, x, NULL, -1):
        return ANSWER_ENDED
    return answer_pump(w, x) if x.stage == STAGE_RESPONSE else ANSWER_ALIVE


cdef bint _end_bad_body(Worker* w, Exchange* x) noexcept nogil:
    # What came before the error is the message's own, and goes out first.
    cdef uint64_t before = x.down.bytes
    cdef int result = flow_flush(w, &x.client.stream, &x.down)
    if result == FLOW_WAIT_TARGET:
        timer_clear(&x.node.timer)
        timer_await(&w.timers, &x.client.timer,
                    w.now_ms + x.snapshot.plan.timeouts.client_body, x.down.bytes != before)
        return True
    exchange_abort(w, x, CAUSE_BAD_RESPONSE_BODY if result == FLOW_DONE else CAUSE_CLIENT_CLOSED)
    return False


cdef bint _on_down_failed(Worker* w, Exchange* x, int result) noexcept nogil:
    if result == FLOW_AGAIN:
        post_client(w, x.client)
        return True
    if result == FLOW_SOURCE_END and body_closed(&x.down.body):
        x.node_persists = False
        exchange_finish(w, x)
    elif result == FLOW_SOURCE_END or result == FLOW_SOURCE_FAILED:
        exchange_abort(w, x, CAUSE_NODE_CLOSED)
    elif result == FLOW_BAD_BODY:
        x.bad_body = True
        return _end_bad_body(w, x)
    elif result == FLOW_NO_BUFFER:
        exchange_abort(w, x, CAUSE_NO_BUFFER)
    else:
        exchange_abort(w, x, CAUSE_CLIENT_CLOSED)
    return False


cdef int answer_pump(Worker* w, Exchange* x) noexcept nogil:
    cdef ClientConn* c = x.client
    cdef Stream* source              # NULL: the answer is our own, and all there
    cdef uint64_t before = x.down.bytes
    cdef int result
    if x.stage == STAGE_RESPONSE_RULES:
        return ANSWER_ALIVE
    if x.stage < STAGE_RESPONSE:
        result = _read_head(w, x)
        if result != ANSWER_ALIVE or x.stage != STAGE_RESPONSE:
            return result
    if unlikely(x.bad_body):
        return _end_bad_body(w, x)
    source = &x.node.stream if x.node != NULL else NULL
    result = flow_run(w, source, &c.stream, &x.down)
    if likely(result == FLOW_DONE):
        exchange_finish(w, x)
        return False
    if result == FLOW_WAIT_SOURCE:
        timer_await(&w.timers, &x.node.timer, w.now_ms + x.snapshot.plan.timeouts.response,
                    x.down.bytes != before)
        if x.up.body.done:
            timer_clear(&c.timer)
        return True
    if result == FLOW_WAIT_TARGET:
        if x.node != NULL:
            timer_clear(&x.node.timer)
        timer_await(&w.timers, &c.timer, w.now_ms + x.snapshot.plan.timeouts.client_body,
                    x.down.bytes != before)
        return True
    return _on_down_failed(w, x, result)
