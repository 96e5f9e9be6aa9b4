# Handshakes (contract in handshake.pxd).

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memcmp, memcpy

from fastlb._core cimport system
from fastlb._core.buffer cimport buffer_pending, buffer_return
from fastlb._core.connection cimport (
    OPENING_HANDSHAKE, OPENING_HELLO, OPENING_QUEUE, STREAM_ERROR, STREAM_HUP, ClientConn,
    Handshakes, TlsStream, Worker,
)
from fastlb._core.debug cimport BUG_ON
from fastlb._core.hooks cimport hooks_peer_certificate, hooks_peer_subject
from fastlb._core.outcome cimport (
    CAUSE_CLIENT_CLOSED, CAUSE_HANDSHAKE_FAILED, CAUSE_NO_BUFFER,
)
from fastlb._core.plan cimport (
    SERVER_CLIENT_SUBJECT, TICKET_NAME_BYTES, Plan, PlanServerName, PlanVirtualServer,
    plan_server_names, plan_text,
)
from fastlb._core.slice cimport Slice, ascii_lower, slice_of
from fastlb._core.stats cimport VirtualServerStats
from fastlb._core.stream cimport STREAM_AGAIN, STREAM_END
from fastlb._core.timer cimport timer_set
from fastlb._core.tls_hello cimport TlsClientHello
from fastlb._core.tls_library cimport tls
from fastlb._core.tls_stream cimport tls_feed, tls_flush, tls_handshake, tls_open

cdef enum:
    TURN_US = 400                    # for all handshakes of one turn of the loop: one or two
    SNI_BYTES_MAX = 255
    SUBJECT_BYTES_MAX = 2048         # a longer one is told to nobody
    TLS13 = 0x0304
    PER_SECOND = 1000000             # a token: what one handshake costs, filled per microsecond


# --- which context ------------------------------------------------------------------------

# Order of a text of the plan and a name: < 0, 0, > 0.
cdef int32_t _compare(const Plan* plan, const PlanServerName* entry, Slice name) noexcept nogil:
    cdef uint32_t most = entry.name.bytes if entry.name.bytes < name.bytes else name.bytes
    cdef int order = memcmp(plan_text(plan, entry.name), name.at, most)
    return order if order else <int32_t> entry.name.bytes - <int32_t> name.bytes


# The certificate for just this name; -1: there is none.
cdef int32_t _find(const Plan* plan, const PlanVirtualServer* server, Slice name) noexcept nogil:
    cdef const PlanServerName* names = plan_server_names(plan) + server.server_names
    cdef uint32_t low = 0, high = server.server_name_count, middle
    cdef int32_t order
    while low < high:
        middle = (low + high) // 2
        order = _compare(plan, &names[middle], name)
        if order == 0:
            return <int32_t> names[middle].certificate
        if order < 0:
            low = middle + 1
        else:
            high = middle
    return -1


cdef uint32_t _certificate(const Plan* plan, const PlanVirtualServer* server,
                           Slice sni) noexcept nogil:
    # As written, else with a wildcard for its first label (RFC 6125 6.4.3), else the default.
    cdef char[SNI_BYTES_MAX + 1] name
    cdef uint32_t i, count = sni.bytes
    cdef int32_t found
    if count and sni.at[count - 1] == c'.':
        count -= 1
    if count == 0 or count > SNI_BYTES_MAX or server.server_name_count == 0:
        return server.certificate
    for i in range(count):
        name[i] = ascii_lower(sni.at[i])
    found = _find(plan, server, slice_of(name, count))
    for i in range(1, count):
        if found >= 0:
            break
        if name[i] == c'.':
            name[i - 1] = c'*'
            found = _find(plan, server, slice_of(name + i - 1, count - i + 1))
            break
    return <uint32_t> found if found >= 0 else server.certificate


cdef uint32_t _ticket_key(const Plan* plan, const TlsClientHello* hello) noexcept nogil:
    cdef Slice ticket = hello.psk if hello.psk.bytes else hello.ticket
    cdef uint32_t i
    if ticket.bytes >= TICKET_NAME_BYTES:
        for i in range(plan.tls.ticket_key_count):
            if memcmp(plan.tls.ticket_names[i], ticket.at, TICKET_NAME_BYTES) == 0:
                return i
    return 0                         # which encrypts new ones


cdef void* _context(Worker* w, const PlanVirtualServer* server,
                    const TlsClientHello* hello) noexcept nogil:
    cdef const Plan* plan = w.snapshot.plan
    cdef uint32_t index = (_certificate(plan, server, hello.sni) * plan.tls.ticket_key_count
                           + _ticket_key(plan, hello))
    if w.snapshot.contexts == NULL or index >= plan.tls.context_count:
        return NULL
    return w.snapshot.contexts[index]


# --- when ---------------------------------------------------------------------------------

cdef uint32_t _share(Worker* w, uint32_t limit) noexcept nogil:
    return (limit + w.snapshot.plan.workers - 1) // w.snapshot.plan.workers


# Whether the rate lets one begin now; else the time to wake up for it is set.
cdef bint _has_token(Worker* w) noexcept nogil:
    cdef Handshakes* h = &w.handshakes
    cdef uint64_t rate = _share(w, w.snapshot.plan.limits.handshakes_per_second)
    cdef uint64_t passed = w.now_us - h.tokens_at_us
    if rate == 0:
        return True
    if passed > PER_SECOND:
        passed = PER_SECOND
    h.tokens_at_us = w.now_us
    h.tokens += passed * rate
    if h.tokens > rate * PER_SECOND:
        h.tokens = rate * PER_SECOND     # what was not used a second ago is gone
    if h.tokens >= PER_SECOND:
        return True
    timer_set(&w.timers, &h.timer, w.now_ms + 1 + (PER_SECOND - h.tokens) // rate // 1000)
    return False


cdef bint _may_begin(Worker* w) noexcept nogil:
    cdef Handshakes* h = &w.handshakes
    cdef uint32_t limit = w.snapshot.plan.limits.handshakes
    if h.turn != w.stats.turns:
        h.turn = w.stats.turns
        h.spent_us = 0
    h.due = False
    if limit and h.running >= _share(w, limit):
        return False
    if not _has_token(w):
        return False
    h.due = h.spent_us >= TURN_US
    return not h.due


cdef void _queue(Worker* w, ClientConn* c) noexcept nogil:
    cdef Handshakes* h = &w.handshakes
    c.opening = OPENING_QUEUE
    c.queue_next = NULL
    c.queue_prev = h.last
    if h.last != NULL:
        h.last.queue_next = c
    else:
        h.first = c
    h.last = c
    w.stats.virtual_servers[c.virtual_server_slot].handshakes_waiting += 1


cdef void _unqueue(Worker* w, ClientConn* c) noexcept nogil:
    cdef Handshakes* h = &w.handshakes
    if c.queue_prev != NULL:
        c.queue_prev.queue_next = c.queue_next
    else:
        h.first = c.queue_next
    if c.queue_next != NULL:
        c.queue_next.queue_prev = c.queue_prev
    else:
        h.last = c.queue_prev
    c.opening = OPENING_HELLO
    w.stats.virtual_servers[c.virtual_server_slot].handshakes_waiting -= 1


cdef ClientConn* handshake_next(Worker* w) noexcept nogil:
    cdef ClientConn* c = w.handshakes.first
    if c == NULL or not _may_begin(w):
        # Somebody else's event wakes the loop, or the timer, unless `due` was set.
        return NULL
    _unqueue(w, c)
    return c


cdef void handshake_leave(Worker* w, ClientConn* c) noexcept nogil:
    if c.opening == OPENING_QUEUE:
        _unqueue(w, c)
    elif c.opening == OPENING_HANDSHAKE:
        _over(w, c)
        w.stats.virtual_servers[c.virtual_server_slot].handshakes_failed += 1


cdef void _over(Worker* w, ClientConn* c) noexcept nogil:
    BUG_ON(w.handshakes.running == 0)
    w.handshakes.running -= 1
    c.opening = OPENING_HELLO


# --- the handshake ------------------------------------------------------------------------

cdef void _note_name(TlsStream* t, Slice sni) noexcept nogil:
    if sni.bytes and sni.bytes <= SNI_BYTES_MAX:
        t.sni_bytes = <unsigned char> sni.bytes
        memcpy(t.sni, sni.at, sni.bytes)


cdef int handshake_begin(Worker* w, ClientConn* c, const PlanVirtualServer* server,
                         const TlsClientHello* hello) noexcept nogil:
    cdef Handshakes* h = &w.handshakes
    cdef void* context = _context(w, server, hello)
    cdef TlsStream* t
    if context == NULL:
        return -CAUSE_HANDSHAKE_FAILED
    t = tls_open(context, True)
    if t == NULL:
        return -CAUSE_NO_BUFFER
    c.stream.tls = t
    _note_name(t, hello.sni)
    t.asked = server.flags & SERVER_CLIENT_SUBJECT != 0
    if w.snapshot.plan.limits.handshakes_per_second:
        h.tokens -= PER_SECOND if h.tokens >= PER_SECOND else h.tokens
    h.running += 1
    c.opening = OPENING_HANDSHAKE
    if not tls_feed(t, c.buffer.data + c.buffer.start, buffer_pending(c.buffer)):
        return -CAUSE_NO_BUFFER
    buffer_return(&w.buffers, c.buffer)
    c.buffer = NULL
    return handshake_run(w, c)


cdef int handshake_open(Worker* w, ClientConn* c, const PlanVirtualServer* server,
                        const TlsClientHello* hello) noexcept nogil:
    if w.handshakes.first == NULL and _may_begin(w):
        return handshake_begin(w, c, server, hello)
    _queue(w, c)
    return 0


cdef void _note_subject(Worker* w, ClientConn* c) noexcept nogil:
    # A certificate that was shown has been verified, or there would be no connection.
    cdef char[SUBJECT_BYTES_MAX] subject
    cdef TlsStream* t = c.stream.tls
    cdef uint32_t count
    if not t.asked:
        return
    count = hooks_peer_subject(t.ssl, subject, SUBJECT_BYTES_MAX)
    t.subject = <char*> malloc(count) if count else NULL
    if t.subject != NULL:
        memcpy(t.subject, subject, count)
        t.subject_bytes = count
    if count and w.snapshot.rules != NULL:
        t.certificate = hooks_peer_certificate(t.ssl, &t.certificate_bytes)


cdef int _count(Worker* w, ClientConn* c) noexcept nogil:
    cdef VirtualServerStats* server = &w.stats.virtual_servers[c.virtual_server_slot]
    server.handshakes += 1
    if tls.SSL_session_reused(c.stream.tls.ssl):
        server.handshakes_resumed += 1
    if c.stream.tls.version == TLS13:
        server.handshakes_tls13 += 1
    return 1


cdef int handshake_run(Worker* w, ClientConn* c) noexcept nogil:
    cdef uint64_t began
    cdef int result
    if c.opening == OPENING_QUEUE:
        # Who has left does not wait any more.
        return -CAUSE_CLIENT_CLOSED if c.stream.ready & (STREAM_HUP | STREAM_ERROR) else 0
    began = system.clock_us()
    result = tls_handshake(c.stream.tls, &c.stream)
    w.handshakes.spent_us += system.clock_us() - began
    if result == STREAM_AGAIN:
        return 0
    if result > 0:
        _over(w, c)
        if not c.stream.tls.holds:
            # Else tickets go with the answer to the request that has come with the handshake.
            tls_flush(c.stream.tls, &c.stream)
        _note_subject(w, c)
        return _count(w, c)
    handshake_leave(w, c)
    return -CAUSE_CLIENT_CLOSED if result == STREAM_END else -CAUSE_HANDSHAKE_FAILED
