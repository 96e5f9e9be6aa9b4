# Messages between the control process and a worker over a SOCK_SEQPACKET pair.
# Native byte order; the sender's side is fastlb/workers.py.
#
# The channel ends with the control process. The worker then heeds its adoption socket, a listening
# one in the state directory: who connects there, and is root or the worker's own user, is the
# new control process, and is given all that it has to know (HELLO, then HELD).

from libc.stdint cimport uint32_t, uint64_t

from fastlb._core.connection cimport Worker

cdef enum ChannelKind:
    CHANNEL_PLAN = 1                 # fds: the plan, then one for each entry: new sockets
    CHANNEL_STOP = 2                 # generation: drain time in ms; count 1: leave (see below)
    CHANNEL_LOG = 3                  # fds: the new access log; count 1: it is a datagram socket
    CHANNEL_SOCKETS = 4              # fds: one for each entry: more sockets
    CHANNEL_DROP = 5                 # entries: sockets that others serve from now on
    CHANNEL_PING = 6                 # to be answered: the loop turns
    CHANNEL_ACK = 101                # the plan of this generation is in force
    CHANNEL_REFUSED = 102            # it is not usable; the one before stays
    CHANNEL_RELEASED = 103           # no request uses a plan older than this generation
    CHANNEL_HELLO = 104              # ChannelHello; fds: the segment, and the plan if there is one
    CHANNEL_HELD = 105               # fds: one for each entry: sockets that this worker has
    CHANNEL_PONG = 106               # generation: of the PING

ctypedef struct ChannelHead:
    uint32_t kind
    uint32_t count                   # ChannelListener entries that follow
    uint64_t generation

ctypedef struct ChannelListener:
    uint32_t id                      # PlanListener.id
    uint32_t socket                  # of those at this address

cdef enum ChannelHelloFlag:
    HELLO_STOPPING = 1

ctypedef struct ChannelHello:        # behind a ChannelHead; later versions may only append
    uint32_t column
    uint32_t flags                   # ChannelHelloFlag
    uint32_t pid
    uint32_t sockets                 # entries that follow, in HELD messages

# `adoption`: a listening socket, -1 for none.
cdef bint channel_open(Worker* w, int fd, int adoption) noexcept nogil
# Both ends of it, for good.
cdef void channel_close(Worker* w) noexcept nogil
# By the timer: the adoption socket, after there were no descriptors for who asked there.
cdef void channel_heed_adoption(Worker* w) noexcept nogil
# Tells the control process of plans that have gone, as far as it has not been told.
cdef void channel_tell_released(Worker* w) noexcept nogil
# The worker finishes what it has, for at most `drain_ms`, and leaves its loop. `leaving`: others
# have its sockets and serve what is queued there, and idle clients may ask once more.
cdef void channel_begin_stop(Worker* w, uint64_t drain_ms, bint leaving) noexcept nogil
