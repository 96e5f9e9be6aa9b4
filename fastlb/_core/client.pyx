# Client connections (contract in client.pxd).
#
#   OPENING --> IDLE --bytes--> HEAD --whole head--> EXCHANGE --answered--> IDLE
#      |          \--end, time-out--> closed            \--close--> LINGER --> closed
#      \-> PASSAGE --> LINGER, closed
#
# LINGER (RFC 9112 9.6): after an answer that ends the connection our side is shut down and
# what the client still sends is read and thrown away for a moment, because closing a socket
# with unread bytes resets it, and a reset may destroy the answer on its way.

from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport calloc
from libc.string cimport memcpy, memset

from fastlb._core cimport system
from fastlb._core.address cimport address_from_sockaddr
from fastlb._core.bounds cimport bounds_of_heads
from fastlb._core.buffer cimport (
    buffer_make_room, buffer_pending, buffer_return,
)
from fastlb._core.connection cimport (
    CLIENT_CLOSED, CLIENT_EXCHANGE, CLIENT_HEAD, CLIENT_IDLE, CLIENT_LINGER, CLIENT_OPENING,
    CLIENT_PASSAGE, DONE_CLOSE, DONE_CUT, DONE_KEEP, DONE_RESET, JOIN_BYTES, STREAM_EOF,
    STREAM_ERROR, STREAM_READABLE, TIMER_CLIENT, ClientConn, Listener, Stream, Worker, post_client,
)
from fastlb._core.debug cimport BUG_ON, likely, unlikely
from fastlb._core.exchange cimport (
    exchange_begin, exchange_client_events, exchange_client_timeout, exchange_continue,
    exchange_refuse, exchange_stop,
)
from fastlb._core.field cimport STAGE_START
from fastlb._core.head cimport (
    Head, HeadLimits, head_error_status, head_reset, request_head_parse,
)
from fastlb._core.opening cimport (
    OPENING_CLOSES, OPENING_SERVES, opening_begin, opening_drain, opening_leave, opening_run,
    opening_timeout,
)
from fastlb._core.outcome cimport CAUSE_BAD_REQUEST, CAUSE_HEAD_TIMEOUT, CAUSE_NO_BUFFER
from fastlb._core.passage cimport (
    passage_client_events, passage_client_timeout, passage_continue, passage_stop,
)
from fastlb._core.plan cimport Plan, plan_virtual_server
from fastlb._core.rule_state cimport rules_forget
from fastlb._core.stream cimport (
    STREAM_AGAIN, stream_close, stream_ignore, stream_note, stream_recv, stream_register,
    stream_rest, stream_shutdown, stream_unmute, stream_waits,
)
from fastlb._core.timer cimport timer_clear, timer_set, timer_unfile

cdef enum:
    LINGER_MS = 2000
    LINGER_BYTES = 64 * 1024         # thrown away per read; who goes on is cut by the timer
    LINGER_READS = 16                # per turn
    CUT_LOOK_MS = 20                 # between looks whether all has arrived
    FIRST_REQUEST_MS = 1000          # a new connection's, when the worker drains
    NEXT_REQUEST_MS = 300            # an idle one's: it may be on its way


# --- open and close -----------------------------------------------------------------------

cdef ClientConn* _allocate(Worker* w) noexcept nogil:
    cdef ClientConn* c = w.free_clients
    if c != NULL:
        w.free_clients = c.next
        memset(c, 0, sizeof(ClientConn))
    else:
        c = <ClientConn*> calloc(1, sizeof(ClientConn))
    return c


cdef void client_open(Worker* w, Listener* listener, int fd,
                      const void* sockaddr) noexcept nogil:
    cdef ClientConn* c = _allocate(w)
    cdef const Plan* plan = w.snapshot.plan
    if c == NULL:
        system.close(fd)
        return
    c.stream.fd = fd
    c.stream.on_events = _events
    c.timer.kind = TIMER_CLIENT
    c.listener_id = listener.id
    c.virtual_server_slot = <unsigned short> plan_virtual_server(
        plan, listener.virtual_server).slot
    c.is_unix = not address_from_sockaddr(&c.peer, sockaddr)
    if not stream_register(w, &c.stream):
        system.close(fd)
        c.next = w.free_clients
        w.free_clients = c
        return
    c.all_next = w.clients
    if c.all_next != NULL:
        c.all_next.all_prev = c
    w.clients = c
    w.stats.clients += 1
    w.stats.virtual_servers[c.virtual_server_slot].connections += 1
    w.stats.virtual_servers[c.virtual_server_slot].accepted += 1
    if opening_begin(w, c) == OPENING_CLOSES:
        _close(w, c, False)
    elif unlikely(w.stopping):
        _drain(w, c)


cdef void _close(Worker* w, ClientConn* c, bint reset) noexcept nogil:
    BUG_ON(c.state == CLIENT_CLOSED)
    BUG_ON(c.exchange != NULL)
    if c.state == CLIENT_OPENING:
        opening_leave(w, c)
    c.state = CLIENT_CLOSED
    if c.buffer != NULL:
        buffer_return(&w.buffers, c.buffer)
        c.buffer = NULL
    _drop_head(w, c)
    if unlikely(c.rules != NULL):
        rules_forget(w, c)
    timer_clear(&c.timer)
    timer_unfile(&w.timers, &c.timer)
    stream_close(&c.stream, reset)
    c.stream.on_events = stream_ignore
    if c.all_prev != NULL:
        c.all_prev.all_next = c.all_next
    else:
        w.clients = c.all_next
    if c.all_next != NULL:
        c.all_next.all_prev = c.all_prev
    w.stats.clients -= 1
    w.stats.virtual_servers[c.virtual_server_slot].connections -= 1
    if not c.posted:
        # A posted one is found by client_run_posted, and buried then.
        c.next = w.dead_clients
        w.dead_clients = c


cdef void client_bury(Worker* w) noexcept nogil:
    cdef ClientConn* c
    while w.dead_clients != NULL:
        c = w.dead_clients
        w.dead_clients = c.next
        c.next = w.free_clients
        w.free_clients = c


cdef void _linger(Worker* w, ClientConn* c) noexcept nogil:
    # In order: nothing of the answer is lost by bytes that we have not read.
    if c.buffer != NULL:
        buffer_return(&w.buffers, c.buffer)
        c.buffer = NULL
    if c.stream.ready & STREAM_ERROR or (
            c.stream.ready & STREAM_EOF and not stream_waits(&c.stream)):
        _close(w, c, False)
        return
    c.state = CLIENT_LINGER
    stream_shutdown(&c.stream)
    _set_linger_timer(w, c)
    _discard(w, c)


cdef void _set_linger_timer(Worker* w, ClientConn* c) noexcept nogil:
    # While some of the answer waits for the socket, its time is that of an answer.
    timer_set(&w.timers, &c.timer, w.now_ms + (w.snapshot.plan.timeouts.client_body
                                               if stream_waits(&c.stream) else LINGER_MS))


# An answer that only its connection's end delimits must not end in order where it is not whole;
# but a reset at once would take back what has not arrived.
cdef void _cut(Worker* w, ClientConn* c) noexcept nogil:
    c.state = CLIENT_LINGER
    c.cut_until_ms = w.now_ms + w.snapshot.plan.timeouts.client_body
    _on_cut(w, c)


cdef void _on_cut(Worker* w, ClientConn* c) noexcept nogil:
    if c.stream.ready & STREAM_ERROR or w.now_ms >= c.cut_until_ms or (
            stream_waits(&c.stream) == 0 and system.unacknowledged(c.stream.fd) <= 0):
        _close(w, c, True)
    else:
        timer_set(&w.timers, &c.timer, w.now_ms + CUT_LOOK_MS)


cdef void _on_linger(Worker* w, ClientConn* c, uint32_t events) noexcept nogil:
    cdef uint32_t waited = stream_waits(&c.stream)
    stream_note(&c.stream, events)
    if c.cut_until_ms:
        _on_cut(w, c)
        return
    if c.stream.ready & STREAM_ERROR:
        _close(w, c, False)
        return
    if stream_waits(&c.stream) < waited:
        _set_linger_timer(w, c)
    if c.stream.ready & STREAM_EOF and not stream_waits(&c.stream):
        _close(w, c, False)
    else:
        _discard(w, c)


# Reads the socket itself: what it holds is not looked at, in whatever form.
cdef void _discard(Worker* w, ClientConn* c) noexcept nogil:
    cdef int64_t got
    cdef int reads = 0
    while c.stream.ready & STREAM_READABLE and reads < LINGER_READS:
        reads += 1
        if c.is_unix:
            # Only TCP can throw away what nobody reads (MSG_TRUNC, tcp(7)).
            got = system.recv(c.stream.fd, w.joined, JOIN_BYTES, 0)
        else:
            got = system.recv(c.stream.fd, NULL, LINGER_BYTES, system.MSG_TRUNC)
        if got > 0 or (got < 0 and system.errno == system.EINTR):
            continue
        if got < 0 and system.errno == system.EAGAIN:
            c.stream.ready &= ~STREAM_READABLE
            return
        if got == 0 and stream_waits(&c.stream):
            c.stream.ready = (c.stream.ready & ~<unsigned> STREAM_READABLE) | STREAM_EOF
            return
        _close(w, c, False)
        return
    if c.stream.ready & STREAM_READABLE:
        # No new edge may come: on a Unix socket the sender waits until much has been read.
        post_client(w, c)


# --- reading heads ------------------------------------------------------------------------

cdef void _drop_head(Worker* w, ClientConn* c) noexcept nogil:
    if c.head != NULL:
        # The first fields of a free Head serve as the link.
        (<Head**> c.head)[0] = w.free_heads
        w.free_heads = c.head
        c.head = NULL


# Keeps the state of a parse that has to wait, so that no byte is looked at twice.
cdef bint _keep_head(Worker* w, ClientConn* c) noexcept nogil:
    cdef Head* head = w.free_heads
    if head != NULL:
        w.free_heads = (<Head**> head)[0]
    else:
        head = <Head*> calloc(1, sizeof(Head))
        if head == NULL:
            return False
    memcpy(head, &w.request, sizeof(Head))
    c.head = head
    return True


cdef int _parse(Worker* w, ClientConn* c) noexcept nogil:
    # Result of request_head_parse over what has arrived; the head ends up in w.request.
    cdef HeadLimits limits = bounds_of_heads(w.snapshot.plan)
    cdef int parsed
    w.request_of = NULL
    if likely(c.head == NULL):
        head_reset(&w.request)
        parsed = request_head_parse(&w.request, c.buffer.data + c.buffer.start,
                                    buffer_pending(c.buffer), &limits)
        if parsed == 0 and not _keep_head(w, c):
            return 0
        return parsed
    parsed = request_head_parse(c.head, c.buffer.data + c.buffer.start,
                                buffer_pending(c.buffer), &limits)
    if parsed > 0:
        memcpy(&w.request, c.head, sizeof(Head))
    if parsed != 0:
        _drop_head(w, c)
    return parsed


# Reads and parses until a request begins or nothing more is there.
cdef void _serve(Worker* w, ClientConn* c) noexcept nogil:
    cdef int64_t got
    if c.buffer != NULL and c.head == NULL and buffer_pending(c.buffer):
        # Came together with the request before.
        if _on_bytes(w, c):
            return
    while c.stream.ready & STREAM_READABLE:
        if not buffer_make_room(&w.buffers, &c.buffer):
            exchange_refuse(w, c, 503, CAUSE_NO_BUFFER, 0)
            return
        got = stream_recv(&c.stream, c.buffer.data + c.buffer.end, c.buffer.size - c.buffer.end)
        if got == STREAM_AGAIN:
            break
        if got < 0:
            _close(w, c, False)
            return
        c.buffer.end += <uint32_t> got
        if _on_bytes(w, c):
            return
    if c.buffer != NULL and buffer_pending(c.buffer) == 0:
        buffer_return(&w.buffers, c.buffer)
        c.buffer = NULL


# True when the connection has gone on to an exchange.
cdef bint _on_bytes(Worker* w, ClientConn* c) noexcept nogil:
    cdef int parsed = _parse(w, c)
    if likely(parsed > 0):
        exchange_begin(w, c)
        return True
    if parsed < 0:
        w.stats.head_errors[-parsed] += 1
        exchange_refuse(w, c, head_error_status(parsed), CAUSE_BAD_REQUEST, parsed)
        return True
    if c.state == CLIENT_IDLE:
        c.state = CLIENT_HEAD
        timer_set(&w.timers, &c.timer, w.now_ms + w.snapshot.plan.timeouts.client_header)
    return False


cdef void _opened(Worker* w, ClientConn* c, int result) noexcept nogil:
    if result == OPENING_SERVES:
        if w.stopping and not w.idle_stay:
            timer_set(&w.timers, &c.timer, w.now_ms + FIRST_REQUEST_MS)
        _serve(w, c)
    elif result == OPENING_CLOSES:
        _close(w, c, False)


# --- events, timers, the end of requests --------------------------------------------------

cdef void _events(Worker* w, Stream* s, uint32_t events) noexcept nogil:
    cdef ClientConn* c = <ClientConn*> s
    if c.state == CLIENT_EXCHANGE:
        exchange_client_events(w, c, events)
        return
    if c.state == CLIENT_PASSAGE:
        passage_client_events(w, c, events)
        return
    if c.state == CLIENT_LINGER:
        _on_linger(w, c, events)
        return
    stream_note(s, events)
    if c.state == CLIENT_OPENING:
        _opened(w, c, opening_run(w, c))
    elif s.ready & STREAM_ERROR:
        _close(w, c, False)
    else:
        _serve(w, c)


cdef void client_timeout(Worker* w, ClientConn* c) noexcept nogil:
    if c.state == CLIENT_EXCHANGE:
        exchange_client_timeout(w, c)
    elif c.state == CLIENT_PASSAGE:
        passage_client_timeout(w, c)
    elif c.state == CLIENT_OPENING:
        _opened(w, c, opening_timeout(w, c))
    elif c.state == CLIENT_HEAD and (c.head == NULL or c.head.stage != STAGE_START):
        # It began a request and did not finish its head (RFC 9110 15.5.9); empty lines are none.
        exchange_refuse(w, c, 408, CAUSE_HEAD_TIMEOUT, 0)
    elif c.cut_until_ms:
        _on_cut(w, c)
    else:
        _close(w, c, False)


cdef void client_request_done(Worker* w, ClientConn* c, int how) noexcept nogil:
    c.state = CLIENT_IDLE
    if how == DONE_RESET:
        _close(w, c, True)
        return
    if how == DONE_CUT:
        _cut(w, c)
        return
    if how == DONE_CLOSE and c.buffer == NULL and not c.stream.ready & STREAM_READABLE \
            and not stream_waits(&c.stream):
        # It asked for this, and has sent nothing since.
        _close(w, c, False)
        return
    stream_unmute(w, &c.stream)
    if how != DONE_KEEP:
        _linger(w, c)
        return
    # While the worker stops: it was not told in its answer, which had begun before.
    timer_set(&w.timers, &c.timer, w.now_ms + (
        NEXT_REQUEST_MS if w.stopping and not w.idle_stay
        else w.snapshot.plan.timeouts.keep_alive))
    stream_rest(&c.stream)
    if c.buffer != NULL or c.stream.ready & STREAM_READABLE:
        # Served at the end of the turn, so that one pipelining client does not nest calls.
        post_client(w, c)


cdef void client_run_posted(Worker* w) noexcept nogil:
    # What is posted meanwhile waits for the next turn.
    cdef ClientConn* c = w.posted
    cdef ClientConn* following
    w.posted = NULL
    while c != NULL:
        following = c.next
        c.posted = False
        if c.state == CLIENT_CLOSED:
            c.next = w.dead_clients
            w.dead_clients = c
        elif c.state == CLIENT_EXCHANGE:
            exchange_continue(w, c)
        elif c.state == CLIENT_PASSAGE:
            passage_continue(w, c)
        elif c.state == CLIENT_LINGER:
            _discard(w, c)
        else:
            if c.state == CLIENT_OPENING:
                _opened(w, c, opening_run(w, c))
            else:
                _serve(w, c)
            if w.stopping and not w.idle_stay and c.state == CLIENT_IDLE:
                timer_set(&w.timers, &c.timer, w.now_ms + NEXT_REQUEST_MS)
        c = following


cdef void _drain(Worker* w, ClientConn* c) noexcept nogil:
    if c.state == CLIENT_IDLE and not c.posted:
        # A request may be there that no event has told of yet.
        c.stream.ready |= STREAM_READABLE
        _serve(w, c)
        if c.state == CLIENT_IDLE:
            timer_set(&w.timers, &c.timer,
                      w.now_ms + (NEXT_REQUEST_MS if c.requests else FIRST_REQUEST_MS))
    elif c.state == CLIENT_OPENING:
        opening_drain(w, c)


cdef void client_drain_all(Worker* w) noexcept nogil:
    cdef ClientConn* c = w.clients
    cdef ClientConn* following
    while c != NULL:
        following = c.all_next
        _drain(w, c)
        c = following


cdef void client_stop_all(Worker* w) noexcept nogil:
    cdef ClientConn* c
    while w.clients != NULL:
        c = w.clients
        if c.state == CLIENT_EXCHANGE:
            exchange_stop(w, c)      # closes the connection too, by client_request_done
        elif c.cut_until_ms:
            _close(w, c, True)
        elif c.state == CLIENT_PASSAGE:
            passage_stop(w, c)
        else:
            _close(w, c, False)
