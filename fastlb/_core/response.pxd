# The response as the client gets it: the received head with fields cut out and put in.

from fastlb._core.connection cimport Exchange, Worker

# Fills w.iov with the edited head in w.response, which begins at `buf`; the count of vectors,
# or a negative EditError.
cdef int response_edit(Worker* w, Exchange* x, const char* buf) noexcept nogil
# The same for a 1xx head: nothing of ours is added.
cdef int response_edit_interim(Worker* w, const char* buf) noexcept nogil
# Adds "X-FastLB-Decision: ..." to the scratch text where the client may see it.
cdef bint response_add_decision(Worker* w, Exchange* x) noexcept nogil
