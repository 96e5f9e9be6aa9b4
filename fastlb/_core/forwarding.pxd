# What nodes are told of the client and of the way: X-Forwarded-For, X-Forwarded-Proto,
# X-Forwarded-Host, Forwarded, Via, as far as `forwarded_fields` says so.

from fastlb._core.connection cimport Exchange, Worker
from fastlb._core.head cimport Head

# Appends to the fields that the request in w.request has and that are lists. Before anything is
# gathered in the scratch for the head's end. 0 or EDIT_FULL.
cdef int forwarding_append(Worker* w, Exchange* x, const char* buf) noexcept nogil
# Adds the others to the scratch, as lines for the head's end, and cuts what is not believed.
cdef int forwarding_add(Worker* w, Exchange* x, const char* buf) noexcept nogil
# White space around the values of framing fields goes, but for one space in front: some parsers
# take "chunked" with a tab behind it for another coding. Not `coded`: Transfer-Encoding is cut.
cdef int forwarding_tidy(Worker* w, const Head* head, const char* buf, bint coded) noexcept nogil
# Via in the answer in w.response, before anything else is in the scratch. 1: appended to one that
# is there; 0: nothing, or as the first line for the head's end; or EDIT_FULL.
cdef int forwarding_answer(Worker* w, Exchange* x) noexcept nogil
