# Bytes in both directions, until both sides have ended: after 101 (RFC 9110 7.8), and in
# passages: TCP, and TLS that is passed through. The end of one direction is passed on as a
# half-close.

from fastlb._core.connection cimport Flow, Stream, Worker

cdef enum TunnelResult:
    TUNNEL_OPEN = 0
    TUNNEL_ENDED                     # both sides ended in order
    TUNNEL_BROKEN                    # a reset: pass it on to the other side
    TUNNEL_AGAIN                     # much was moved; let others have a turn first

cdef void tunnel_start(Flow* flow) noexcept nogil
cdef int tunnel_run(Worker* w, Stream* client, Stream* node, Flow* up, Flow* down) noexcept nogil
