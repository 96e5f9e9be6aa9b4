"""def functions over request, response, set_cookie, reply and access_log; for tests only."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset, strlen

from fastlb._core._testing_arena cimport arena_place
from fastlb._core._testing_decide cimport Made, World
from fastlb._core.access_log cimport access_log_close, access_log_flush, access_log_open
from fastlb._core.access_log cimport access_log_write
from fastlb._core.address cimport Address, address_from_text
from fastlb._core.buffer cimport BUFFER_LARGE_BYTES, Buffer
from fastlb._core.connection cimport SCRATCH_BYTES, ClientConn, Exchange, Snapshot, Worker
from fastlb._core.decide cimport decision_reset
from fastlb._core.head cimport (
    FIELD_HOST, FIELD_REFERER, FIELD_USER_AGENT, HeadLimits, head_reset, response_head_parse,
)
from fastlb._core.plan cimport plan_pool, plan_virtual_server
from fastlb._core.reply cimport reply_bytes, reply_reason, reply_redirect_loops, reply_write
from fastlb._core.request cimport request_edit, request_reload
from fastlb._core.response cimport response_edit, response_edit_interim
from fastlb._core.slice cimport slice_of
from fastlb._core.stats cimport WorkerStats

cdef enum:
    GUARD_BYTES = 64                 # before and after what a function may write


cdef Address _parsed(str ip, int port=0) except *:
    cdef Address a
    memset(&a, 0, sizeof(a))
    if ip:
        text = ip.encode()
        if not address_from_text(&a, text, <uint32_t>len(text)):
            raise ValueError(ip)
    a.port = port
    return a


cdef class Desk:
    """A worker and one exchange, as far as the editing of messages looks at them."""

    cdef Worker* w
    cdef Exchange* x
    cdef ClientConn* client
    cdef Snapshot snapshot
    cdef Buffer* buffer
    cdef World world

    def __cinit__(self, World world, str peer="192.0.2.1"):
        self.world = world
        self.w = <Worker*>calloc(1, sizeof(Worker))
        self.w.stats = <WorkerStats*>calloc(1, sizeof(WorkerStats))
        self.w.nodes = world.table
        self.w.log.fd = -1
        self.w.wall_s = world.wall_s
        self.x = <Exchange*>calloc(1, sizeof(Exchange))
        self.client = <ClientConn*>calloc(1, sizeof(ClientConn))
        self.buffer = <Buffer*>calloc(1, sizeof(Buffer) + BUFFER_LARGE_BYTES)
        self.buffer.size = BUFFER_LARGE_BYTES
        memset(&self.snapshot, 0, sizeof(Snapshot))
        self.snapshot.plan = world.image.plan
        self.snapshot.caches = world.caches
        self.snapshot.reservations = world.reservations
        self.client.peer = _parsed(peer, 4711 if peer else 0)
        self.x.client = self.client
        self.x.client_address = self.client.peer
        self.x.snapshot = &self.snapshot
        self.x.server = plan_virtual_server(world.image.plan, 0)
        self.x.pool = plan_pool(world.image.plan, 0)
        self.x.up.data = self.buffer
        self.x.client_persists = True
        self.x.version_minor = 1
        decision_reset(&self.x.decision)

    def __dealloc__(self):
        access_log_close(&self.w.log)
        free(self.w.stats)
        free(self.w)
        free(self.x)
        free(self.client)
        free(self.buffer)

    def decided(self, Made made):
        """Takes over a decision."""
        self.x.decision = made.d

    def first_seen(self, uint32_t seconds):
        """The date that the first cookie of the decision keeps when it is written again."""
        self.x.decision.cookies[0].first_seen_s = seconds

    def set(self, *, object status=None, object client_persists=None, object version_minor=None,
            object refused=None, object decode=None, object cause=None, object retries=None,
            object client_address=None, object bytes_in=None, object bytes_out=None,
            object times_us=None, object wall_us=None, object server=True):
        """Fields of the exchange; `times_us`: (started, sent, first byte, now)."""
        if status is not None:
            self.x.status = status
        if client_persists is not None:
            self.x.client_persists = client_persists
        if version_minor is not None:
            self.x.version_minor = version_minor
        if refused is not None:
            self.x.refused = refused
        if decode is not None:
            self.x.down.decode = decode
        if cause is not None:
            self.x.cause = cause
        if retries is not None:
            self.x.retries = retries
        if client_address is not None:
            self.x.client_address = _parsed(client_address)
        if bytes_in is not None:
            self.x.up.bytes = bytes_in
        if bytes_out is not None:
            self.x.down.bytes = bytes_out
        if times_us is not None:
            self.x.started_us, self.x.sent_us, self.x.first_byte_us, self.w.now_us = times_us
        if wall_us is not None:
            self.w.wall_us = wall_us
            self.w.wall_s = <uint32_t>(<uint64_t>wall_us // 1000000)
        if not server:
            self.x.server = NULL
            self.x.pool = NULL

    def method(self, uint8_t number):
        self.x.method = number

    cdef bytes _joined(self, int vectors):
        cdef int i
        if self.w.scratch_used > SCRATCH_BYTES:
            raise AssertionError(f"scratch overrun: {self.w.scratch_used}")
        out = bytearray()
        for i in range(vectors):
            out += (<char*>self.w.iov[i].iov_base)[:self.w.iov[i].iov_len]
        return bytes(out)

    def load(self, bytes head, uint32_t before=0):
        """Puts a request's head into the exchange's buffer, `before` bytes from its start."""
        cdef uint32_t i
        memset(self.buffer.data, c'#', self.buffer.size)
        memcpy(self.buffer.data + before, <const char*>head, len(head))
        self.x.head_start = before
        self.x.head_end = before + <uint32_t>len(head)
        self.w.request_of = NULL
        request_reload(self.w, self.x)
        self.x.method = self.w.request.method
        self.x.version_minor = self.w.request.version_minor
        self.x.method_at = self.w.request.line_start
        self.x.method_bytes = self.w.request.method_bytes
        self.x.target = self.w.request.target
        self.x.target_bytes = self.w.request.target_bytes
        self.x.host_bytes = self.x.referer_bytes = self.x.user_agent_bytes = 0
        for i in range(self.w.request.field_count):
            if self.w.request.fields[i].id == FIELD_HOST:
                self.x.host = self.w.request.fields[i].value
                self.x.host_bytes = self.w.request.fields[i].value_bytes
            elif self.w.request.fields[i].id == FIELD_REFERER:
                self.x.referer = self.w.request.fields[i].value
                self.x.referer_bytes = self.w.request.fields[i].value_bytes
            elif self.w.request.fields[i].id == FIELD_USER_AGENT:
                self.x.user_agent = self.w.request.fields[i].value
                self.x.user_agent_bytes = self.w.request.fields[i].value_bytes
        return self.w.request.bytes

    def request(self, bytes head, uint32_t before=0):
        """The head as the node gets it, or "full"."""
        cdef int vectors
        self.load(head, before)
        vectors = request_edit(self.w, self.x)
        joined = self._joined(max(vectors, 0))
        return "full" if vectors < 0 else joined

    def response(self, bytes head, bint interim=False):
        """The head as the client gets it, or "full"."""
        cdef HeadLimits limits
        cdef int vectors
        cdef const char* at = arena_place(head, len(head))
        limits.request_line_bytes = 8192
        limits.field_bytes = 0
        limits.empty_lines = 4
        limits.head_bytes = 65536
        limits.field_count = 200
        head_reset(&self.w.response)
        if response_head_parse(&self.w.response, at, <uint32_t>len(head), &limits,
                               self.x.method) != len(head):
            raise ValueError("not a head")
        if interim:
            vectors = response_edit_interim(self.w, at)
        else:
            vectors = response_edit(self.w, self.x, at)
        joined = self._joined(max(vectors, 0))
        return "full" if vectors < 0 else joined

    def reply(self, bint configured=True):
        """fastlb's own answer, or None when there is no room for its head."""
        cdef uint32_t room = reply_bytes(self.w, self.x, configured)
        if room == 0:
            return None
        out = bytearray(b"#" * (room + GUARD_BYTES))
        cdef char* at = out
        written = reply_write(self.w, at)
        if written != room or out[room:] != b"#" * GUARD_BYTES:
            raise AssertionError("written beyond the room")
        return bytes(out[:written])

    def class_counts(self, uint32_t slot):
        return {
            "cookies_set": self.w.stats.classes[slot].cookies_set,
            "ended": self.w.stats.classes[slot].ended,
            "foreign_cookies": self.w.stats.classes[slot].foreign_cookies,
        }

    # ---- access log ----

    def log_to(self, int fd, bint is_socket=False):
        if not access_log_open(&self.w.log, fd, is_socket):
            raise MemoryError

    def log(self):
        """Adds the exchange's line; how many bytes wait to be written."""
        access_log_write(self.w, self.x)
        return self.w.log.used

    def flush(self):
        access_log_flush(self.w)
        return self.w.stats.log_lines_dropped


def reason(int status):
    return reply_reason(status)[:strlen(reply_reason(status))].decode()


def redirect_loops(bytes url, bytes host, bytes target):
    """Whether a redirect to `url` leads back to what was asked."""
    return bool(reply_redirect_loops(
        slice_of(url, <uint32_t>len(url)), slice_of(host, <uint32_t>len(host)),
        slice_of(target, <uint32_t>len(target))))
