# The inserted cookie in a response: when it is written, and what becomes of the node's own
# Set-Cookie of its name.

from fastlb._core.connection cimport Exchange, Worker

# Edits the response in w.response / w.edit; new fields are added to the scratch text. 0 or
# a negative EditError.
cdef int set_cookie_edit(Worker* w, Exchange* x, const char* buf) noexcept nogil
# Adds a field line for each cookie that the decision expires to the scratch text.
cdef bint set_cookie_expire(Worker* w, Exchange* x) noexcept nogil
