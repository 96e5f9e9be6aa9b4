# Keeps shared caches from storing a response that gets a cookie of ours (RFC 9111): else everybody
# whom the cache serves would get one and the same session.

from fastlb._core.connection cimport Exchange, Worker

# Edits the response in w.response / w.edit, whose head is at `buf`, so that none stores it; a new
# field is added to the scratch text. 0 or a negative EditError.
cdef int protect_cache_edit(Worker* w, Exchange* x, const char* buf) noexcept nogil
