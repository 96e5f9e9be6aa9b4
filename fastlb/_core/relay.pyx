# The flow of a message's bytes (contract in relay.pxd).
#
# Three ways for a body: what came with the head goes out with the head; then buffers are
# read and sent; a run of at least SPLICE_MIN bytes that nobody has to look at goes through
# a pipe without being copied.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from fastlb._core.body cimport (
    BodySpan, body_expected, body_pass, body_skip, body_step,
)
from fastlb._core.buffer cimport (
    BUFFER_SMALL_BYTES, Buffer, buffer_borrow, buffer_return,
)
from fastlb._core.connection cimport (
    JOIN_BYTES, STREAM_EOF, STREAM_READABLE, STREAM_URGENT, STREAM_WRITABLE, WORKER_IOVECS, Flow,
    Stream, Worker,
)
from fastlb._core.debug cimport BUG_ON
from fastlb._core.edit cimport iovec
from fastlb._core.head cimport BODY_LENGTH, BODY_UNTIL_CLOSE
from fastlb._core.stream cimport (
    PIPE_BYTES, STREAM_AGAIN, STREAM_END, STREAM_FAILED, pipe_borrow, pipe_return, stream_mute,
    stream_recv, stream_send, stream_send_more, stream_splice_in, stream_splice_out,
    stream_unmute,
)

cdef enum:
    SPLICE_MIN_BYTES = 64 * 1024     # below it, two splices and a pipe cost more than the copy
    ROUNDS_MAX = 16                  # reads per call, and bytes: one bulk transfer starves nobody
    ONE_CALL_BYTES = 1024 * 1024
    STALLS_MAX = 2                   # turns for nothing, before the source is muted
    ROOM_MIN_BYTES = 4096            # less room than this behind a kept head: take another buffer


# --- sending ------------------------------------------------------------------------------

cdef void _sent(Worker* w, Flow* flow, uint64_t count) noexcept nogil:
    cdef uint32_t part
    if flow.head != NULL:
        part = flow.head.end - flow.head.start
        if count < part:
            flow.head.start += <uint32_t> count
            return
        count -= part
        buffer_return(&w.buffers, flow.head)
        flow.head = NULL
    BUG_ON(count > flow.run_bytes)
    flow.run += <uint32_t> count
    flow.run_bytes -= <uint32_t> count


cdef int flow_flush(Worker* w, Stream* target, Flow* flow) noexcept nogil:
    cdef iovec[2] iov
    cdef uint32_t count = 0
    cdef int64_t sent
    if flow.pipe != NULL and flow.pipe.bytes:
        return _flush_pipe(target, flow)
    if flow.head == NULL and flow.run_bytes == 0:
        return FLOW_DONE
    if not target.ready & STREAM_WRITABLE:
        return FLOW_WAIT_TARGET
    if flow.head != NULL:
        iov[0].iov_base = flow.head.data + flow.head.start
        iov[0].iov_len = flow.head.end - flow.head.start
        count = 1
    if flow.run_bytes:
        iov[count].iov_base = flow.data.data + flow.run
        iov[count].iov_len = flow.run_bytes
        count += 1
    sent = stream_send_more(target, iov, count, flow.last)
    if sent == STREAM_FAILED:
        return FLOW_TARGET_FAILED
    flow.bytes += <uint64_t> sent
    _sent(w, flow, <uint64_t> sent)
    return FLOW_WAIT_TARGET if flow.head != NULL or flow.run_bytes else FLOW_DONE


cdef int _flush_pipe(Stream* target, Flow* flow) noexcept nogil:
    cdef int64_t sent
    if not target.ready & STREAM_WRITABLE:
        return FLOW_WAIT_TARGET
    sent = stream_splice_out(target, flow.pipe)
    if sent == STREAM_FAILED:
        return FLOW_TARGET_FAILED
    flow.bytes += <uint64_t> sent
    return FLOW_WAIT_TARGET if flow.pipe.bytes else FLOW_DONE


cdef int _keep_rest(Worker* w, Flow* flow, const iovec* iov, uint32_t count,
                    uint64_t sent) noexcept nogil:
    # The socket took only a part of an edited head: the rest is copied once and sent later.
    cdef uint32_t i, skip, room
    flow.head = buffer_borrow(&w.buffers, False)
    if flow.head == NULL:
        return FLOW_NO_BUFFER
    for i in range(count):
        if sent >= iov[i].iov_len:
            sent -= iov[i].iov_len
            continue
        skip = <uint32_t> sent
        sent = 0
        room = <uint32_t> iov[i].iov_len - skip
        if flow.head.end + room > flow.head.size and (
                not _enlarge(w, flow) or flow.head.end + room > flow.head.size):
            return FLOW_NO_BUFFER
        memcpy(flow.head.data + flow.head.end, <const char*> iov[i].iov_base + skip, room)
        flow.head.end += room
    return 0


cdef bint _enlarge(Worker* w, Flow* flow) noexcept nogil:
    # A large buffer has room for any head, and for all but an excess of added fields.
    cdef Buffer* larger = buffer_borrow(&w.buffers, True)
    if larger == NULL:
        return False
    memcpy(larger.data, flow.head.data, flow.head.end)
    larger.end = flow.head.end
    buffer_return(&w.buffers, flow.head)
    flow.head = larger
    return True


cdef inline int64_t _send_joined(Worker* w, Stream* target, const iovec* iov, uint32_t count,
                                 uint64_t total) noexcept nogil:
    # Up to JOIN_BYTES one copy and send() cost less than what sendmsg() spends on importing
    # and walking the vectors (measured: benchmarks/join.c).
    cdef iovec whole
    cdef uint32_t i
    cdef char* at = w.joined
    if count == 1 or total > JOIN_BYTES:
        return stream_send(target, iov, count)
    for i in range(count):
        memcpy(at, iov[i].iov_base, iov[i].iov_len)
        at += iov[i].iov_len
    whole.iov_base = w.joined
    whole.iov_len = total
    return stream_send(target, &whole, 1)


cdef int flow_send_head(Worker* w, Stream* target, Flow* flow, iovec* iov,
                        uint32_t count) noexcept nogil:
    cdef uint64_t head_bytes = 0
    cdef int64_t sent
    cdef uint32_t i, total = count
    for i in range(count):
        head_bytes += iov[i].iov_len
    if flow.run_bytes:
        if <char*> iov[count - 1].iov_base + iov[count - 1].iov_len == flow.data.data + flow.run:
            iov[count - 1].iov_len += flow.run_bytes
        else:
            BUG_ON(count >= WORKER_IOVECS)
            iov[count].iov_base = flow.data.data + flow.run
            iov[count].iov_len = flow.run_bytes
            total = count + 1
    sent = _send_joined(w, target, iov, total, head_bytes + flow.run_bytes)
    if sent == STREAM_FAILED:
        return FLOW_TARGET_FAILED
    flow.bytes += <uint64_t> sent
    if <uint64_t> sent >= head_bytes:
        sent -= <int64_t> head_bytes
        flow.run += <uint32_t> sent
        flow.run_bytes -= <uint32_t> sent
        return 0
    if total == count and flow.run_bytes:
        iov[count - 1].iov_len -= flow.run_bytes
    return _keep_rest(w, flow, iov, count, <uint64_t> sent)


# --- reading ------------------------------------------------------------------------------

cdef int _frame_decoded(Flow* flow, uint32_t offset, uint32_t count) noexcept nogil:
    # The data of the chunks is moved together at `offset`; the bytes of a next message
    # (there are none in a response that ends its connection) are dropped.
    cdef BodySpan span
    cdef char* base = flow.data.data
    cdef uint32_t at = offset, end = offset + count, out = offset
    cdef int64_t used
    flow.run = offset
    while at < end and not flow.body.done:
        used = body_step(&flow.body, base + at, end - at, &span)
        if used < 0:
            flow.run_bytes = out - offset
            return FLOW_BAD_BODY
        memmove(base + out, base + at + span.offset, span.bytes)
        out += <uint32_t> span.bytes
        at += <uint32_t> used
    flow.run_bytes = out - offset
    # Bytes behind the message are nobody's, but they have to show.
    flow.data.end = out + (end - at)
    return 0


cdef int flow_frame(Flow* flow, uint32_t offset, uint32_t count) noexcept nogil:
    cdef int64_t passed
    if flow.decode:
        return _frame_decoded(flow, offset, count)
    flow.run = offset
    passed = body_pass(&flow.body, flow.data.data + offset, count)
    if passed < 0:
        flow.run_bytes = <uint32_t> flow.body.passed
        return FLOW_BAD_BODY
    flow.run_bytes = <uint32_t> passed
    return 0


cdef bint _room(Worker* w, Flow* flow) noexcept nogil:
    # A buffer with room behind the head that has to be kept, or another one.
    if flow.data != NULL and flow.keep:
        if flow.data.size - flow.keep >= ROOM_MIN_BYTES:
            return True
        flow.kept = flow.data
        flow.keep = 0
        flow.data = NULL
    elif flow.data != NULL:
        if flow.data.size > BUFFER_SMALL_BYTES or not flow.large:
            return True
        buffer_return(&w.buffers, flow.data)
        flow.data = NULL
    flow.data = buffer_borrow(&w.buffers, flow.large)
    if flow.data == NULL and flow.large:
        flow.data = buffer_borrow(&w.buffers, False)  # slower is better than not at all
    return flow.data != NULL


cdef int _pull(Worker* w, Stream* source, Stream* target, Flow* flow) noexcept nogil:
    cdef uint64_t expected = body_expected(&flow.body)
    cdef uint32_t room
    cdef int64_t got
    if expected >= SPLICE_MIN_BYTES and not flow.decode and flow.inspect == NULL \
            and (flow.large or flow.body.kind == BODY_LENGTH) \
            and source.tls == NULL and target.tls == NULL \
            and not source.ready & STREAM_URGENT and _splice_ready(w, flow):
        return _pull_spliced(w, source, flow, expected)
    if not _room(w, flow):
        return FLOW_NO_BUFFER
    room = flow.data.size - flow.keep
    if flow.body.kind == BODY_LENGTH and expected < room:
        # What follows the message stays in the socket, but for a byte: without it a full read
        # would not tell whether anything follows.
        room = <uint32_t> expected + 1
    got = stream_recv(source, flow.data.data + flow.keep, room)
    if got <= 0:
        return _pull_failed(got)
    flow.large = got == room and room >= BUFFER_SMALL_BYTES // 2
    flow.data.end = flow.keep + <uint32_t> got
    flow.last = flow.body.kind == BODY_UNTIL_CLOSE and source.ready & STREAM_EOF != 0
    if flow.inspect != NULL:
        flow.inspect(w, flow.inspected, flow.data.data + flow.keep, <uint32_t> got)
    return flow_frame(flow, flow.keep, <uint32_t> got)


cdef inline int _pull_failed(int64_t got) noexcept nogil:
    if got == STREAM_AGAIN:
        return FLOW_WAIT_SOURCE
    return FLOW_SOURCE_END if got == STREAM_END else FLOW_SOURCE_FAILED


cdef bint _splice_ready(Worker* w, Flow* flow) noexcept nogil:
    if flow.pipe == NULL:
        flow.pipe = pipe_borrow(w)
    return flow.pipe != NULL


cdef int _pull_spliced(Worker* w, Stream* source, Flow* flow, uint64_t expected) noexcept nogil:
    cdef int64_t got
    cdef uint64_t wanted = expected if expected < PIPE_BYTES else PIPE_BYTES
    BUG_ON(flow.pipe.bytes != 0)
    got = stream_splice_in(source, flow.pipe, wanted)
    if got <= 0:
        return _pull_failed(got)
    body_skip(&flow.body, <uint64_t> got)
    # Small pieces are cheaper to copy.
    flow.large = got >= BUFFER_SMALL_BYTES
    return 0


cdef void _stall(Worker* w, Stream* source, Flow* flow, bint moved) noexcept nogil:
    # Each segment that comes would wake us up to find the target full: thousands of turns per
    # gigabyte, where the source is the faster one.
    if moved:
        flow.stalls = 0
        return
    flow.stalls += 1
    if flow.stalls < STALLS_MAX:
        return
    flow.stalls = 0
    if source != NULL and source.tls == NULL and source.ready & STREAM_READABLE:
        stream_mute(w, source)


cdef int flow_run(Worker* w, Stream* source, Stream* target, Flow* flow) noexcept nogil:
    cdef int result
    cdef int rounds = 0
    cdef uint64_t before = flow.bytes
    while True:
        result = flow_flush(w, target, flow)
        if result == FLOW_WAIT_TARGET:
            _stall(w, source, flow, flow.bytes != before)
        if result != FLOW_DONE:
            return result
        if flow.body.done:
            return FLOW_DONE
        if flow.data != NULL and flow.keep == 0:
            flow.data.end = 0
        if not source.ready & STREAM_READABLE:
            _rest(w, flow)
            stream_unmute(w, source)
            return FLOW_WAIT_SOURCE
        if rounds == ROUNDS_MAX or flow.bytes - before >= ONE_CALL_BYTES:
            return FLOW_AGAIN
        rounds += 1
        result = _pull(w, source, target, flow)
        if result == FLOW_WAIT_SOURCE or result == FLOW_SOURCE_END:
            # A tunnel may stay half closed for long.
            _rest(w, flow)
            stream_unmute(w, source)
            return result
        if result == FLOW_BAD_BODY:
            # What came before the error is the message's own and still goes out.
            flow_flush(w, target, flow)
            return result
        if flow.data_bytes_max and flow.body.data_bytes > flow.data_bytes_max:
            return FLOW_TOO_LARGE
        if result != 0:
            return result


cdef void _rest(Worker* w, Flow* flow) noexcept nogil:
    # Waiting with nothing to send: no buffer and no pipe is held.
    if flow.data != NULL and flow.keep == 0:
        buffer_return(&w.buffers, flow.data)
        flow.data = NULL
    if flow.pipe != NULL:
        pipe_return(w, flow.pipe)
        flow.pipe = NULL


cdef void flow_end(Worker* w, Flow* flow) noexcept nogil:
    if flow.head != NULL:
        buffer_return(&w.buffers, flow.head)
        flow.head = NULL
    if flow.data != NULL:
        buffer_return(&w.buffers, flow.data)
        flow.data = NULL
    if flow.kept != NULL:
        buffer_return(&w.buffers, flow.kept)
        flow.kept = NULL
    if flow.pipe != NULL:
        pipe_return(w, flow.pipe)
        flow.pipe = NULL
    flow.run_bytes = 0
