# Accepting (contract in accept.pxd). Listeners are level-triggered: what one turn leaves in
# the queue is reported again by the next.

from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free

from fastlb._core cimport system
from fastlb._core.client cimport client_open
from fastlb._core.connection cimport Listener, Stream, Worker
from fastlb._core.plan cimport Plan, plan_listener
from fastlb._core.stream cimport stream_ignore
from fastlb._core.timer cimport timer_set

cdef enum:
    ACCEPTS_PER_TURN = 64            # per listener, so that running requests get their turn
    QUEUED_MAX = 8192                # more than listeners.py lets queue up at one socket
    RETRY_MS = 100                   # after the system ran out of descriptors or memory
    DESCRIPTORS_OWN = 64             # of a worker beside its connections
    DESCRIPTORS_SPARE = 128          # for the node connections of the clients accepted last


cdef bint _watch(Worker* w, Listener* listener) noexcept nogil:
    cdef system.epoll_event event
    event.events = system.EPOLLIN
    event.data.ptr = &listener.stream
    return system.epoll_ctl(w.epoll_fd, system.EPOLL_CTL_ADD, listener.stream.fd, &event) == 0


cdef bint accept_add(Worker* w, uint32_t id, uint32_t socket, int fd) noexcept nogil:
    cdef Listener* listener = <Listener*> calloc(1, sizeof(Listener))
    if listener == NULL:
        return False
    listener.stream.fd = fd
    listener.stream.on_events = _events
    listener.id = id
    listener.socket = socket
    listener.left = QUEUED_MAX
    if not w.accept_paused and not _watch(w, listener):
        free(listener)
        return False
    listener.next = w.listeners
    w.listeners = listener
    return True


cdef Listener* accept_find(Worker* w, uint32_t id, uint32_t socket) noexcept nogil:
    cdef Listener* listener = w.listeners
    while listener != NULL and (listener.id != id or listener.socket != socket):
        listener = listener.next
    return listener


cdef void accept_drop(Worker* w, uint32_t id, uint32_t socket) noexcept nogil:
    cdef Listener** link = &w.listeners
    while link[0] != NULL:
        if link[0].id == id and link[0].socket == socket:
            _give_up(w, link)
            return
        link = &link[0].next


cdef void _give_up(Worker* w, Listener** link) noexcept nogil:
    # The control process has the socket too, so closing our descriptor does not take it out of
    # the epoll set (epoll(7), Q6), and an event of this turn may still point to the listener.
    cdef Listener* listener = link[0]
    link[0] = listener.next
    system.epoll_ctl(w.epoll_fd, system.EPOLL_CTL_DEL, listener.stream.fd, NULL)
    system.close(listener.stream.fd)
    listener.stream.fd = -1
    listener.stream.on_events = stream_ignore
    listener.next = w.dead_listeners
    w.dead_listeners = listener


cdef void accept_bury(Worker* w) noexcept nogil:
    cdef Listener* listener
    while w.dead_listeners != NULL:
        listener = w.dead_listeners
        w.dead_listeners = listener.next
        free(listener)


cdef bint _named(const Plan* plan, Listener* listener) noexcept nogil:
    cdef uint32_t i
    for i in range(plan.listener_count):
        if plan_listener(plan, i).id == listener.id:
            listener.virtual_server = plan_listener(plan, i).virtual_server
            return True
    return False


cdef void accept_follow_plan(Worker* w) noexcept nogil:
    cdef Listener** link = &w.listeners
    w.descriptors_max = system.descriptors_limit()
    while link[0] != NULL:
        if _named(w.snapshot.plan, link[0]):
            link = &link[0].next
        else:
            _give_up(w, link)


cdef uint32_t _share(Worker* w) noexcept nogil:
    # limits.max_connections is the machine's; each worker answers for its part.
    cdef const Plan* plan = w.snapshot.plan
    return (plan.limits.max_connections + plan.workers - 1) // plan.workers


cdef bint _full(Worker* w) noexcept nogil:
    # A client that could not have a connection to a node is better left in the queue.
    return (w.stats.clients >= _share(w)
            or w.stats.clients + w.stats.node_connections + 2 * (w.stats.pipes + w.free_pipe_count)
            + DESCRIPTORS_OWN + DESCRIPTORS_SPARE > w.descriptors_max)


cdef void accept_pause(Worker* w, uint32_t retry_ms) noexcept nogil:
    cdef Listener* listener = w.listeners
    if w.accept_paused:
        return
    w.accept_paused = True
    w.stats.accept_pauses += 1
    while listener != NULL:
        system.epoll_ctl(w.epoll_fd, system.EPOLL_CTL_DEL, listener.stream.fd, NULL)
        listener = listener.next
    timer_set(&w.timers, &w.accept_timer, w.now_ms + retry_ms)


cdef void accept_resume(Worker* w) noexcept nogil:
    cdef Listener* listener = w.listeners
    if not w.accept_paused:
        return
    if _full(w):
        timer_set(&w.timers, &w.accept_timer, w.now_ms + RETRY_MS)
        return
    w.accept_paused = False
    while listener != NULL:
        _watch(w, listener)
        listener = listener.next


# How many were accepted; -1 when the queue is empty or accepting was paused.
cdef int _accept_one(Worker* w, Listener* listener) noexcept nogil:
    cdef char[SOCKADDR_BYTES] sockaddr
    cdef system.socklen_t size = SOCKADDR_BYTES
    cdef int fd = system.accept4(listener.stream.fd, <system.sockaddr*> sockaddr, &size,
                                 system.SOCK_NONBLOCK | system.SOCK_CLOEXEC)
    if fd >= 0:
        client_open(w, listener, fd, sockaddr)
        return 1
    if system.errno in (system.EMFILE, system.ENFILE, system.ENOBUFS, system.ENOMEM):
        accept_pause(w, RETRY_MS)
        return -1
    if system.errno in (system.ECONNABORTED, system.EINTR, system.EPROTO, system.EPERM,
                        system.ENETDOWN, system.ENETUNREACH, system.EHOSTUNREACH):
        # The new connection's own error, passed on by accept (accept(2)): the next may be good.
        return 0
    return -1


cdef enum:
    SOCKADDR_BYTES = 128


# Whether the queue is empty now.
cdef bint _accept_some(Worker* w, Listener* listener) noexcept nogil:
    cdef int left = ACCEPTS_PER_TURN
    while left:
        left -= 1
        if _full(w):
            accept_pause(w, RETRY_MS)
            return False
        if _accept_one(w, listener) < 0:
            return not w.accept_paused
    return False


cdef void _events(Worker* w, Stream* s, uint32_t events) noexcept nogil:
    if not w.stopping:               # else `accept_finish` takes them
        _accept_some(w, <Listener*> s)


cdef void accept_finish(Worker* w) noexcept nogil:
    cdef Listener** link = &w.listeners
    cdef Listener* listener
    while link[0] != NULL and not w.accept_paused:
        listener = link[0]
        if _accept_some(w, listener) or listener.left <= ACCEPTS_PER_TURN:
            _give_up(w, link)
        else:
            listener.left -= ACCEPTS_PER_TURN
            link = &listener.next


cdef void accept_close_all(Worker* w) noexcept nogil:
    while w.listeners != NULL:
        _give_up(w, &w.listeners)
