# Two flows without framing (contract in tunnel.pxd).

from fastlb._core.body cimport body_start
from fastlb._core.connection cimport STREAM_ERROR, STREAM_READABLE, Flow, Stream, Worker
from fastlb._core.head cimport BODY_UNTIL_CLOSE
from fastlb._core.relay cimport (
    FLOW_AGAIN, FLOW_DONE, FLOW_SOURCE_END, FLOW_WAIT_SOURCE, FLOW_WAIT_TARGET, flow_pending,
    flow_run,
)
from fastlb._core.stream cimport stream_shutdown, stream_waits


cdef void tunnel_start(Flow* flow) noexcept nogil:
    body_start(&flow.body, BODY_UNTIL_CLOSE, 0)
    flow.ended = False


cdef int _one_way(Worker* w, Stream* source, Stream* target, Flow* flow) noexcept nogil:
    cdef int result
    if flow.ended:
        return TUNNEL_ENDED
    result = flow_run(w, source, target, flow)
    if result == FLOW_SOURCE_END:
        flow.ended = True
        return TUNNEL_ENDED
    if result == FLOW_AGAIN:
        return TUNNEL_AGAIN
    if result in (FLOW_WAIT_SOURCE, FLOW_WAIT_TARGET, FLOW_DONE):
        return TUNNEL_OPEN
    return TUNNEL_BROKEN


cdef int tunnel_run(Worker* w, Stream* client, Stream* node, Flow* up, Flow* down) noexcept nogil:
    cdef bint up_ended = up.ended
    cdef bint down_ended = down.ended
    cdef int upward = _one_way(w, client, node, up)
    cdef int downward
    cdef bint ended
    if upward == TUNNEL_BROKEN:
        # What the node said before its reset is still passed on; its event may come later.
        node.ready |= STREAM_READABLE
    downward = _one_way(w, node, client, down)
    if client.ready & STREAM_ERROR:
        return TUNNEL_BROKEN         # nobody takes or sends anything any more
    if upward == TUNNEL_BROKEN and node.ready & STREAM_ERROR and flow_pending(down) \
            and downward != TUNNEL_BROKEN:
        # The client is about to take what the node said before it went.
        up.ended = True
        return TUNNEL_OPEN
    if upward == TUNNEL_BROKEN or downward == TUNNEL_BROKEN:
        return TUNNEL_BROKEN
    ended = upward == TUNNEL_ENDED and downward == TUNNEL_ENDED
    # Where both have ended now, closing says it; TLS has to say it itself.
    if up.ended and not up_ended and (not ended or node.tls != NULL):
        stream_shutdown(node)
    if down.ended and not down_ended and (not ended or client.tls != NULL):
        stream_shutdown(client)
    if ended:
        # A node that would not take all of it did not end in order.
        if node.ready & STREAM_ERROR:
            return TUNNEL_BROKEN
        # Nobody else waits until it has taken what is encrypted; a client lingers.
        return TUNNEL_OPEN if stream_waits(node) else TUNNEL_ENDED
    if upward == TUNNEL_AGAIN or downward == TUNNEL_AGAIN:
        return TUNNEL_AGAIN
    return TUNNEL_OPEN
