# One line per request, written by the worker itself in batches, never blocking.

from fastlb._core.connection cimport AccessLog, Exchange, Worker

cdef enum:
    ACCESS_LOG_BYTES = 128 * 1024
    ACCESS_LINE_BYTES_MAX = 32 * 1024
    ACCESS_LINE_REST_BYTES = 4 * 1024    # of a line: what is not the client's text

cdef bint access_log_open(AccessLog* log, int fd, bint is_socket) noexcept nogil
cdef void access_log_close(AccessLog* log) noexcept nogil
# Another descriptor from now on (log rotation); the old one is closed.
cdef void access_log_reopen(Worker* w, int fd, bint is_socket) noexcept nogil
cdef void access_log_write(Worker* w, const Exchange* x) noexcept nogil
cdef void access_log_flush(Worker* w) noexcept nogil
