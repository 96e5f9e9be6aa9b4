# TLS handshakes with clients (protocol https): which certificate, when each one begins, and what
# became of it. Knows ClientHellos, contexts and limits; nothing of what stands before or behind.
#
# A handshake costs as much as dozens of requests. So only some begin in one turn of the loop, and
# no more than limits.handshakes and handshakes_per_second let; the others wait their turn in a
# queue, in the order in which they came.

from fastlb._core.connection cimport ClientConn, Worker
from fastlb._core.plan cimport PlanVirtualServer
from fastlb._core.tls_hello cimport TlsClientHello

# The results: > 0, it is done; 0, an event or the queue goes on with it; < 0: -Cause.

# c.buffer begins with the whole hello. Begins the handshake, or puts it into the queue.
cdef int handshake_open(Worker* w, ClientConn* c, const PlanVirtualServer* server,
                        const TlsClientHello* hello) noexcept nogil
# Goes on after events of a handshake that has begun, or waits in the queue.
cdef int handshake_run(Worker* w, ClientConn* c) noexcept nogil
# The next one of the queue that may begin now; NULL: none. It is to be begun at once.
cdef ClientConn* handshake_next(Worker* w) noexcept nogil
cdef int handshake_begin(Worker* w, ClientConn* c, const PlanVirtualServer* server,
                         const TlsClientHello* hello) noexcept nogil
# The connection ends or goes on: it is in no queue, and counts as none under way.
cdef void handshake_leave(Worker* w, ClientConn* c) noexcept nogil
