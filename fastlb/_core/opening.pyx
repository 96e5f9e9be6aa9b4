# The beginning of connections (contract in opening.pxd).
#
# A peer in `trusted_proxies` of a virtual server with `proxy_protocol` has to send a PROXY
# header: were it optional, a client could reach us through such a proxy and write its own. All
# other peers are served as they are. On a unix socket it has to be sent, too: its file's
# permissions say who is trusted, and nobody but a proxy has a reason to connect there.

from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcpy, memset, strlen

from fastlb._core.buffer cimport buffer_make_room, buffer_pending, buffer_return
from fastlb._core.connection cimport (
    CLIENT_IDLE, CLIENT_OPENING, OPENING_HELLO, OPENING_PROXY_HEADER, OPENING_QUEUE,
    STREAM_READABLE, ClientConn, Worker, post_client,
)
from fastlb._core.forwarded cimport forwarded_trusts
from fastlb._core.handshake cimport (
    handshake_begin, handshake_leave, handshake_next, handshake_open, handshake_run,
)
from fastlb._core.outcome cimport (
    CAUSE_BAD_HELLO, CAUSE_BAD_PROXY_HEADER, CAUSE_CLIENT_CLOSED, CAUSE_NOT_TLS, CAUSE_NO_BUFFER,
    CAUSE_OPENING_TIMEOUT, CAUSE_STOPPED,
)
from fastlb._core.passage cimport passage_begin, passage_refuse
from fastlb._core.plan cimport (
    PROTOCOL_HTTP, PROTOCOL_HTTPS, PROTOCOL_TCP, SERVER_NOT_TLS_IS_TCP, SERVER_PROXY_PROTOCOL,
    PlanVirtualServer, plan_virtual_server,
)
from fastlb._core.proxy_protocol cimport ProxyHeader, proxy_header_read
from fastlb._core.stream cimport STREAM_AGAIN, stream_recv, stream_send
from fastlb._core.timer cimport timer_set
from fastlb._core.tls_hello cimport TLS_NOT_TLS, TlsClientHello, tls_client_hello

cdef enum:                           # AlertDescription (RFC 8446 6)
    DECODE_ERROR = 50
    INTERNAL_ERROR = 80

cdef const char* PLAIN_HTTP = (
    "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    "Content-Length: 64\r\nConnection: close\r\n\r\n"
    "This port speaks HTTPS, and what was sent to it was plain HTTP.\n")

cdef enum:
    FIRST_BYTE_MS = 1000             # for who has sent nothing, when the worker drains


# NULL: a reload has taken the virtual server away.
cdef const PlanVirtualServer* _server(Worker* w, ClientConn* c) noexcept nogil:
    cdef int index = w.server_index[c.virtual_server_slot]
    return plan_virtual_server(w.snapshot.plan, <uint32_t> index) if index >= 0 else NULL


cdef bint _needs_proxy_header(Worker* w, ClientConn* c,
                              const PlanVirtualServer* server) noexcept nogil:
    return server.flags & SERVER_PROXY_PROTOCOL != 0 and (
        c.is_unix or forwarded_trusts(w.snapshot.plan, server, &c.peer))


cdef int opening_begin(Worker* w, ClientConn* c) noexcept nogil:
    cdef const PlanVirtualServer* server = _server(w, c)
    if server == NULL:
        return OPENING_CLOSES
    c.state = CLIENT_OPENING
    timer_set(&w.timers, &c.timer, w.now_ms + w.snapshot.plan.timeouts.handshake)
    if _needs_proxy_header(w, c, server):
        c.opening = OPENING_PROXY_HEADER
        return OPENING_WAITS
    return _begin_protocol(w, c, server)


# No PROXY header is ahead any more.
cdef int _begin_protocol(Worker* w, ClientConn* c,
                         const PlanVirtualServer* server) noexcept nogil:
    if server.protocol == PROTOCOL_HTTP:
        c.state = CLIENT_IDLE
        timer_set(&w.timers, &c.timer, w.now_ms + w.snapshot.plan.timeouts.client_header)
        return OPENING_SERVES
    if server.protocol == PROTOCOL_TCP:
        passage_begin(w, c, NULL)
        return OPENING_PASSED
    c.opening = OPENING_HELLO
    return OPENING_WAITS


cdef int _refuse(Worker* w, ClientConn* c, int cause) noexcept nogil:
    handshake_leave(w, c)
    passage_refuse(w, c, cause)
    return OPENING_PASSED


# --- what has been received ---------------------------------------------------------------

cdef void _adopt(ClientConn* c, const ProxyHeader* header) noexcept nogil:
    # LOCAL, UNKNOWN: the connection is the proxy's own, or of somebody that it has no name for.
    c.nameless = not header.has_addresses
    if header.has_addresses:
        c.peer = header.source
        c.local = header.destination
        c.local_known = True


cdef int _read_proxy_header(Worker* w, ClientConn* c,
                            const PlanVirtualServer* server) noexcept nogil:
    cdef ProxyHeader header
    cdef int taken = proxy_header_read(&header, c.buffer.data + c.buffer.start,
                                       buffer_pending(c.buffer))
    if taken == 0:
        return OPENING_WAITS
    if taken < 0:
        return _refuse(w, c, CAUSE_BAD_PROXY_HEADER)
    _adopt(c, &header)
    c.buffer.start += <uint32_t> taken
    if buffer_pending(c.buffer) == 0:
        buffer_return(&w.buffers, c.buffer)
        c.buffer = NULL
    return _begin_protocol(w, c, server)


cdef int _read_hello(Worker* w, ClientConn* c, const PlanVirtualServer* server) noexcept nogil:
    cdef TlsClientHello hello
    cdef int found
    memset(&hello, 0, sizeof(hello))
    hello.walked = c.hello_walked
    hello.payload = c.hello_payload
    found = tls_client_hello(&hello, c.buffer.data + c.buffer.start, buffer_pending(c.buffer),
                             w.scratch)
    if found == 0:
        c.hello_walked = hello.walked
        c.hello_payload = hello.payload
        return OPENING_WAITS
    if found < 0:
        return _no_hello(w, c, server, found)
    if server.protocol == PROTOCOL_HTTPS:
        return _shake_hands(w, c, handshake_open(w, c, server, &hello))
    passage_begin(w, c, &hello)
    return OPENING_PASSED


cdef int _no_hello(Worker* w, ClientConn* c, const PlanVirtualServer* server,
                   int error) noexcept nogil:
    if error == TLS_NOT_TLS and server.flags & SERVER_NOT_TLS_IS_TCP:
        passage_begin(w, c, NULL)
        return OPENING_PASSED
    if server.protocol == PROTOCOL_HTTPS:
        if error != TLS_NOT_TLS:
            _alert(w, c, DECODE_ERROR)
        elif c'A' <= c.buffer.data[c.buffer.start] <= c'Z':
            # Who forgot the "s" is told so, in the only language that it understands.
            _say(w, c, PLAIN_HTTP, <uint32_t> strlen(PLAIN_HTTP))
    return _refuse(w, c, CAUSE_NOT_TLS if error == TLS_NOT_TLS else CAUSE_BAD_HELLO)


# --- answers ahead of TLS -----------------------------------------------------------------

cdef void _say(Worker* w, ClientConn* c, const char* text, uint32_t count) noexcept nogil:
    # A new connection has room for it.
    w.iov[0].iov_base = <char*> text
    w.iov[0].iov_len = count
    stream_send(&c.stream, w.iov, 1)


cdef void _alert(Worker* w, ClientConn* c, int description) noexcept nogil:
    cdef char[7] record
    memcpy(record, "\x15\x03\x03\0\x02\x02", 6)     # an alert of two bytes, fatal
    record[6] = <char> description
    _say(w, c, record, sizeof(record))


# --- handshakes ---------------------------------------------------------------------------

# Acts on a result of `handshake`.
cdef int _shake_hands(Worker* w, ClientConn* c, int result) noexcept nogil:
    if result == 0:
        return OPENING_WAITS
    if result > 0:
        c.state = CLIENT_IDLE
        timer_set(&w.timers, &c.timer, w.now_ms + w.snapshot.plan.timeouts.client_header)
        return OPENING_SERVES
    if c.stream.tls == NULL and result != -CAUSE_CLIENT_CLOSED:
        _alert(w, c, INTERNAL_ERROR)
    return _refuse(w, c, -result)


cdef int _begin_queued(Worker* w, ClientConn* c) noexcept nogil:
    # The plan may be another one than when its hello came.
    cdef const PlanVirtualServer* server = _server(w, c)
    cdef TlsClientHello hello
    memset(&hello, 0, sizeof(hello))
    if server == NULL or server.protocol != PROTOCOL_HTTPS or tls_client_hello(
            &hello, c.buffer.data + c.buffer.start, buffer_pending(c.buffer), w.scratch) <= 0:
        return _refuse(w, c, CAUSE_STOPPED)
    return _shake_hands(w, c, handshake_begin(w, c, server, &hello))


cdef void opening_run_queue(Worker* w) noexcept nogil:
    cdef ClientConn* c = handshake_next(w)
    while c != NULL:
        if _begin_queued(w, c) == OPENING_SERVES:
            post_client(w, c)
        c = handshake_next(w)


cdef void opening_leave(Worker* w, ClientConn* c) noexcept nogil:
    handshake_leave(w, c)


cdef int _read(Worker* w, ClientConn* c, const PlanVirtualServer* server) noexcept nogil:
    cdef int result
    if c.opening == OPENING_PROXY_HEADER:
        result = _read_proxy_header(w, c, server)
        if result != OPENING_WAITS or c.opening != OPENING_HELLO or c.buffer == NULL:
            return result
    return _read_hello(w, c, server)


# --- receiving ----------------------------------------------------------------------------

cdef int _ended(Worker* w, ClientConn* c) noexcept nogil:
    # Who asks only whether we are there has nothing to be told, and is no error.
    return OPENING_CLOSES if c.buffer == NULL else _refuse(w, c, CAUSE_CLIENT_CLOSED)


cdef int opening_run(Worker* w, ClientConn* c) noexcept nogil:
    cdef const PlanVirtualServer* server = _server(w, c)
    cdef int64_t got
    cdef int result = OPENING_WAITS
    if c.opening >= OPENING_QUEUE:
        return _shake_hands(w, c, handshake_run(w, c))
    if server == NULL:
        return OPENING_CLOSES
    while result == OPENING_WAITS and c.opening < OPENING_QUEUE \
            and c.stream.ready & STREAM_READABLE:
        if not buffer_make_room(&w.buffers, &c.buffer):
            return _refuse(w, c, CAUSE_NO_BUFFER)
        got = stream_recv(&c.stream, c.buffer.data + c.buffer.end, c.buffer.size - c.buffer.end)
        if got <= 0 and buffer_pending(c.buffer) == 0:
            buffer_return(&w.buffers, c.buffer)
            c.buffer = NULL
        if got == STREAM_AGAIN:
            break
        if got < 0:
            return _ended(w, c)
        c.buffer.end += <uint32_t> got
        result = _read(w, c, server)
    return result


cdef int opening_timeout(Worker* w, ClientConn* c) noexcept nogil:
    if w.stopping and c.buffer == NULL and c.stream.tls == NULL:
        return OPENING_CLOSES
    return _refuse(w, c, CAUSE_OPENING_TIMEOUT)


cdef void opening_drain(Worker* w, ClientConn* c) noexcept nogil:
    if c.buffer == NULL and c.stream.tls == NULL and c.timer.deadline_ms > w.now_ms + FIRST_BYTE_MS:
        timer_set(&w.timers, &c.timer, w.now_ms + FIRST_BYTE_MS)
