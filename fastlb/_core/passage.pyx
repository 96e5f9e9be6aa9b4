# The state machine of one passage (contract in passage.pxd).

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

from fastlb._core.attempt cimport (
    ATTEMPT_FAILED, ATTEMPT_FULL, ATTEMPT_READY, ATTEMPT_WAITS, attempt_again, attempt_answered,
    attempt_begin, attempt_connected, attempt_exchange, attempt_failed, attempt_input,
    attempt_reached, attempt_turn,
)
from fastlb._core.buffer cimport buffer_pending
from fastlb._core.connection cimport (
    CLIENT_PASSAGE, ClientConn, DONE_CLOSE, DONE_LINGER, DONE_RESET, Exchange, NodeConn,
    STAGE_CONNECT, STAGE_QUEUE, STAGE_RULES, STAGE_TUNNEL, STREAM_ERROR, Stream, TlsStream, Worker,
    post_client,
)
from fastlb._core.debug cimport BUG_ON, unlikely
from fastlb._core.decide cimport decide
from fastlb._core.decision cimport ACTION_FORWARD, ACTION_NO_NODE, ACTION_WAIT, DecideInput
from fastlb._core.exchange_end cimport (
    exchange_abort, exchange_answered, exchange_end, exchange_learn,
)
from fastlb._core.node cimport node_feed_response
from fastlb._core.outcome cimport (
    CAUSE_CLIENT_CLOSED, CAUSE_CONNECT_FAILED, CAUSE_CONNECT_TIMEOUT, CAUSE_NODE_CLOSED,
    CAUSE_NONE, CAUSE_NO_BUFFER, CAUSE_NO_NODE, CAUSE_QUEUE_FULL, CAUSE_QUEUE_TIMEOUT,
    CAUSE_SESSION_CLOSED, CAUSE_STOPPED, CAUSE_TUNNEL_TIMEOUT, OUTCOME_TLS13,
)
from fastlb._core.persist cimport LearnInput
from fastlb._core.plan cimport (
    CLASS_KEYS_GRANTED, KEY_SESSION, PROTOCOL_HTTPS, Plan, plan_class, plan_pool,
    plan_virtual_server,
)
from fastlb._core.queue cimport queue_enter, queue_follow, queue_time_over
from fastlb._core.relay cimport flow_frame
from fastlb._core.route cimport route_tls_pool
from fastlb._core.rules cimport (
    RULES_GO_ON, rules_before, rules_client_events, rules_timeout,
)
from fastlb._core.slice cimport slice_of
from fastlb._core.stream cimport stream_note
from fastlb._core.timer cimport timer_await, timer_clear
from fastlb._core.tls_hello cimport (
    TLS_FLIGHT_OPEN, TlsClientHello, tls_client_hello, tls_server_flight, tls_server_flight_begin,
    tls_session_id_hash,
)
from fastlb._core.tls_library cimport tls
from fastlb._core.tunnel cimport (
    TUNNEL_AGAIN, TUNNEL_ENDED, TUNNEL_OPEN, tunnel_run, tunnel_start,
)


# --- beginning ----------------------------------------------------------------------------

cdef Exchange* _new(Worker* w, ClientConn* c) noexcept nogil:
    cdef Exchange* x = attempt_exchange(w, c, CLIENT_PASSAGE)
    if x == NULL:
        w.request_done(w, c, DONE_RESET)
        return NULL
    x.passage = True
    x.client_address = c.peer
    tunnel_start(&x.up)
    tunnel_start(&x.down)
    if c.buffer != NULL:
        x.up.data = c.buffer
        c.buffer = NULL
    timer_clear(&c.timer)
    return x


cdef void _note_hello(Exchange* x, const TlsClientHello* hello) noexcept nogil:
    x.has_hello = True
    if hello.sni.bytes and hello.sni.bytes < sizeof(x.sni):
        x.sni_bytes = <unsigned char> hello.sni.bytes
        memcpy(x.sni, hello.sni.at, hello.sni.bytes)
    # The first name of the list; one that is longer than all known ones is left out.
    if hello.alpn.bytes:
        x.alpn_bytes = <unsigned char> hello.alpn.at[0]
        if x.alpn_bytes > sizeof(x.alpn):
            x.alpn_bytes = 0
        memcpy(x.alpn, hello.alpn.at + 1, x.alpn_bytes)


# The node's side of the handshake is read where what it grants makes session maps.
cdef void _watch_handshake(Exchange* x, const TlsClientHello* hello) noexcept nogil:
    cdef const Plan* plan = x.snapshot.plan
    if x.decision.persistence < 0 or not CLASS_KEYS_GRANTED & plan_class(
            plan, <uint32_t> x.decision.persistence).chain_flags:
        return
    x.flight_seen = True
    x.offers_ticket = hello.ticket.bytes != 0
    x.session_id = tls_session_id_hash(&plan.keys[KEY_SESSION], hello.session_id)
    tls_server_flight_begin(&x.flight)
    x.down.inspect = _inspect
    x.down.inspected = x


cdef void passage_begin(Worker* w, ClientConn* c, const TlsClientHello* hello) noexcept nogil:
    cdef Exchange* x = _new(w, c)
    cdef const Plan* plan = w.snapshot.plan
    cdef int server = w.server_index[c.virtual_server_slot]
    if x == NULL:
        return
    if server < 0:
        # The virtual server went with a reload, while the connection was being opened.
        exchange_abort(w, x, CAUSE_STOPPED)
        return
    if x.up.data != NULL:
        flow_frame(&x.up, x.up.data.start, buffer_pending(x.up.data))
    x.server = plan_virtual_server(plan, <uint32_t> server)
    x.pool = plan_pool(plan, x.server.pool)
    if hello != NULL:
        _note_hello(x, hello)
        x.pool = plan_pool(plan, route_tls_pool(plan, x.server, hello.sni, hello.alpn))
    if unlikely(x.server.rule_count != 0):
        if rules_before(w, x) == RULES_GO_ON:
            passage_rules_done(w, x)
        return
    _decide(w, x, hello)


# By another plan, which may have other routes and classes; nothing was relayed yet.
cdef void _choose_again(Exchange* x, const TlsClientHello* hello) noexcept nogil:
    x.flight_seen = False
    x.down.inspect = NULL
    if hello != NULL:
        x.pool = plan_pool(x.snapshot.plan, route_tls_pool(x.snapshot.plan, x.server, hello.sni,
                                                           hello.alpn))


cdef void _decide(Worker* w, Exchange* x, const TlsClientHello* hello) noexcept nogil:
    cdef DecideInput ask
    attempt_input(w, x, &ask)
    ask.request.hello = hello
    if x.in_turn:
        if queue_follow(w, x):
            _choose_again(x, hello)
            attempt_input(w, x, &ask)
            ask.request.hello = hello
        attempt_turn(w, x, &ask)
    else:
        decide(&ask, &x.decision)
    if hello != NULL:
        _watch_handshake(x, hello)
    _act(w, x)


cdef void passage_rules_done(Worker* w, Exchange* x) noexcept nogil:
    if rules_before(w, x) == RULES_GO_ON:
        passage_turn(w, x)


cdef void passage_turn(Worker* w, Exchange* x) noexcept nogil:
    # The slices of the hello that was read before may point to where others have worked since.
    cdef TlsClientHello hello
    if not x.has_hello:
        _decide(w, x, NULL)
        return
    memset(&hello, 0, sizeof(hello))
    if tls_client_hello(&hello, x.up.data.data + x.up.run, x.up.run_bytes, w.scratch) <= 0:
        BUG_ON(True)                 # it was read once
    _decide(w, x, &hello)


# What is known of a handshake on https that does not go on.
cdef void _note_handshake(Exchange* x, const TlsStream* t) noexcept nogil:
    x.sni_bytes = t.sni_bytes
    memcpy(x.sni, t.sni, t.sni_bytes)
    x.verify_error = <unsigned short> tls.SSL_get_verify_result(t.ssl)
    x.tls_error = t.error


cdef void passage_refuse(Worker* w, ClientConn* c, int cause) noexcept nogil:
    cdef Exchange* x = _new(w, c)
    cdef int server = w.server_index[c.virtual_server_slot]
    if x == NULL:
        return
    x.refused = True
    x.cause = <unsigned char> cause
    if c.stream.tls != NULL:
        _note_handshake(x, c.stream.tls)
    if server >= 0:
        x.server = plan_virtual_server(w.snapshot.plan, <uint32_t> server)
    # On https an alert, or an answer in plain text, has been sent, and must arrive.
    exchange_end(w, x, DONE_LINGER if x.server != NULL and x.server.protocol == PROTOCOL_HTTPS
                 else DONE_RESET)


# --- towards the node ---------------------------------------------------------------------

cdef bint _act(Worker* w, Exchange* x) noexcept nogil:
    # One decision after the other, until a node is there or being connected to.
    cdef int result, cause
    while x.decision.action == ACTION_FORWARD:
        # How fast a node is: what it takes to answer a hello, or just to be connected to.
        x.sent_us = w.now_us
        result = attempt_begin(w, x, False, _node_events)
        if result == ATTEMPT_WAITS:
            return True
        if result == ATTEMPT_READY:
            return _connected(w, x)
        if result == ATTEMPT_FULL:
            return _wait(w, x)
        cause = attempt_again(w, x, CAUSE_CONNECT_FAILED)
        if cause != CAUSE_NONE:
            exchange_abort(w, x, cause)
            return False
    if x.decision.action == ACTION_WAIT:
        return _wait(w, x)
    exchange_abort(w, x, CAUSE_NO_NODE if x.decision.action == ACTION_NO_NODE
                   else CAUSE_SESSION_CLOSED)
    return False


cdef bint _wait(Worker* w, Exchange* x) noexcept nogil:
    if queue_enter(w, x):
        return True
    exchange_abort(w, x, CAUSE_QUEUE_FULL)
    return False


cdef void _on_connect_failed(Worker* w, Exchange* x, int cause) noexcept nogil:
    cause = attempt_again(w, x, cause)
    if cause == CAUSE_NONE:
        _act(w, x)
    else:
        exchange_abort(w, x, cause)


cdef bint _connected(Worker* w, Exchange* x) noexcept nogil:
    x.stage = STAGE_TUNNEL
    x.connected_us = w.now_us
    x.asked = x.up.run_bytes != 0
    if not x.asked:
        node_feed_response(&w.nodes.slots[x.slot], w.now_us - x.sent_us, w.boot_ms)
    x.sent_us = w.now_us
    w.stats.nodes[x.slot].requests += 1
    attempt_reached(w, x)
    timer_clear(&x.node.timer)
    if x.down.inspect == NULL:
        exchange_answered(w, x, True)
    return _relay(w, x)


# --- the handshake that passes by ---------------------------------------------------------

cdef void _inspect(Worker* w, Exchange* x, const char* data, uint32_t count) noexcept nogil:
    if tls_server_flight(&x.flight, &x.snapshot.plan.keys[KEY_SESSION], data,
                         count) == TLS_FLIGHT_OPEN:
        return
    # Before the client sees what it was granted, so that its next connection is recognised.
    x.down.inspect = NULL
    _learn(w, x)
    exchange_answered(w, x, True)


cdef void _learn(Worker* w, Exchange* x) noexcept nogil:
    cdef LearnInput response
    if x.flight.is_tls13:
        if x.decision.found_class < 0 and CLASS_KEYS_GRANTED & plan_class(
                x.snapshot.plan, <uint32_t> x.decision.persistence).flags:
            x.decision.outcome = OUTCOME_TLS13
        return
    response.head = NULL
    response.buf = NULL
    response.path = slice_of(NULL, 0)
    response.flight = &x.flight
    response.session_id = x.session_id
    response.offers_ticket = x.offers_ticket
    exchange_learn(w, x, &response)


# --- the tunnel ---------------------------------------------------------------------------

cdef enum:
    AT_ONCE_US = 1000000             # a reset within that time is no end of an idle connection


cdef bint _relay(Worker* w, Exchange* x) noexcept nogil:
    cdef uint64_t before = x.up.bytes + x.down.bytes
    cdef int result = tunnel_run(w, &x.client.stream, &x.node.stream, &x.up, &x.down)
    cdef uint64_t moved = x.up.bytes + x.down.bytes - before
    if x.first_byte_us == 0 and x.down.bytes:
        x.first_byte_us = w.now_us
        attempt_answered(w, x, 0)
        if x.asked:
            node_feed_response(&w.nodes.slots[x.slot], x.first_byte_us - x.sent_us, w.boot_ms)
    if result == TUNNEL_OPEN or result == TUNNEL_AGAIN:
        timer_await(&w.timers, &x.node.timer, w.now_ms + x.snapshot.plan.timeouts.tunnel,
                    moved != 0)
        if result == TUNNEL_AGAIN:
            post_client(w, x.client)
        return True
    if result == TUNNEL_ENDED:
        attempt_answered(w, x, 0)
        exchange_end(w, x, DONE_CLOSE)
        return False
    result = _broken_by(x)
    if result == CAUSE_NODE_CLOSED and x.down.bytes == 0:
        w.stats.nodes[x.slot].resets += 1
        # Not for what the client has said, nor for its silence.
        if x.up.bytes == 0 and w.now_us - x.connected_us < AT_ONCE_US:
            attempt_failed(w, x)
    exchange_abort(w, x, result)
    return False


cdef int _broken_by(const Exchange* x) noexcept nogil:
    # Who ended before has nothing more to say, and resets what comes too late: with TLS mostly a
    # close_notify that answers its own. That is no failure.
    if x.node.stream.ready & STREAM_ERROR:
        return CAUSE_NONE if x.down.ended else CAUSE_NODE_CLOSED
    if x.client.stream.ready & STREAM_ERROR:
        return CAUSE_NONE if x.up.ended else CAUSE_CLIENT_CLOSED
    return CAUSE_NO_BUFFER


cdef void _node_events(Worker* w, Stream* s, uint32_t events) noexcept nogil:
    cdef Exchange* x = (<NodeConn*> s).exchange
    cdef int result
    stream_note(s, events)
    if x.stage == STAGE_TUNNEL:
        _relay(w, x)
        return
    result = attempt_connected(w, x)
    if result == ATTEMPT_READY:
        _connected(w, x)
    elif result == ATTEMPT_FAILED:
        _on_connect_failed(w, x, CAUSE_CONNECT_FAILED)


cdef void passage_client_events(Worker* w, ClientConn* c, uint32_t events) noexcept nogil:
    cdef Exchange* x = c.exchange
    stream_note(&c.stream, events)
    if x.stage == STAGE_TUNNEL:
        _relay(w, x)
    elif x.stage == STAGE_RULES:
        rules_client_events(w, x)
    elif c.stream.ready & STREAM_ERROR:
        # Nobody waits for the node any more. A client that only finished sending may.
        exchange_abort(w, x, CAUSE_CLIENT_CLOSED)


cdef void passage_continue(Worker* w, ClientConn* c) noexcept nogil:
    if c.exchange.stage == STAGE_TUNNEL:
        _relay(w, c.exchange)


cdef void passage_client_timeout(Worker* w, ClientConn* c) noexcept nogil:
    if c.exchange.stage == STAGE_RULES:
        rules_timeout(w, c.exchange)
    elif c.exchange.stage == STAGE_QUEUE:
        queue_time_over(w, c.exchange)
        exchange_abort(w, c.exchange, CAUSE_QUEUE_TIMEOUT)
    else:
        exchange_abort(w, c.exchange, CAUSE_TUNNEL_TIMEOUT)


cdef void passage_node_timeout(Worker* w, NodeConn* n) noexcept nogil:
    if n.exchange.stage == STAGE_CONNECT:
        _on_connect_failed(w, n.exchange, CAUSE_CONNECT_TIMEOUT)
    else:
        exchange_abort(w, n.exchange, CAUSE_TUNNEL_TIMEOUT)


cdef void passage_stop(Worker* w, ClientConn* c) noexcept nogil:
    exchange_abort(w, c.exchange, CAUSE_STOPPED)
