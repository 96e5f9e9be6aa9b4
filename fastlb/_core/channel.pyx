# The worker's end of the channel (contract in channel.pxd).
#
# When the control process is gone the channel ends; the worker then goes on with the plan it
# has, until another control process asks for it, or a signal ends it. One that cannot be asked, for
# lack of a socket, leaves.

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

from fastlb._core cimport system
from fastlb._core.accept cimport (
    accept_add, accept_close_all, accept_drop, accept_find, accept_follow_plan,
)
from fastlb._core.access_log cimport access_log_reopen
from fastlb._core.client cimport client_drain_all
from fastlb._core.connection cimport Listener, Snapshot, Stream, Worker
from fastlb._core.snapshot cimport snapshot_enter, snapshot_map
from fastlb._core.stream cimport stream_ignore
from fastlb._core.timer cimport timer_set
from fastlb._core.upstream cimport upstream_drop_all_idle

cdef enum:
    MESSAGE_BYTES_MAX = 8192
    MESSAGE_FDS_MAX = 254            # SCM_MAX_FD of Linux is 253
    CONTROL_BYTES = 2048
    RETRY_MS = 100                   # after the system ran out of descriptors
    HELD_MAX = 240                   # sockets in one HELD message

ctypedef struct HelloMessage:
    ChannelHead head
    ChannelHello hello

ctypedef struct HeldMessage:
    ChannelHead head
    ChannelListener[HELD_MAX] entries


cdef bint _watch(Worker* w, Stream* s) noexcept nogil:
    cdef system.epoll_event event
    event.events = system.EPOLLIN
    event.data.ptr = s
    return system.epoll_ctl(w.epoll_fd, system.EPOLL_CTL_ADD, s.fd, &event) == 0


cdef bint channel_open(Worker* w, int fd, int adoption) noexcept nogil:
    w.adoption.fd = adoption
    w.adoption.on_events = _adoption_events
    w.channel.fd = fd
    w.channel.on_events = _events
    return _watch(w, &w.channel)


cdef void channel_close(Worker* w) noexcept nogil:
    if w.adoption.fd >= 0:
        system.close(w.adoption.fd)
    w.adoption.fd = -1
    w.adoption.on_events = stream_ignore
    _lose(w)


cdef void _lose(Worker* w) noexcept nogil:
    if w.channel.fd >= 0:
        system.close(w.channel.fd)
    w.channel.fd = -1
    w.channel.on_events = stream_ignore
    if w.adoption.fd >= 0:
        _watch(w, &w.adoption)


cdef bint _answer(Worker* w, uint32_t kind, uint64_t generation) noexcept nogil:
    cdef ChannelHead head
    head.kind = kind
    head.count = 0
    head.generation = generation
    return system.send(w.channel.fd, &head, sizeof(head),
                       system.MSG_NOSIGNAL | system.MSG_DONTWAIT) >= 0


cdef void channel_tell_released(Worker* w) noexcept nogil:
    cdef Snapshot* oldest = w.snapshots
    while oldest.next != NULL:
        oldest = oldest.next
    # What could not be sent is tried again in a later turn.
    if oldest.plan.generation != w.released and (
            w.channel.fd < 0 or _answer(w, CHANNEL_RELEASED, oldest.plan.generation)):
        w.released = oldest.plan.generation


# --- a new control process ----------------------------------------------------------------

cdef bint _say_hello(Worker* w) noexcept nogil:
    cdef HelloMessage message
    cdef Listener* listener = w.listeners
    cdef int[2] fds
    cdef int fd_count = 1
    message.head.kind = CHANNEL_HELLO
    message.head.count = 0
    message.head.generation = 0
    message.hello.column = w.index
    message.hello.flags = HELLO_STOPPING if w.stopping else 0
    message.hello.pid = <uint32_t> system.getpid()
    message.hello.sockets = 0
    while listener != NULL:
        message.hello.sockets += 1
        listener = listener.next
    fds[0] = w.segment_fd
    if w.snapshot != NULL:
        message.head.generation = w.snapshot.plan.generation
        fds[1] = w.snapshot.fd
        fd_count = 2
    return system.send_descriptors(w.channel.fd, &message, sizeof(message), fds, fd_count)


cdef bint _show_sockets(Worker* w) noexcept nogil:
    cdef HeldMessage message
    cdef Listener* listener = w.listeners
    cdef int[HELD_MAX] fds
    cdef uint32_t i
    message.head.kind = CHANNEL_HELD
    message.head.generation = 0
    while listener != NULL:
        i = 0
        while listener != NULL and i < HELD_MAX:
            message.entries[i].id = listener.id
            message.entries[i].socket = listener.socket
            fds[i] = listener.stream.fd
            i += 1
            listener = listener.next
        message.head.count = i
        if not system.send_descriptors(
                w.channel.fd, &message, sizeof(ChannelHead) + i * sizeof(ChannelListener),
                fds, <int> i):
            return False
    return True


cdef void channel_heed_adoption(Worker* w) noexcept nogil:
    if w.adoption.fd >= 0 and w.channel.fd < 0:
        _watch(w, &w.adoption)


cdef void _adoption_events(Worker* w, Stream* s, uint32_t events) noexcept nogil:
    cdef int fd = system.accept4(s.fd, NULL, NULL, system.SOCK_NONBLOCK | system.SOCK_CLOEXEC)
    if fd < 0:
        if system.errno in (system.EMFILE, system.ENFILE, system.ENOBUFS, system.ENOMEM):
            # It would be reported again at once.
            system.epoll_ctl(w.epoll_fd, system.EPOLL_CTL_DEL, s.fd, NULL)
            timer_set(&w.timers, &w.adoption_timer, w.now_ms + RETRY_MS)
        return
    if w.channel.fd >= 0 or not system.peer_is_trusted(fd):
        system.close(fd)
        return
    system.epoll_ctl(w.epoll_fd, system.EPOLL_CTL_DEL, s.fd, NULL)
    w.channel.fd = fd
    w.channel.on_events = _events
    w.released = 0                   # to be told again
    if not _watch(w, &w.channel) or not _say_hello(w) or not _show_sockets(w):
        _lose(w)


# --- messages -----------------------------------------------------------------------------

cdef void _close_all(const int* fds, int count) noexcept nogil:
    cdef int i
    for i in range(count):
        system.close(fds[i])


cdef void _take_sockets(Worker* w, const ChannelHead* head, const ChannelListener* entries,
                        const int* fds, int fd_count) noexcept nogil:
    cdef uint32_t i
    cdef int used = 0
    # One that stops must not begin to listen again.
    while not w.stopping and used < fd_count and <uint32_t> used < head.count:
        i = <uint32_t> used
        if accept_find(w, entries[i].id, entries[i].socket) != NULL or not accept_add(
                w, entries[i].id, entries[i].socket, fds[used]):
            system.close(fds[used])
        used += 1
    _close_all(fds + used, fd_count - used)
    accept_follow_plan(w)


cdef void _on_plan(Worker* w, const ChannelHead* head, const ChannelListener* entries,
                   const int* fds, int fd_count) noexcept nogil:
    cdef Snapshot* snapshot
    if fd_count < 1:
        _answer(w, CHANNEL_REFUSED, head.generation)
        return
    snapshot = snapshot_map(w, fds[0])
    if snapshot == NULL:
        _close_all(fds, fd_count)
        _answer(w, CHANNEL_REFUSED, head.generation)
        return
    snapshot_enter(w, snapshot)
    _take_sockets(w, head, entries, fds + 1, fd_count - 1)
    _answer(w, CHANNEL_ACK, head.generation)


cdef void _drop_sockets(Worker* w, const ChannelHead* head,
                        const ChannelListener* entries) noexcept nogil:
    cdef uint32_t i
    for i in range(head.count):
        accept_drop(w, entries[i].id, entries[i].socket)


cdef void channel_begin_stop(Worker* w, uint64_t drain_ms, bint leaving) noexcept nogil:
    if drain_ms == 0:
        # No request may begin that would be cut in the middle.
        w.stopping = True
        w.finished = True
        return
    if w.stopping and (leaving or not w.idle_stay):
        return
    if w.snapshot == NULL or leaving:
        accept_close_all(w)          # else `accept_finish` does, at the end of this turn
    w.stopping = True
    w.idle_stay = leaving
    upstream_drop_all_idle(w)
    if not leaving:
        client_drain_all(w)
    timer_set(&w.timers, &w.drain_timer, w.now_ms + drain_ms)


cdef void _dispatch(Worker* w, const char* message, ssize_t count, const int* fds,
                    int fd_count) noexcept nogil:
    cdef ChannelHead head
    cdef const ChannelListener* entries = <const ChannelListener*> (message + sizeof(ChannelHead))
    if count < <ssize_t> sizeof(ChannelHead):
        _close_all(fds, fd_count)
        return
    memcpy(&head, message, sizeof(head))
    if head.kind == CHANNEL_STOP:
        _close_all(fds, fd_count)
        channel_begin_stop(w, head.generation, head.count == 1)
        return
    if head.kind == CHANNEL_LOG and fd_count == 1:
        access_log_reopen(w, fds[0], head.count != 0)
        return
    if sizeof(ChannelHead) + head.count * sizeof(ChannelListener) > <size_t> count:
        head.count = 0
    if head.kind == CHANNEL_PLAN:
        _on_plan(w, &head, entries, fds, fd_count)
    elif head.kind == CHANNEL_SOCKETS and w.snapshot != NULL:
        _take_sockets(w, &head, entries, fds, fd_count)
    else:
        _close_all(fds, fd_count)
        if head.kind == CHANNEL_DROP:
            _drop_sockets(w, &head, entries)
        elif head.kind == CHANNEL_PING:
            _answer(w, CHANNEL_PONG, head.generation)


cdef void _events(Worker* w, Stream* s, uint32_t events) noexcept nogil:
    cdef char[MESSAGE_BYTES_MAX] message
    cdef char[CONTROL_BYTES] control
    cdef int[MESSAGE_FDS_MAX] fds
    cdef system.iovec part
    cdef system.msghdr about
    cdef ssize_t got
    while w.channel.fd >= 0:
        part.iov_base = message
        part.iov_len = sizeof(message)
        memset(&about, 0, sizeof(about))
        about.msg_iov = &part
        about.msg_iovlen = 1
        about.msg_control = control
        about.msg_controllen = sizeof(control)
        got = system.recvmsg(s.fd, &about, system.MSG_DONTWAIT | system.MSG_CMSG_CLOEXEC)
        if got < 0 and system.errno == system.EINTR:
            continue
        if got < 0 and system.errno == system.EAGAIN:
            return
        if got <= 0:
            _lose(w)
            if w.adoption.fd < 0:
                # Nobody would find it: it must not serve on beside those of the next one.
                channel_begin_stop(
                    w, w.snapshot.plan.timeouts.drain if w.snapshot != NULL else 0, False)
            return
        _dispatch(w, message, got, fds, system.message_descriptors(&about, fds, MESSAGE_FDS_MAX))
