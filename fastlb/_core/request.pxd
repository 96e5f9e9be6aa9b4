# The request as the node gets it: the received head with fields cut out and put in.

from libc.stdint cimport uint32_t

from fastlb._core.connection cimport Exchange, Worker
from fastlb._core.head cimport Head
from fastlb._core.path_session cimport path_of_target
from fastlb._core.slice cimport Slice, slice_of

# Parses the request's head again, from the exchange's buffer, when `w.request` holds another's.
cdef void request_reload(Worker* w, Exchange* x) noexcept nogil
# What is needed of the head after it was sent, as offsets in the buffer, where it begins at
# `start`.
cdef void request_note(Exchange* x, const Head* head, uint32_t start) noexcept nogil
# Whether it is an OPTIONS or a TRACE that must not go further (Max-Forwards).
cdef bint request_ends_here(const Head* head, const char* buf) noexcept nogil
# The pool that the routes say, by the head in `w.request`.
cdef void request_choose_pool(Worker* w, Exchange* x) noexcept nogil
# Fills w.iov with the edited head; the count of vectors, or a negative EditError.
cdef int request_edit(Worker* w, Exchange* x) noexcept nogil


# The first byte of the request in the buffer that keeps it.
cdef inline const char* request_head_at(const Exchange* x) noexcept nogil:
    if x.up.kept != NULL:
        return x.up.kept.data + x.head_start
    return x.up.data.data + x.head_start


# The request's path without its query; empty where its target has none.
cdef inline Slice request_path_at(const Exchange* x) noexcept nogil:
    return path_of_target(slice_of(request_head_at(x) + (x.target - x.head_start),
                                   x.target_bytes))
