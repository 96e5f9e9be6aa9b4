# Gathering a body (contract in rule_body.pxd).
#
# A buffer is never larger than twice what has come: what a client merely announces takes no memory.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastlb._core.body cimport BodyReader, BodySpan, body_expected, body_pass, body_start, body_step
from fastlb._core.bounds cimport bounds_of_body
from fastlb._core.buffer cimport (
    BUFFER_LARGE_BYTES, Buffer, buffer_borrow_bytes, buffer_return, buffer_room,
)
from fastlb._core.connection cimport (
    STREAM_READABLE, ClientConn, Exchange, Worker, post_client,
)
from fastlb._core.debug cimport BUG_ON
from fastlb._core.exchange_end cimport exchange_abort, exchange_reply
from fastlb._core.head cimport BODY_LENGTH
from fastlb._core.limits cimport RULE_BODY_BYTES_MAX
from fastlb._core.outcome cimport (
    CAUSE_BAD_REQUEST_BODY, CAUSE_BODY_TOO_LARGE, CAUSE_CLIENT_CLOSED, CAUSE_NO_BUFFER,
)
from fastlb._core.relay cimport FLOW_TARGET_FAILED, flow_flush, flow_send_head
from fastlb._core.request cimport request_reload
from fastlb._core.rule_call cimport (
    RULE_BODY_LOST, RULE_BODY_READY, RULE_BODY_TOO_LARGE, RULE_REQUEST, RuleCall,
)
from fastlb._core.rule_queue cimport rule_queue_tell
from fastlb._core.stream cimport STREAM_AGAIN, STREAM_END, stream_recv
from fastlb._core.timer cimport timer_await

cdef enum:
    ROOM_MIN_BYTES = 4096
    READS_MAX = 16                   # per turn
    FRAMING_BYTES_MAX = 64 * 1024    # of chunks, beyond as many bytes as the body may have

cdef const char* CONTINUE = "HTTP/1.1 100 Continue\r\n\r\n"


cdef bint _tell(Exchange* x, int body_state) noexcept nogil:
    x.rules.gathers = False
    x.rules.call.body_state = <unsigned char> body_state
    rule_queue_tell(x.rules.call)
    return True


cdef void _decode(const Exchange* x, char* out) noexcept nogil:
    # It has been walked over once: there is no error in it.
    cdef const char* at = x.up.data.data + x.up.run
    cdef uint32_t left = x.up.run_bytes
    cdef BodyReader reader
    cdef BodySpan span
    cdef int64_t used
    if x.up.body.kind == BODY_LENGTH:
        memcpy(out, at, left)
        return
    body_start(&reader, x.up.body.kind, 0)
    bounds_of_body(&reader, x.snapshot.plan)
    while left and not reader.done:
        used = body_step(&reader, at, left, &span)
        BUG_ON(used <= 0)
        memcpy(out, at + span.offset, span.bytes)
        out += span.bytes
        at += used
        left -= <uint32_t> used


cdef bint _give(Worker* w, Exchange* x) noexcept nogil:
    cdef RuleCall* call = x.rules.call
    cdef uint64_t count = x.up.body.data_bytes
    cdef Buffer* copy
    if count > call.body_max:
        return _tell(x, RULE_BODY_TOO_LARGE)
    if call.body_buffer == NULL:
        copy = buffer_borrow_bytes(&w.buffers, <uint32_t> count)
        if copy == NULL:
            exchange_reply(w, x, 503, CAUSE_NO_BUFFER)
            return False
        call.body_buffer = copy
        call.body = copy.data
        call.body_bytes = count
        _decode(x, copy.data)
    return _tell(x, RULE_BODY_READY)


# RFC 9110 10.1.1: the client waits for it; the node need not be asked any more.
cdef bint _say_continue(Worker* w, Exchange* x) noexcept nogil:
    cdef uint32_t run_bytes = x.down.run_bytes
    if not x.expect_continue or x.continued or x.up.run_bytes:
        return True
    x.continued = True
    BUG_ON(run_bytes != 0)
    w.iov[0].iov_base = <char*> CONTINUE
    w.iov[0].iov_len = 25
    if flow_send_head(w, &x.client.stream, &x.down, w.iov, 1) != 0:
        exchange_abort(w, x, CAUSE_CLIENT_CLOSED)
        return False
    return True


cdef bint rule_body_begin(Worker* w, Exchange* x) noexcept nogil:
    cdef RuleCall* call = x.rules.call
    if call.body_max > RULE_BODY_BYTES_MAX:
        call.body_max = RULE_BODY_BYTES_MAX
    if call.kind != RULE_REQUEST or x.up.kept != NULL:
        return _tell(x, RULE_BODY_LOST)
    if x.up.body.done:
        return _give(w, x)
    request_reload(w, x)
    if w.request.content_length > call.body_max:
        return _tell(x, RULE_BODY_TOO_LARGE)
    if not _say_continue(w, x):
        return False
    x.rules.gathers = True
    timer_await(&w.timers, &x.client.timer, w.now_ms + x.snapshot.plan.timeouts.client_body, True)
    return rule_body_run(w, x)


cdef bint _room(Worker* w, Exchange* x) noexcept nogil:
    cdef Buffer* data = x.up.data
    cdef Buffer* larger
    cdef uint32_t size
    if buffer_room(data) >= ROOM_MIN_BYTES or (
            x.up.body.kind == BODY_LENGTH and buffer_room(data) >= body_expected(&x.up.body)):
        return True
    size = 2 * data.size if data.size >= BUFFER_LARGE_BYTES else BUFFER_LARGE_BYTES
    larger = buffer_borrow_bytes(&w.buffers, size)
    if larger == NULL:
        return False
    memcpy(larger.data, data.data, data.end)
    larger.start = data.start
    larger.end = data.end
    buffer_return(&w.buffers, data)
    x.up.data = larger
    return True


cdef bint _refuse(Worker* w, Exchange* x, int status, int cause) noexcept nogil:
    x.client_persists = False
    exchange_reply(w, x, status, cause)
    return False


# What was received is a part of the body, and of what follows it. False: the exchange is over.
cdef bint _take(Worker* w, Exchange* x, uint32_t got) noexcept nogil:
    cdef Buffer* data = x.up.data
    cdef uint64_t most = x.snapshot.plan.limits.body_bytes
    cdef int64_t passed = body_pass(&x.up.body, data.data + data.end, got)
    if passed < 0:
        return _refuse(w, x, 400, CAUSE_BAD_REQUEST_BODY)
    x.up.run_bytes += <uint32_t> passed
    data.end += got
    if most and x.up.body.data_bytes > most:
        return _refuse(w, x, 413, CAUSE_BODY_TOO_LARGE)
    return True


cdef bint rule_body_run(Worker* w, Exchange* x) noexcept nogil:
    cdef ClientConn* c = x.client
    cdef RuleCall* call = x.rules.call
    cdef uint32_t before = x.up.run_bytes, room
    cdef int64_t got
    cdef int reads = 0
    if x.down.head != NULL and flow_flush(w, &c.stream, &x.down) == FLOW_TARGET_FAILED:
        exchange_abort(w, x, CAUSE_CLIENT_CLOSED)
        return False
    while not x.up.body.done:
        if reads == READS_MAX:
            post_client(w, c)
            break
        if not c.stream.ready & STREAM_READABLE:
            break
        reads += 1
        if not _room(w, x):
            return _refuse(w, x, 503, CAUSE_NO_BUFFER)
        room = buffer_room(x.up.data)
        if x.up.body.kind == BODY_LENGTH and body_expected(&x.up.body) < room:
            room = <uint32_t> body_expected(&x.up.body)
        got = stream_recv(&c.stream, x.up.data.data + x.up.data.end, room)
        if got == STREAM_AGAIN:
            continue
        if got == STREAM_END:
            return _refuse(w, x, 400, CAUSE_CLIENT_CLOSED)
        if got < 0:
            exchange_abort(w, x, CAUSE_CLIENT_CLOSED)
            return False
        if not _take(w, x, <uint32_t> got):
            return False
        if x.up.body.data_bytes > call.body_max \
                or x.up.run_bytes > 2 * call.body_max + FRAMING_BYTES_MAX:
            return _tell(x, RULE_BODY_TOO_LARGE)
    if x.up.body.done:
        return _give(w, x)
    timer_await(&w.timers, &c.timer, w.now_ms + x.snapshot.plan.timeouts.client_body,
                x.up.run_bytes != before)
    return True
