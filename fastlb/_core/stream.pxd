# Reading and writing one connected socket, edge-triggered.
#
# Descriptors are registered once with all events; `Stream.ready` remembers the edges.
# A read that returns less than it asked for has emptied the socket, so no further read
# is needed to see EAGAIN (epoll(7)); only when the peer has finished sending (EPOLLRDHUP)
# is the socket read until its end, which a read that returns less then has seen too.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from fastlb._core.connection cimport STREAM_MUTED, Pipe, Stream, Worker
from fastlb._core.debug cimport unlikely
from fastlb._core.edit cimport iovec

cdef enum:
    PIPE_BYTES = 1024 * 1024         # fewer calls for bulk than with the default 64 KiB

cdef enum StreamResult:
    STREAM_AGAIN = -1                # nothing now; an edge will come
    STREAM_END = -2                  # the peer has finished sending
    STREAM_FAILED = -3               # reset or another error; STREAM_ERROR is set

# Registers a connected or connecting socket; False when the kernel refuses.
cdef bint stream_register(Worker* w, Stream* s) noexcept nogil
# While its bytes cannot be passed on anyhow: those that come wake nobody. It stays readable; its
# end, a reset and room to write are told of as before.
cdef void stream_mute(Worker* w, Stream* s) noexcept nogil
cdef void stream_hear(Worker* w, Stream* s) noexcept nogil


# Before waiting for its bytes.
cdef inline void stream_unmute(Worker* w, Stream* s) noexcept nogil:
    if unlikely(s.ready & STREAM_MUTED):
        stream_hear(w, s)


# Notes the events of one turn.
cdef void stream_note(Stream* s, uint32_t events) noexcept nogil
# > 0: bytes received; else a StreamResult.
cdef int64_t stream_recv(Stream* s, char* into, uint32_t room) noexcept nogil
# Whether nothing has come that was not read; asks the kernel only if there was no short read.
cdef bint stream_is_quiet(Stream* s) noexcept nogil
# >= 0: bytes sent, fewer than all when the socket is full; STREAM_AGAIN is 0 bytes.
# With `more`, the end of our side follows at once, and goes out with the last of these bytes.
cdef int64_t stream_send_more(Stream* s, const iovec* iov, uint32_t count,
                              bint more) noexcept nogil


cdef inline int64_t stream_send(Stream* s, const iovec* iov, uint32_t count) noexcept nogil:
    return stream_send_more(s, iov, count, False)


# Through a pipe, without copying; same results as recv and send.
cdef int64_t stream_splice_in(Stream* s, Pipe* pipe, uint64_t count) noexcept nogil
cdef int64_t stream_splice_out(Stream* s, Pipe* pipe) noexcept nogil
# The peer sees our end, behind all that was sent.
cdef void stream_shutdown(Stream* s) noexcept nogil
# Closes, and ends TLS; with `reset` the peer sees RST, never an orderly end.
cdef void stream_close(Stream* s, bint reset) noexcept nogil
# Bytes that were taken and have not left us: they are lost if the stream is closed now.
cdef inline uint32_t stream_waits(const Stream* s) noexcept nogil:
    return s.tls.waiting if unlikely(s.tls != NULL) else 0


# Nothing is under way for now: no more memory is kept than a connection at rest needs.
cdef void stream_rest(Stream* s) noexcept nogil
# Pipes of the worker; NULL when there is no descriptor left (the caller copies instead).
cdef Pipe* pipe_borrow(Worker* w) noexcept nogil
cdef void pipe_return(Worker* w, Pipe* pipe) noexcept nogil
cdef void pipe_free_all(Worker* w) noexcept nogil
# For a closed stream: later events of the same turn mean nothing.
cdef void stream_ignore(Worker* w, Stream* s, uint32_t events) noexcept nogil
