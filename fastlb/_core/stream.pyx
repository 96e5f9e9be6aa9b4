# The socket calls of the data path (contract in stream.pxd).

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastlb._core.connection cimport (
    STREAM_EOF, STREAM_ERROR, STREAM_HUP, STREAM_MUTED, STREAM_READABLE, STREAM_RESET,
    STREAM_URGENT, STREAM_WRITABLE, Pipe, Stream, Worker,
)
from fastlb._core.debug cimport BUG_ON, likely, unlikely
from fastlb._core.edit cimport iovec
from fastlb._core cimport system
from fastlb._core.tls_stream cimport (
    tls_close, tls_farewell, tls_note, tls_recv, tls_rest, tls_send, tls_shutdown,
)

cdef enum:
    PIPE_LEAST_BYTES = 64 * 1024     # a smaller pipe costs more calls than copying
    PIPES_FREE_MAX = 64


cdef bint _watch(Worker* w, Stream* s, int operation, uint32_t events) noexcept nogil:
    cdef system.epoll_event event
    event.events = events | system.EPOLLOUT | system.EPOLLRDHUP | <uint32_t> system.EPOLLET
    event.data.ptr = s
    return system.epoll_ctl(w.epoll_fd, operation, s.fd, &event) == 0


cdef bint stream_register(Worker* w, Stream* s) noexcept nogil:
    return _watch(w, s, system.EPOLL_CTL_ADD, system.EPOLLIN | system.EPOLLPRI)


cdef void stream_mute(Worker* w, Stream* s) noexcept nogil:
    BUG_ON(not s.ready & STREAM_READABLE)
    BUG_ON(s.tls != NULL)
    # The kernel takes ordinary bytes for EPOLLPRI, too, when it decides whom to wake.
    if not s.ready & STREAM_MUTED and _watch(w, s, system.EPOLL_CTL_MOD, 0):
        s.ready |= STREAM_MUTED


cdef void stream_hear(Worker* w, Stream* s) noexcept nogil:
    # The kernel tells of what is there already, too (epoll_ctl(2), EPOLL_CTL_MOD).
    s.ready &= ~STREAM_MUTED
    _watch(w, s, system.EPOLL_CTL_MOD, system.EPOLLIN | system.EPOLLPRI)


cdef void stream_note(Stream* s, uint32_t events) noexcept nogil:
    if events & system.EPOLLIN:
        s.ready |= STREAM_READABLE
    if events & system.EPOLLOUT and likely(s.tls == NULL):
        s.ready |= STREAM_WRITABLE
    if unlikely(events & system.EPOLLPRI):
        s.ready |= STREAM_URGENT | STREAM_READABLE
    if events & system.EPOLLRDHUP:
        s.ready |= STREAM_HUP | STREAM_READABLE
    if events & (system.EPOLLERR | system.EPOLLHUP):
        # Both directions are gone or an error is pending; what was received can still be read.
        s.ready |= STREAM_HUP | STREAM_READABLE
        if events & system.EPOLLERR:
            s.ready |= STREAM_ERROR
    if unlikely(s.tls != NULL):
        tls_note(s.tls, s, events)


cdef int64_t _read_failed(Stream* s) noexcept nogil:
    if system.errno == system.EAGAIN:
        s.ready &= ~STREAM_READABLE
        return STREAM_AGAIN
    s.ready |= STREAM_ERROR
    s.ready &= ~STREAM_READABLE
    return STREAM_FAILED


cdef bint stream_is_quiet(Stream* s) noexcept nogil:
    cdef char byte
    if not s.ready & STREAM_READABLE:
        return True
    if s.tls != NULL:
        # What has come may be the library's own: a ticket, an update of keys.
        return tls_recv(s.tls, s, &byte, 1) == STREAM_AGAIN
    if system.recv(s.fd, &byte, 1, system.MSG_PEEK) >= 0 or system.errno != system.EAGAIN:
        return False
    s.ready &= ~STREAM_READABLE
    return True


cdef inline int64_t _read_done(Stream* s, ssize_t got, uint64_t wanted) noexcept nogil:
    if got == 0:
        s.ready |= STREAM_EOF
        s.ready &= ~STREAM_READABLE
        return STREAM_FAILED if s.ready & STREAM_RESET else STREAM_END
    # Urgent data ends a read, too, whatever is behind it (tcp(7)).
    if <uint64_t> got < wanted and not s.ready & STREAM_URGENT:
        if not s.ready & STREAM_HUP:
            s.ready &= ~STREAM_READABLE
        elif not s.ready & (STREAM_ERROR | STREAM_RESET):
            s.ready |= STREAM_EOF    # it stood behind these bytes
    return got


cdef int64_t stream_recv(Stream* s, char* into, uint32_t room) noexcept nogil:
    cdef ssize_t got
    BUG_ON(room == 0)
    if unlikely(s.tls != NULL):
        return tls_recv(s.tls, s, into, room)
    if s.ready & STREAM_EOF:
        s.ready &= ~STREAM_READABLE
        return STREAM_END
    while True:
        got = system.recv(s.fd, into, room, 0)
        if likely(got >= 0):
            return _read_done(s, got, room)
        if system.errno != system.EINTR:
            return _read_failed(s)


cdef int64_t _write_failed(Stream* s) noexcept nogil:
    if system.errno == system.EAGAIN:
        s.ready &= ~STREAM_WRITABLE
        return 0
    # The kernel tells of a reset once only. EPIPE is not it: the peer had ended in order before.
    s.ready |= STREAM_ERROR if system.errno == system.EPIPE else STREAM_ERROR | STREAM_RESET
    s.ready &= ~STREAM_WRITABLE
    return STREAM_FAILED


cdef int64_t stream_send_more(Stream* s, const iovec* iov, uint32_t count,
                              bint more) noexcept nogil:
    cdef int flags = system.MSG_NOSIGNAL | system.MSG_MORE if more else system.MSG_NOSIGNAL
    cdef system.msghdr message
    cdef ssize_t sent
    cdef uint64_t total = 0
    cdef uint32_t i
    if unlikely(s.tls != NULL):
        return tls_send(s.tls, s, iov, count)
    for i in range(count):
        total += iov[i].iov_len
    while True:
        if count == 1:
            sent = system.send(s.fd, iov[0].iov_base, iov[0].iov_len, flags)
        else:
            memset(&message, 0, sizeof(message))
            message.msg_iov = <system.iovec*> iov
            message.msg_iovlen = count
            sent = system.sendmsg(s.fd, &message, flags)
        if likely(sent >= 0):
            break
        if system.errno != system.EINTR:
            return _write_failed(s)
    if <uint64_t> sent < total:
        s.ready &= ~STREAM_WRITABLE
    return sent


cdef int64_t stream_splice_in(Stream* s, Pipe* pipe, uint64_t count) noexcept nogil:
    cdef ssize_t got
    BUG_ON(s.tls != NULL)
    if s.ready & STREAM_EOF:
        s.ready &= ~STREAM_READABLE
        return STREAM_END
    while True:
        got = system.splice(s.fd, NULL, pipe.out_fd, NULL, count,
                            system.SPLICE_F_MOVE | system.SPLICE_F_NONBLOCK)
        if likely(got > 0):
            # A short count may also mean a full pipe, so the socket counts as readable on.
            pipe.bytes += <uint32_t> got
            return got
        if got == 0:
            return _read_done(s, 0, count)
        if system.errno != system.EINTR:
            return _read_failed(s)


cdef int64_t stream_splice_out(Stream* s, Pipe* pipe) noexcept nogil:
    cdef ssize_t sent
    BUG_ON(s.tls != NULL)
    while True:
        # Without SPLICE_F_MORE: to hold back each last segment costs more than it saves.
        sent = system.splice(pipe.in_fd, NULL, s.fd, NULL, pipe.bytes,
                             system.SPLICE_F_MOVE | system.SPLICE_F_NONBLOCK)
        if likely(sent >= 0):
            break
        if system.errno != system.EINTR:
            return _write_failed(s)
    pipe.bytes -= <uint32_t> sent
    if pipe.bytes:
        s.ready &= ~STREAM_WRITABLE
    return sent


cdef void stream_shutdown(Stream* s) noexcept nogil:
    if s.tls != NULL:
        tls_shutdown(s.tls, s)
    else:
        system.shutdown(s.fd, system.SHUT_WR)


cdef void stream_rest(Stream* s) noexcept nogil:
    if unlikely(s.tls != NULL):
        tls_rest(s.tls)


cdef void stream_close(Stream* s, bint reset) noexcept nogil:
    cdef system.linger at_once
    if unlikely(s.tls != NULL):
        if not reset:
            tls_farewell(s.tls, s)
        tls_close(s.tls)
        s.tls = NULL
    if reset:
        at_once.l_onoff = 1
        at_once.l_linger = 0
        system.setsockopt(s.fd, system.SOL_SOCKET, system.SO_LINGER, &at_once, sizeof(at_once))
    system.close(s.fd)
    s.fd = -1


cdef Pipe* pipe_borrow(Worker* w) noexcept nogil:
    cdef Pipe* pipe = w.free_pipes
    cdef int[2] fds
    if pipe != NULL:
        w.free_pipes = pipe.next_free
        w.free_pipe_count -= 1
    else:
        if system.pipe2(fds, system.O_NONBLOCK | system.O_CLOEXEC) < 0:
            return NULL
        pipe = <Pipe*> malloc(sizeof(Pipe))
        if pipe == NULL:
            system.close(fds[0])
            system.close(fds[1])
            return NULL
        pipe.in_fd = fds[0]
        pipe.out_fd = fds[1]
        # May be refused, and near the user's limit the kernel makes tiny pipes (pipe(7),
        # pipe-user-pages-soft): then copying is better.
        system.fcntl(fds[1], system.F_SETPIPE_SZ, PIPE_BYTES)
        if system.fcntl(fds[1], system.F_GETPIPE_SZ, 0) < PIPE_LEAST_BYTES:
            _pipe_destroy(pipe)
            return NULL
    pipe.bytes = 0
    pipe.next_free = NULL
    w.stats.pipes += 1
    return pipe


cdef void _pipe_destroy(Pipe* pipe) noexcept nogil:
    system.close(pipe.in_fd)
    system.close(pipe.out_fd)
    free(pipe)


cdef void pipe_return(Worker* w, Pipe* pipe) noexcept nogil:
    w.stats.pipes -= 1
    if pipe.bytes or w.free_pipe_count >= PIPES_FREE_MAX:
        # Bytes of a broken transfer must never reach another connection.
        _pipe_destroy(pipe)
        return
    pipe.next_free = w.free_pipes
    w.free_pipes = pipe
    w.free_pipe_count += 1


cdef void pipe_free_all(Worker* w) noexcept nogil:
    cdef Pipe* pipe = w.free_pipes
    cdef Pipe* following
    while pipe != NULL:
        following = pipe.next_free
        _pipe_destroy(pipe)
        pipe = following
    w.free_pipes = NULL
    w.free_pipe_count = 0


cdef void stream_ignore(Worker* w, Stream* s, uint32_t events) noexcept nogil:
    pass
