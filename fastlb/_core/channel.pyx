# The worker's end of the channel (contract in channel.pxd).
#
# When the control process is gone the channel ends; the worker then goes on with the plan it
# has, for as long as nobody tells it otherwise.

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

from fastlb._core cimport system
from fastlb._core.accept cimport accept_add, accept_finish, accept_find, accept_follow_plan
from fastlb._core.access_log cimport access_log_reopen
from fastlb._core.client cimport client_drain_all
from fastlb._core.connection cimport Snapshot, Stream, Worker
from fastlb._core.snapshot cimport snapshot_enter, snapshot_map
from fastlb._core.stream cimport stream_ignore
from fastlb._core.timer cimport timer_set
from fastlb._core.upstream cimport upstream_drop_all_idle

cdef enum:
    MESSAGE_BYTES_MAX = 8192
    MESSAGE_FDS_MAX = 254            # SCM_MAX_FD of Linux is 253
    CONTROL_BYTES = 2048


cdef bint channel_open(Worker* w, int fd) noexcept nogil:
    cdef system.epoll_event event
    w.channel.fd = fd
    w.channel.on_events = _events
    event.events = system.EPOLLIN
    event.data.ptr = &w.channel
    return system.epoll_ctl(w.epoll_fd, system.EPOLL_CTL_ADD, fd, &event) == 0


cdef void channel_close(Worker* w) noexcept nogil:
    if w.channel.fd >= 0:
        system.close(w.channel.fd)
    w.channel.fd = -1
    w.channel.on_events = stream_ignore


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


cdef void _close_all(const int* fds, int count) noexcept nogil:
    cdef int i
    for i in range(count):
        system.close(fds[i])


cdef void _adopt(Worker* w, const ChannelHead* head, const ChannelListener* entries,
                 const int* fds, int fd_count) noexcept nogil:
    cdef uint32_t i
    cdef int used = 0
    for i in range(head.count):
        if not entries[i].has_fd or used == fd_count:
            continue
        if accept_find(w, entries[i].id) != NULL or not accept_add(w, entries[i].id, fds[used]):
            system.close(fds[used])
        used += 1
    _close_all(fds + used, fd_count - used)


cdef void _on_plan(Worker* w, const ChannelHead* head, const ChannelListener* entries,
                   const int* fds, int fd_count) noexcept nogil:
    cdef Snapshot* snapshot
    if fd_count < 1 or w.stopping:
        # One that stops must not begin to listen again.
        _close_all(fds, fd_count)
        _answer(w, CHANNEL_REFUSED, head.generation)
        return
    snapshot = snapshot_map(w, fds[0])
    system.close(fds[0])
    if snapshot == NULL:
        _close_all(fds + 1, fd_count - 1)
        _answer(w, CHANNEL_REFUSED, head.generation)
        return
    snapshot_enter(w, snapshot)
    _adopt(w, head, entries, fds + 1, fd_count - 1)
    accept_follow_plan(w)
    _answer(w, CHANNEL_ACK, head.generation)


cdef void channel_begin_stop(Worker* w, uint64_t drain_ms) noexcept nogil:
    if w.stopping:
        if drain_ms == 0:
            w.finished = True
        return
    if drain_ms == 0:
        # No request may begin that would be cut in the middle.
        w.stopping = True
        w.finished = True
        return
    if w.snapshot != NULL:
        accept_finish(w)
    w.stopping = True
    upstream_drop_all_idle(w)
    client_drain_all(w)
    timer_set(&w.timers, &w.drain_timer, w.now_ms + drain_ms)


cdef void _dispatch(Worker* w, const char* message, ssize_t count, const int* fds,
                    int fd_count) noexcept nogil:
    cdef ChannelHead head
    if count < <ssize_t> sizeof(ChannelHead):
        _close_all(fds, fd_count)
        return
    memcpy(&head, message, sizeof(head))
    if head.kind == CHANNEL_PLAN:
        if sizeof(ChannelHead) + head.count * sizeof(ChannelListener) > <size_t> count:
            head.count = 0
        _on_plan(w, &head, <const ChannelListener*> (message + sizeof(ChannelHead)), fds, fd_count)
    elif head.kind == CHANNEL_LOG and fd_count == 1:
        access_log_reopen(w, fds[0], head.count != 0)
    else:
        _close_all(fds, fd_count)
        if head.kind == CHANNEL_STOP:
            channel_begin_stop(w, head.generation)


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
            channel_close(w)
            return
        _dispatch(w, message, got, fds, system.message_descriptors(&about, fds, MESSAGE_FDS_MAX))
