# Messages between the control process and a worker over a SOCK_SEQPACKET pair.
# Native byte order; the sender's side is fastlb/workers.py.

from libc.stdint cimport uint32_t, uint64_t

from fastlb._core.connection cimport Worker

cdef enum ChannelKind:
    CHANNEL_PLAN = 1                 # fds: the plan, then those of new listeners
    CHANNEL_STOP = 2                 # generation: drain time in ms; count 1: idle clients stay
    CHANNEL_LOG = 3                  # fds: the new access log; count 1: it is a datagram socket
    CHANNEL_ACK = 101                # the plan of this generation is in force
    CHANNEL_REFUSED = 102            # it is not usable; the one before stays
    CHANNEL_RELEASED = 103           # no request uses a plan older than this generation
    CHANNEL_HELLO = 104              # to a new control process: see channel.pyx

ctypedef struct ChannelHead:
    uint32_t kind
    uint32_t count                   # ChannelListener entries that follow
    uint64_t generation

ctypedef struct ChannelListener:
    uint32_t id
    uint32_t has_fd

cdef bint channel_open(Worker* w, int fd) noexcept nogil
cdef void channel_close(Worker* w) noexcept nogil
# Tells the control process of plans that have gone, as far as it has not been told.
cdef void channel_tell_released(Worker* w) noexcept nogil
# The worker finishes what it has, for at most `drain_ms`, and leaves its loop.
cdef void channel_begin_stop(Worker* w, uint64_t drain_ms) noexcept nogil
