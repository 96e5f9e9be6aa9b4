# fastlb's own answers: error pages and the failure mode's redirect.

from libc.stdint cimport uint32_t

from fastlb._core.connection cimport Exchange, Worker
from fastlb._core.rule_call cimport RuleCall
from fastlb._core.slice cimport Slice

# Bytes of the whole response (head and, unless the method is HEAD, a page) for x.status, 0 when
# there is no room for its head; and the same written into `out`, which has room for them. Nothing
# may be put into the worker's scratch between the two. `configured`: with the virtual server's own
# page, where it has one.
cdef uint32_t reply_bytes(Worker* w, Exchange* x, bint configured) noexcept nogil
cdef uint32_t reply_write(Worker* w, char* out) noexcept nogil
# A rule's answer: bytes and writing, as above.
cdef uint32_t reply_rule_bytes(Worker* w, Exchange* x, const RuleCall* call) noexcept nogil
cdef uint32_t reply_rule_write(Worker* w, Exchange* x, const RuleCall* call,
                               char* out) noexcept nogil
# Whether a request for `target` on `host` asks for the page that `url` (a path or an absolute
# URL) redirects to; queries do not count.
cdef bint reply_redirect_loops(Slice url, Slice host, Slice target) noexcept nogil
cdef const char* reply_reason(int status) noexcept nogil
