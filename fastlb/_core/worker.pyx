# A worker process: the turn of its event loop.
#
#   wait -> read the clock -> events -> timers -> posted -> queues -> bury -> log
#
# `run` is called once, with the GIL; the loop runs without it until the worker ends.

import os

from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free

from fastlb._core cimport system
from fastlb._core.accept cimport accept_bury, accept_close_all, accept_finish, accept_resume
from fastlb._core.access_log cimport access_log_close, access_log_flush, access_log_open
from fastlb._core.buffer cimport buffer_pool_free, buffer_pool_init
from fastlb._core.channel cimport (
    channel_begin_stop, channel_close, channel_heed_adoption, channel_open, channel_tell_released,
)
from fastlb._core.client cimport (
    client_bury, client_request_done, client_run_posted, client_stop_all, client_timeout,
)
from fastlb._core.connection cimport (
    EVENTS_MAX, NODE_CONN_IDLE, TIMER_ACCEPT, TIMER_ADOPTION, TIMER_CLIENT, TIMER_DRAIN,
    TIMER_HANDSHAKES, TIMER_NODE, TIMER_QUEUES, ClientConn, Exchange, NodeConn, Stream, Worker,
)
from fastlb._core.debug cimport FASTLB_DEBUG_BUILD, unlikely
from fastlb._core.exchange cimport exchange_node_timeout, exchange_rules_done, exchange_turn
from fastlb._core.head cimport Head
from fastlb._core.hooks cimport (
    hooks_open, hooks_rules_count, hooks_rules_open, hooks_rules_stop, hooks_tls_count,
)
from fastlb._core.limits cimport TICK_MS
from fastlb._core.node_tls cimport node_tls_count, node_tls_forget_all
from fastlb._core.opening cimport opening_run_queue
from fastlb._core.passage cimport passage_node_timeout, passage_rules_done, passage_turn
from fastlb._core.queue cimport (
    QUEUE_POLL_MS, queue_free_all, queue_look_at_idle, queue_run,
)
from fastlb._core.rule_queue cimport rule_queue_close
from fastlb._core.rule_state cimport rules_free_all
from fastlb._core.shm cimport Segment
from fastlb._core.snapshot cimport snapshot_release
from fastlb._core.stats cimport WorkerStats
from fastlb._core.stream cimport pipe_free_all
from fastlb._core.timer cimport Timer, timer_next_ms, timer_run, timer_wheel_init
from fastlb._core.tls_stream cimport tls_count, tls_free_all
from fastlb._core.upstream cimport upstream_bury, upstream_close, upstream_drop_all_idle

cdef enum:
    CLOCKS_MS = 10                   # how old boot time and wall clock may be
    SIGTERM = 15
    SIGQUIT = 3

# Stays mapped: a rule that does not end outlives `run` in its thread, and may count in there.
cdef Segment _mapped = None

cdef ClientConn _client_layout
cdef NodeConn _node_layout
cdef size_t _client_timer = <char*> &_client_layout.timer - <char*> &_client_layout
cdef size_t _node_timer = <char*> &_node_layout.timer - <char*> &_node_layout


# --- the turn -----------------------------------------------------------------------------

cdef void _read_clocks(Worker* w) noexcept nogil:
    w.now_us = system.clock_us()
    w.now_ms = w.now_us // 1000
    if w.now_ms < w.clocks_due_ms:
        return
    w.clocks_due_ms = w.now_ms + CLOCKS_MS
    w.boot_ms = system.boot_ms()
    w.wall_us = system.wall_us()
    w.wall_s = <uint32_t> (w.wall_us // 1000000)
    if w.snapshot != NULL:
        w.now_ticks = <uint32_t> ((w.boot_ms - w.snapshot.plan.epoch_ms) // TICK_MS)


cdef void _fire(void* context, Timer* timer) noexcept nogil:
    cdef Worker* w = <Worker*> context
    cdef NodeConn* n
    if timer.kind == TIMER_CLIENT:
        client_timeout(w, <ClientConn*> (<char*> timer - _client_timer))
    elif timer.kind == TIMER_NODE:
        n = <NodeConn*> (<char*> timer - _node_timer)
        if n.state == NODE_CONN_IDLE:
            upstream_close(w, n, False)
        elif n.exchange.passage:
            passage_node_timeout(w, n)
        else:
            exchange_node_timeout(w, n)
    elif timer.kind == TIMER_ACCEPT:
        accept_resume(w)
    elif timer.kind == TIMER_QUEUES:
        queue_look_at_idle(w)
    elif timer.kind == TIMER_ADOPTION:
        channel_heed_adoption(w)
    elif timer.kind == TIMER_DRAIN:
        w.finished = True


cdef void _rules_done(Worker* w, Exchange* x) noexcept nogil:
    if x.passage:
        passage_rules_done(w, x)
    else:
        exchange_rules_done(w, x)


cdef void _queue_turn(Worker* w, Exchange* x) noexcept nogil:
    if x.passage:
        passage_turn(w, x)
    else:
        exchange_turn(w, x)


# While stopping: what has queued up.
cdef inline bint _is_accepting(const Worker* w) noexcept nogil:
    return w.listeners != NULL and not w.accept_paused


cdef int _wait_ms(Worker* w) noexcept nogil:
    cdef int timeout = timer_next_ms(&w.timers, w.now_ms)
    if unlikely(w.stopping) and _is_accepting(w):
        return 0
    if w.posted != NULL or (w.handshakes.due and w.handshakes.first != NULL):
        return 0
    if unlikely(w.queues != NULL):
        if w.queues_due:
            return 0
        if timeout < 0 or timeout > <int> QUEUE_POLL_MS:
            return QUEUE_POLL_MS
    return timeout


cdef void _turn(Worker* w, system.epoll_event* events) noexcept nogil:
    cdef int count, i
    cdef Stream* s
    count = system.epoll_wait(w.epoll_fd, events, EVENTS_MAX, _wait_ms(w))
    _read_clocks(w)
    for i in range(count):
        s = <Stream*> events[i].data.ptr
        s.on_events(w, s, events[i].events)
    timer_run(&w.timers, w.now_ms, _fire, w)
    if w.posted != NULL:
        client_run_posted(w)
    if w.handshakes.first != NULL:
        opening_run_queue(w)
    if unlikely(w.queues != NULL):
        queue_run(w, _queue_turn)
    if unlikely(w.stopping):
        accept_finish(w)
    if w.dead_clients != NULL:
        client_bury(w)
        accept_resume(w)
    if w.dead_node_conns != NULL:
        upstream_bury(w)
    if w.dead_listeners != NULL:
        accept_bury(w)
    if w.snapshot != NULL and w.released != w.snapshot.plan.generation:
        channel_tell_released(w)
    if w.log.used:
        access_log_flush(w)
    w.stats.turns += 1
    w.stats.buffers = w.buffers.borrowed
    w.stats.buffers_refused = w.buffers.refusals
    w.stats.tls_streams = tls_count()


cdef void _loop(Worker* w, system.epoll_event* events) noexcept nogil:
    while not w.finished:
        _turn(w, events)
        if w.stopping and w.clients == NULL and not _is_accepting(w):
            break


cdef void _on_signal(Worker* w, Stream* s, uint32_t events) noexcept nogil:
    cdef int number = system.signal_read(s.fd)
    if number == SIGQUIT:
        channel_begin_stop(w, 0, False)
    elif number == SIGTERM:
        channel_begin_stop(w, w.snapshot.plan.timeouts.drain if w.snapshot != NULL else 0, False)


# --- start and end ------------------------------------------------------------------------

cdef int _open(Worker* w, int index, int channel_fd, int log_fd, bint log_socket,
               int adoption_fd) except -1:
    cdef system.epoll_event event
    w.index = <uint32_t> index
    w.random = int.from_bytes(os.urandom(8), "little") | 1
    w.request_done = client_request_done
    w.rules_done = _rules_done
    w.rules.fd = -1
    w.epoll_fd = system.epoll_create1(system.EPOLL_CLOEXEC)
    if w.epoll_fd < 0:
        raise OSError(system.errno, "worker: epoll_create1")
    _read_clocks(w)
    timer_wheel_init(&w.timers, w.now_ms)
    w.accept_timer.kind = TIMER_ACCEPT
    w.drain_timer.kind = TIMER_DRAIN
    w.handshakes.timer.kind = TIMER_HANDSHAKES
    w.queue_timer.kind = TIMER_QUEUES
    w.adoption_timer.kind = TIMER_ADOPTION
    buffer_pool_init(&w.buffers, 0)
    w.signals.fd = system.signal_descriptor()
    w.signals.on_events = _on_signal
    event.events = system.EPOLLIN
    event.data.ptr = &w.signals
    if w.signals.fd < 0 or system.epoll_ctl(w.epoll_fd, system.EPOLL_CTL_ADD, w.signals.fd,
                                            &event) < 0:
        raise OSError(system.errno, "worker: signalfd")
    if not channel_open(w, channel_fd, adoption_fd):
        raise OSError(system.errno, "worker: the channel from the control process")
    if not access_log_open(&w.log, log_fd, log_socket):
        raise MemoryError("worker: access log")
    w.stats.pid = system.getpid()
    w.stats.started_ms = w.boot_ms
    return 0


cdef void _close_all(Worker* w) noexcept nogil:
    # Everything that is still open, so that what is counted afterwards is a leak.
    accept_close_all(w)
    accept_bury(w)
    client_stop_all(w)
    upstream_drop_all_idle(w)
    client_run_posted(w)
    client_bury(w)
    upstream_bury(w)
    node_tls_forget_all(w)           # connections that were closed just now have kept theirs
    hooks_rules_stop()
    rule_queue_close(w)              # calls that were cancelled just now, as far as they are back
    access_log_flush(w)
    access_log_close(&w.log)
    pipe_free_all(w)
    channel_close(w)
    if w.snapshot != NULL:
        snapshot_release(w, w.snapshot)
        w.snapshot = NULL
    system.close(w.signals.fd)
    system.close(w.epoll_fd)


cdef void _free_lists(Worker* w) noexcept nogil:
    cdef ClientConn* c
    cdef NodeConn* n
    cdef Exchange* x
    cdef Head* head
    while w.free_clients != NULL:
        c = w.free_clients
        w.free_clients = c.next
        free(c)
    while w.free_node_conns != NULL:
        n = w.free_node_conns
        w.free_node_conns = n.next
        free(n)
    while w.free_exchanges != NULL:
        x = w.free_exchanges
        w.free_exchanges = x.next
        free(x)
    while w.free_heads != NULL:
        head = w.free_heads
        w.free_heads = (<Head**> head)[0]
        free(head)
    rules_free_all(w)
    queue_free_all(w)
    buffer_pool_free(&w.buffers)
    tls_free_all()


cdef object _objects(Worker* w):
    return (f"clients={w.stats.clients} node_connections={w.stats.node_connections} "
            f"exchanges={w.stats.exchanges} buffers={w.buffers.borrowed} "
            f"pipes={w.stats.pipes} tls_streams={tls_count()} "
            f"node_sessions={node_tls_count()} contexts={hooks_tls_count()} "
            f"rule_calls={w.stats.rule_calls} rule_states={w.stats.rule_states} "
            f"rules={hooks_rules_count()} "
            f"snapshots={0 if w.snapshots == NULL else 1}")


def run(index: int, segment_fd: int, channel_fd: int, log_fd: int, log_socket: bool,
        adoption_fd: int = -1) -> int:
    """Serve as worker `index` until told to stop; the process's exit status.

    `segment_fd` is the shared-memory segment with a region "worker.<index>", `channel_fd` the
    SOCK_SEQPACKET end of the control process, `log_fd` the access log (-1: none), which is a
    datagram socket if `log_socket`, `adoption_fd` the listening socket at which a new control
    process asks for the worker (-1: none). All but `segment_fd` are closed at the end.
    """
    global _mapped
    cdef Segment segment = Segment.attach(segment_fd)
    cdef system.epoll_event* events
    cdef Worker* w
    region = segment.find(f"worker.{index}")
    if region is None or region[1] < sizeof(WorkerStats):
        raise RuntimeError(f"worker {index}: no counters in the segment")
    w = <Worker*> calloc(1, sizeof(Worker))
    events = <system.epoll_event*> calloc(EVENTS_MAX, sizeof(system.epoll_event))
    if w == NULL or events == NULL:
        raise MemoryError("worker: its own state")
    before = len(os.listdir("/proc/self/fd"))
    _mapped = segment
    w.segment_fd = segment_fd
    w.segment = segment.base
    w.stats = <WorkerStats*> segment.at(region[0])
    w.stats.gil_acquisitions = 0
    hooks_open(&w.stats.gil_acquisitions)
    hooks_rules_open(w.stats)
    _open(w, index, channel_fd, log_fd, log_socket, adoption_fd)
    with nogil:
        _loop(w, events)
        _close_all(w)
    hooks_open(NULL)
    hooks_rules_open(NULL)
    if FASTLB_DEBUG_BUILD:
        # The channel, the log and the adoption socket were open before, and are closed now.
        closed = 1 + (log_fd >= 0) + (adoption_fd >= 0)
        left = len(os.listdir("/proc/self/fd")) - before + closed
        # One write: the workers share this descriptor, and their lines must stay apart.
        os.write(2, f"fastlb: objects {_objects(w)} descriptors={left}\n".encode())
    _free_lists(w)
    free(events)
    free(w)
    return 0
