"""A worker's state without its loop, and connected sockets in it; for tests only."""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from fastlb._core cimport system
from fastlb._core.buffer cimport buffer_pool_free, buffer_pool_init
from fastlb._core.connection cimport (
    STREAM_EOF, STREAM_ERROR, STREAM_HUP, STREAM_MUTED, STREAM_READABLE, STREAM_URGENT,
    STREAM_WRITABLE, Snapshot, Stream, Worker,
)
from fastlb._core.node cimport NodeTable
from fastlb._core.plan cimport Plan
from fastlb._core.stats cimport WorkerStats
from fastlb._core.stream cimport pipe_free_all, stream_close, stream_note, stream_register
from fastlb._core.timer cimport timer_wheel_init
from fastlb._core.upstream cimport upstream_bury, upstream_drop_all_idle

READY = {
    STREAM_READABLE: "readable", STREAM_WRITABLE: "writable", STREAM_HUP: "hup",
    STREAM_EOF: "eof", STREAM_ERROR: "error", STREAM_URGENT: "urgent", STREAM_MUTED: "muted",
}
cdef enum:
    EVENTS = 64


cdef void _note(Worker* w, Stream* s, uint32_t events) noexcept nogil:
    stream_note(s, events)


cdef class Rig:
    """Epoll, buffers, timers and counters of a worker. `close` before the end of the test."""

    def __cinit__(self, uint64_t buffer_bytes=1 << 26):
        self.kept = []
        self.w = <Worker*> calloc(1, sizeof(Worker))
        if self.w == NULL:
            raise MemoryError()
        self.w.stats = <WorkerStats*> calloc(1, sizeof(WorkerStats))
        self.w.epoll_fd = system.epoll_create1(system.EPOLL_CLOEXEC)
        self.w.nodes = <NodeTable*> calloc(1, sizeof(NodeTable))
        if self.w.stats == NULL or self.w.nodes == NULL or self.w.epoll_fd < 0:
            raise MemoryError()
        memset(&self.plan, 0, sizeof(Plan))
        memset(&self.snapshot, 0, sizeof(Snapshot))
        self.plan.timeouts.node_keep_alive = 60000
        self.plan.columns = 2
        self.snapshot.plan = &self.plan
        self.w.snapshot = &self.snapshot
        self.w.now_ms = system.clock_us() // 1000
        timer_wheel_init(&self.w.timers, self.w.now_ms)
        buffer_pool_init(&self.w.buffers, buffer_bytes)

    def __dealloc__(self):
        free(self.w.stats)
        free(self.w.nodes)
        free(self.w)

    cdef int place(self, Stream* stream) except -1:
        stream.on_events = _note
        if not stream_register(self.w, stream):
            raise OSError(system.errno, "epoll")
        return 0

    def turn(self, int timeout_ms=0):
        """Takes the events that there are to their streams; how many."""
        cdef system.epoll_event[EVENTS] events
        cdef Stream* s
        cdef int i
        cdef int count = system.epoll_wait(self.w.epoll_fd, events, EVENTS, timeout_ms)
        for i in range(count):
            s = <Stream*> events[i].data.ptr
            s.on_events(self.w, s, events[i].events)
        upstream_bury(self.w)
        return count

    def settle(self):
        """Turns until the kernel has nothing more to tell."""
        while self.turn(5):
            pass

    @property
    def borrowed(self):
        return self.w.buffers.borrowed

    @property
    def pipes(self):
        return self.w.stats.pipes

    @property
    def free_pipes(self):
        return self.w.free_pipe_count

    @property
    def stopping(self):
        return bool(self.w.stopping)

    @stopping.setter
    def stopping(self, value):
        self.w.stopping = value

    def close(self):
        """Gives everything back; what is still borrowed then is a leak."""
        cdef End end
        for end in self.kept:
            end.close()
        upstream_drop_all_idle(self.w)
        upstream_bury(self.w)
        pipe_free_all(self.w)
        system.close(self.w.epoll_fd)
        if self.w.buffers.borrowed or self.w.stats.pipes or self.w.stats.node_connections:
            raise AssertionError(
                f"left: buffers={self.w.buffers.borrowed} pipes={self.w.stats.pipes} "
                f"node_connections={self.w.stats.node_connections}")
        buffer_pool_free(&self.w.buffers)


cdef class End:
    """A stream around a connected socket, which it takes over (`sock.detach()`)."""

    def __init__(self, Rig rig, int fd):
        self.rig = rig
        self.stream.fd = fd
        self.stream.ready = 0
        rig.kept.append(self)
        rig.place(&self.stream)

    @property
    def fd(self):
        return self.stream.fd

    @property
    def ready(self):
        """What is known of the socket, as words."""
        return {word for bit, word in READY.items() if self.stream.ready & bit}

    def note(self, uint32_t events):
        stream_note(&self.stream, events)

    def close(self, bint reset=False):
        if self.stream.fd >= 0:
            stream_close(&self.stream, reset)
