# A client's connection between its requests: accepted, read until a head is whole, kept alive,
# closed. While a request is served the exchange has the word.

from libc.stdint cimport uint32_t

from fastlb._core.connection cimport ClientConn, Listener, Worker

# Takes over an accepted socket (and closes it when there is no memory).
cdef void client_open(Worker* w, Listener* listener, int fd, const void* sockaddr) noexcept nogil
cdef void client_timeout(Worker* w, ClientConn* c) noexcept nogil
# Serves those that have bytes of a next request, or gave way to others.
cdef void client_run_posted(Worker* w) noexcept nogil
# The worker drains: idle connections end within a moment, others after their request.
cdef void client_drain_all(Worker* w) noexcept nogil
# The worker ends now.
cdef void client_stop_all(Worker* w) noexcept nogil
# Frees what was closed in this turn.
cdef void client_bury(Worker* w) noexcept nogil
# The callback of Worker.request_done.
cdef void client_request_done(Worker* w, ClientConn* c, int how) noexcept nogil
