# The end of an exchange, whichever way it comes (contract in exchange_end.pxd).

from libc.stdint cimport uint32_t

from fastlb._core.access_log cimport access_log_write
from fastlb._core.body cimport body_expected, body_start
from fastlb._core.buffer cimport buffer_borrow_bytes, buffer_return
from fastlb._core.connection cimport (
    ClientConn, DONE_CLOSE, DONE_CUT, DONE_KEEP, DONE_LINGER, DONE_RESET, Exchange, Flow, NodeConn,
    STAGE_RESPONSE, STREAM_ERROR, STREAM_HUP, Worker,
)
from fastlb._core.debug cimport BUG_ON, unlikely
from fastlb._core.decide cimport decide_answered, decide_learn, decide_learn_key
from fastlb._core.decision cimport DecideInput, Decision
from fastlb._core.head cimport BODY_CHUNKED, BODY_LENGTH, BODY_NONE
from fastlb._core.outcome cimport (
    CAUSE_BAD_RESPONSE_BODY, CAUSE_CLIENT_CLOSED, CAUSE_NODE_CLOSED, CAUSE_NODE_TIMEOUT,
    CAUSE_NONE, CAUSE_NO_BUFFER, CAUSE_RULE_ANSWERED, FOUND_RESERVATION,
    OUTCOME_NO_KEY, OUTCOME_TLS13,
)
from fastlb._core.plan cimport LOG_OFF, POOL_PROXY_V1, POOL_PROXY_V2, plan_class
from fastlb._core.queue cimport queue_leave
from fastlb._core.relay cimport FLOW_DONE, FLOW_WAIT_TARGET, flow_end, flow_flush, flow_pending
from fastlb._core.reply cimport reply_bytes, reply_rule_bytes, reply_rule_write, reply_write
from fastlb._core.rule_call cimport RuleCall
from fastlb._core.rule_state cimport rules_leave
from fastlb._core.snapshot cimport snapshot_release
from fastlb._core.stats cimport ClassStats, VirtualServerStats
from fastlb._core.stream cimport pipe_return, stream_is_quiet
from fastlb._core.timer cimport timer_set
from fastlb._core.upstream cimport upstream_close, upstream_return


# Whether this request gave its node a new session. One without a key did only where a class
# behind remembers it, or where the answer brought what later requests will be known by.
cdef bint _begins_session(const Decision* d) noexcept nogil:
    if d.persistence < 0 or d.established or d.found_in == FOUND_RESERVATION:
        return False
    if d.key_count != 0 or d.taught:
        return True
    return d.outcome != OUTCOME_NO_KEY and d.outcome != OUTCOME_TLS13


cdef void exchange_answered(Worker* w, Exchange* x, bint answered) noexcept nogil:
    cdef DecideInput ask
    if answered and _begins_session(&x.decision):
        w.stats.nodes[x.slot].sessions += 1
    if x.decision.holds_reservation:
        ask.request.plan = x.snapshot.plan
        ask.pool = x.pool
        ask.reservations = x.snapshot.reservations
        ask.now_ticks = w.now_ticks
        decide_answered(&ask, &x.decision, answered)


cdef void _learn_input(Worker* w, const Exchange* x, DecideInput* ask) noexcept nogil:
    ask.request.plan = x.snapshot.plan
    ask.pool = x.pool
    ask.caches = x.snapshot.caches
    ask.now_ticks = w.now_ticks
    ask.peek = False


cdef void exchange_learn_key(Worker* w, Exchange* x, Slice key) noexcept nogil:
    # The response was counted before its rules ran.
    cdef DecideInput ask
    cdef bint begun = _begins_session(&x.decision)
    _learn_input(w, x, &ask)
    decide_learn_key(&ask, &x.decision, key)
    if not begun and _begins_session(&x.decision):
        w.stats.nodes[x.slot].sessions += 1


cdef void exchange_learn(Worker* w, Exchange* x, LearnInput* response) noexcept nogil:
    cdef DecideInput ask
    _learn_input(w, x, &ask)
    response.plan = x.snapshot.plan
    response.wall_s = w.wall_s
    decide_learn(&ask, &x.decision, response)


cdef void exchange_count_load(Worker* w, Exchange* x) noexcept nogil:
    BUG_ON(x.counted)
    w.nodes.slots[x.slot].active[w.index] += 1
    x.counted = True


cdef void exchange_uncount_load(Worker* w, Exchange* x) noexcept nogil:
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
    cls.duplicates += x.decision.duplicates
    if x.flight_seen and x.flight.hello_seen:
        cls.tls13 += x.flight.is_tls13
    if x.decision.found_class >= 0 and x.decision.found_class != x.decision.persistence:
        cls.found_by_fallback += 1


cdef inline bint _has_rest(const Flow* up) noexcept nogil:
    # Bytes of a next request that were read with this one.
    return up.data != NULL and up.body.done and up.data.end > up.run


cdef void _give_rest_back(ClientConn* c, Flow* up) noexcept nogil:
    up.data.start = up.run
    c.buffer = up.data
    up.data = NULL


cdef void exchange_end(Worker* w, Exchange* x, int how) noexcept nogil:
    cdef ClientConn* c = x.client
    if unlikely(x.queue != NULL):
        queue_leave(w, x)
    if x.node != NULL:
        upstream_close(w, x.node, how == DONE_RESET)
        x.node = NULL
    exchange_uncount_load(w, x)
    exchange_answered(w, x, False)
    _count(w, x)
    if w.log.fd >= 0 and x.snapshot.plan.log_format != LOG_OFF:
        access_log_write(w, x)
    if unlikely(x.rules != NULL):
        rules_leave(w, x)
    if w.request_of == x:
        w.request_of = NULL
    if _has_rest(&x.up):
        if how == DONE_KEEP:
            _give_rest_back(c, &x.up)
        elif how == DONE_CLOSE:
            how = DONE_LINGER
    flow_end(w, &x.up)
    flow_end(w, &x.down)
    snapshot_release(w, x.snapshot)
    c.exchange = NULL
    x.next = w.free_exchanges
    w.free_exchanges = x
    w.stats.exchanges -= 1
    w.request_done(w, c, how)


# What the node did send of its answer still arrives. Where the framing shows that it is not whole,
# the connection may end in order behind it.
cdef int _how_aborted(const Exchange* x, int cause) noexcept nogil:
    if x.stage < STAGE_RESPONSE or x.down.bytes == 0 or cause not in (
            CAUSE_NODE_CLOSED, CAUSE_NODE_TIMEOUT, CAUSE_BAD_RESPONSE_BODY, CAUSE_NO_BUFFER):
        return DONE_RESET
    if x.down.body.kind == BODY_LENGTH:
        return DONE_LINGER
    # Some clients take an end where the last chunk may have begun, or its trailers, for that of
    # the message.
    if x.down.body.kind == BODY_CHUNKED and not x.down.decode and body_expected(&x.down.body):
        return DONE_LINGER
    return DONE_CUT


cdef void exchange_abort(Worker* w, Exchange* x, int cause) noexcept nogil:
    # The answer can't be completed, or nobody waits for it: neither side may take it for whole.
    cdef int how = _how_aborted(x, cause)
    if x.cause == CAUSE_NONE:
        x.cause = <unsigned char> cause
    if x.node != NULL:
        upstream_close(w, x.node, True)
        x.node = NULL
    exchange_end(w, x, how)


cdef void _drop_request(Worker* w, Exchange* x) noexcept nogil:
    # Nothing more of this request is sent. One that has not arrived whole ends the connection:
    # its rest is no next request.
    if not x.up.body.done:
        x.client_persists = False
    if x.up.head != NULL:
        buffer_return(&w.buffers, x.up.head)
        x.up.head = NULL
    if x.up.pipe != NULL:
        pipe_return(w, x.up.pipe)
        x.up.pipe = NULL
    x.up.run += x.up.run_bytes
    x.up.run_bytes = 0


cdef void exchange_finish(Worker* w, Exchange* x) noexcept nogil:
    # The whole response has been sent. A request that has arrived whole, but did not go out
    # whole, costs the node's connection only.
    cdef NodeConn* n = x.node
    cdef bint request_sent = x.up.body.done and not flow_pending(&x.up)
    cdef bint dirty = x.down.data != NULL and x.down.data.end > x.down.run
    if n != NULL:
        x.node = NULL
        if x.node_persists and request_sent and not dirty and not x.up.ended \
                and not x.pool.flags & (POOL_PROXY_V1 | POOL_PROXY_V2) \
                and not n.stream.ready & (STREAM_HUP | STREAM_ERROR) \
                and stream_is_quiet(&n.stream):
            upstream_return(w, n, x.pool)
        else:
            upstream_close(w, n, not request_sent)
    _drop_request(w, x)
    if x.client_persists:
        exchange_end(w, x, DONE_KEEP)
    else:
        # A client that does not know yet may have sent its next request: closing on that
        # resets the connection, and a body that ends with it is no longer whole.
        exchange_end(w, x, DONE_CLOSE if x.client_closes and x.up.body.done else DONE_LINGER)


cdef bint _write_reply(Worker* w, Exchange* x, bint configured) noexcept nogil:
    cdef uint32_t room = reply_bytes(w, x, configured)
    if room == 0:
        return False
    x.down.data = buffer_borrow_bytes(&w.buffers, room)
    if x.down.data == NULL:
        return False
    x.down.run_bytes = reply_write(w, x.down.data.data)
    BUG_ON(x.down.run_bytes != room)
    return True


# What is under way ends, so that an answer of our own can be sent; False: the exchange has ended.
cdef bint _begin_reply(Worker* w, Exchange* x, int status, int cause) noexcept nogil:
    if x.stage >= STAGE_RESPONSE or x.down.head != NULL:
        # Another answer, or a part of an interim one, is on its way already.
        exchange_abort(w, x, cause)
        return False
    if unlikely(x.queue != NULL):
        queue_leave(w, x)
    if x.node != NULL:
        upstream_close(w, x.node, True)
        x.node = NULL
    exchange_uncount_load(w, x)
    x.status = <unsigned short> status
    x.cause = <unsigned char> cause
    _drop_request(w, x)
    flow_end(w, &x.down)
    return True


cdef bint exchange_reply(Worker* w, Exchange* x, int status, int cause) noexcept nogil:
    # An answer of our own. Not alive after it, or still being sent.
    if not _begin_reply(w, x, status, cause):
        return False
    # A page of the configuration may be more than there is memory for.
    if not _write_reply(w, x, True) and not _write_reply(w, x, False):
        exchange_abort(w, x, cause)
        return False
    return _send_reply(w, x)


cdef bint exchange_reply_rule(Worker* w, Exchange* x, const RuleCall* call) noexcept nogil:
    cdef uint32_t room
    if not _begin_reply(w, x, call.effects.status, CAUSE_RULE_ANSWERED):
        return False
    room = reply_rule_bytes(w, x, call)
    x.down.data = buffer_borrow_bytes(&w.buffers, room)
    if x.down.data == NULL:
        return exchange_reply(w, x, 503, CAUSE_NO_BUFFER)
    x.down.run_bytes = reply_rule_write(w, x, call, x.down.data.data)
    BUG_ON(x.down.run_bytes != room)
    return _send_reply(w, x)


cdef bint _send_reply(Worker* w, Exchange* x) noexcept nogil:
    cdef int result
    body_start(&x.down.body, BODY_NONE, 0)
    x.down.decode = False
    x.down.run = 0
    x.down.data.end = x.down.run_bytes
    x.response_started = True
    x.stage = STAGE_RESPONSE
    result = flow_flush(w, &x.client.stream, &x.down)
    if result == FLOW_WAIT_TARGET:
        timer_set(&w.timers, &x.client.timer,
                  w.now_ms + x.snapshot.plan.timeouts.client_body)
        return True
    if result == FLOW_DONE:
        exchange_finish(w, x)
    else:
        exchange_abort(w, x, CAUSE_CLIENT_CLOSED)
    return False
