# Moves the bytes of one message from a source to a target with bounded memory: nothing is
# read while something is still to be sent (back-pressure), nothing beyond one buffer or
# pipe is held. Knows framing (body.pxd) and streams, nothing of requests.

from libc.stdint cimport uint32_t

from fastlb._core.connection cimport Flow, Stream, Worker
from fastlb._core.edit cimport iovec

cdef enum FlowResult:
    FLOW_DONE = 0                    # the whole message has been sent
    FLOW_WAIT_SOURCE                 # everything received has been sent
    FLOW_WAIT_TARGET                 # the target is full
    FLOW_AGAIN                       # much was moved; let others have a turn first
    FLOW_SOURCE_END                  # the source finished sending before the message's end
    FLOW_SOURCE_FAILED               # reset
    FLOW_TARGET_FAILED               # the target takes no more
    FLOW_BAD_BODY                    # the framing is wrong; what was right has been sent
    FLOW_NO_BUFFER
    FLOW_TOO_LARGE                   # the body exceeds data_bytes_max; the excess was not sent

# Frames `count` bytes of flow.data from `offset` on; sets run. Bytes beyond the message's end
# stay in the buffer after the run. 0 or FLOW_BAD_BODY.
cdef int flow_frame(Flow* flow, uint32_t offset, uint32_t count) noexcept nogil
# Sends an edited head and the run behind it in one call, if the run follows the head's last
# vector in memory it joins it. Keeps what did not fit. 0, FLOW_TARGET_FAILED or FLOW_NO_BUFFER.
cdef int flow_send_head(Worker* w, Stream* target, Flow* flow, iovec* iov,
                        uint32_t count) noexcept nogil
# Sends what is pending: FLOW_DONE (nothing left), FLOW_WAIT_TARGET or FLOW_TARGET_FAILED.
cdef int flow_flush(Worker* w, Stream* target, Flow* flow) noexcept nogil
# As far as it goes now.
cdef int flow_run(Worker* w, Stream* source, Stream* target, Flow* flow) noexcept nogil
# Gives buffers and pipe back. Bytes of a next message are the caller's to take out before.
cdef void flow_end(Worker* w, Flow* flow) noexcept nogil


cdef inline bint flow_pending(const Flow* flow) noexcept nogil:
    return (flow.head != NULL or flow.run_bytes != 0
            or (flow.pipe != NULL and flow.pipe.bytes != 0))
