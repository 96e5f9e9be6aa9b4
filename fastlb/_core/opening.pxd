# A connection before its protocol speaks: what is read of it first, and where it goes then.
#
#   accepted -> PROXY header -> ClientHello -> http, https: a request may come
#               (trusted)       (tls, https)   tls, tcp: a passage
#
# Knows virtual servers and what stands at the beginning of their connections; nothing of
# requests and nodes. All of it together may take timeouts.handshake, which what the client sends
# does not prolong.

from fastlb._core.connection cimport ClientConn, Worker

cdef enum OpeningResult:
    OPENING_WAITS = 0                # an event or the time-out goes on with it
    OPENING_SERVES                   # a request may follow; what has come with it is in c.buffer
    OPENING_PASSED                   # the connection is another module's, or gone
    OPENING_CLOSES                   # to be closed without a word: it never said anything

# A connection was accepted: sets its state and its timer.
cdef int opening_begin(Worker* w, ClientConn* c) noexcept nogil
# Goes on as far as what was received allows; its events have been noted.
cdef int opening_run(Worker* w, ClientConn* c) noexcept nogil
cdef int opening_timeout(Worker* w, ClientConn* c) noexcept nogil
# At the end of a turn, while handshakes are in the queue: begins those that may.
cdef void opening_run_queue(Worker* w) noexcept nogil
# The connection is closed while it is being opened.
cdef void opening_leave(Worker* w, ClientConn* c) noexcept nogil
# The worker drains: who has sent nothing yet does not get all the time.
cdef void opening_drain(Worker* w, ClientConn* c) noexcept nogil
