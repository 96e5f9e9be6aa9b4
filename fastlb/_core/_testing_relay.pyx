"""def functions over relay; for tests only."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

from fastlb._core._testing_rig cimport End, Rig
from fastlb._core.body cimport body_start
from fastlb._core.buffer cimport buffer_borrow
from fastlb._core.connection cimport WORKER_IOVECS, Exchange, Flow, Stream, Worker
from fastlb._core.debug cimport BUG_ON
from fastlb._core.edit cimport iovec
from fastlb._core.head cimport BODY_CHUNKED, BODY_LENGTH, BODY_NONE, BODY_UNTIL_CLOSE
from fastlb._core.relay cimport (
    FLOW_AGAIN, FLOW_BAD_BODY, FLOW_DONE, FLOW_NO_BUFFER, FLOW_SOURCE_END, FLOW_SOURCE_FAILED,
    FLOW_TARGET_FAILED, FLOW_TOO_LARGE, FLOW_WAIT_SOURCE, FLOW_WAIT_TARGET, flow_end, flow_flush,
    flow_frame, flow_pending, flow_run, flow_send_head,
)

KINDS = {
    "none": BODY_NONE, "length": BODY_LENGTH, "chunked": BODY_CHUNKED,
    "until-close": BODY_UNTIL_CLOSE,
}
RESULTS = {
    FLOW_DONE: "done", FLOW_WAIT_SOURCE: "wait-source", FLOW_WAIT_TARGET: "wait-target",
    FLOW_AGAIN: "again", FLOW_SOURCE_END: "source-end", FLOW_SOURCE_FAILED: "source-failed",
    FLOW_TARGET_FAILED: "target-failed", FLOW_BAD_BODY: "bad-body",
    FLOW_NO_BUFFER: "no-buffer", FLOW_TOO_LARGE: "too-large",
}


cdef enum:
    SHOWN_BYTES = 1 << 20

cdef char[SHOWN_BYTES] _shown        # what was shown to the inspector
cdef uint32_t _shown_bytes = 0


cdef void _inspect(Worker* w, Exchange* x, const char* data, uint32_t count) noexcept nogil:
    global _shown_bytes
    BUG_ON(count > SHOWN_BYTES - _shown_bytes)
    memcpy(_shown + _shown_bytes, data, count)
    _shown_bytes += count


cdef void _forget() noexcept nogil:
    global _shown_bytes
    _shown_bytes = 0


cdef class Way:
    """One flow."""

    def __init__(self, Rig rig, str kind, uint64_t length=0, *, bint decode=False,
                 uint64_t most=0):
        self.rig = rig
        memset(&self.flow, 0, sizeof(Flow))
        body_start(&self.flow.body, KINDS[kind], length)
        self.flow.decode = decode
        self.flow.data_bytes_max = most

    def load(self, bytes data, bint large=False):
        """Puts received bytes into a borrowed buffer."""
        self.flow.data = buffer_borrow(&self.rig.w.buffers, large)
        memcpy(self.flow.data.data, <char*> data, len(data))
        self.flow.data.end = <uint32_t> len(data)

    def keep(self, uint32_t count):
        self.flow.keep = count

    def frame(self, uint32_t offset, uint32_t count):
        """(result, the bytes that may be sent, the bytes behind them)."""
        cdef int result = flow_frame(&self.flow, offset, count)
        cdef uint32_t end = self.flow.run + self.flow.run_bytes
        return (RESULTS[result], self.flow.data.data[self.flow.run:end],
                self.flow.data.data[end:offset + count])

    def send_head(self, End target, list pieces, int in_buffer=0):
        """Sends the pieces, the last one of them the first `in_buffer` bytes of the buffer."""
        cdef iovec[WORKER_IOVECS] iov
        cdef bytes piece
        cdef uint32_t count = 0
        for piece in pieces:
            iov[count].iov_base = <char*> piece
            iov[count].iov_len = len(piece)
            count += 1
        if in_buffer:
            iov[count].iov_base = self.flow.data.data
            iov[count].iov_len = in_buffer
            count += 1
        return RESULTS[flow_send_head(self.rig.w, &target.stream, &self.flow, iov, count)]

    def flush(self, End target):
        return RESULTS[flow_flush(self.rig.w, &target.stream, &self.flow)]

    def run(self, End source, End target):
        cdef Stream* of = NULL if source is None else &source.stream
        return RESULTS[flow_run(self.rig.w, of, &target.stream, &self.flow)]

    def inspect(self, bint on=True):
        """Have all that is received shown first; what was shown before is forgotten."""
        self.flow.inspect = NULL
        if on:
            _forget()
            self.flow.inspect = _inspect

    @staticmethod
    def shown():
        return _shown[:_shown_bytes]

    def end(self):
        flow_end(self.rig.w, &self.flow)

    @property
    def pending(self):
        return bool(flow_pending(&self.flow))

    @property
    def sent(self):
        return self.flow.bytes

    @property
    def done(self):
        return bool(self.flow.body.done)

    @property
    def spliced(self):
        return self.flow.pipe != NULL

    @property
    def data_bytes(self):
        return self.flow.body.data_bytes

    @property
    def kept(self):
        return None if self.flow.kept == NULL else self.flow.kept.data[:self.flow.kept.end]
