# The body of a request that a rule asked for: gathered behind the head, in one buffer that grows as
# it comes, so that framing, retries and the node's sending go on as if all had arrived at once. The
# rule gets a copy, without chunks, which is its call's: it may outlive the exchange.

from fastlb._core.connection cimport Exchange, Worker

# Both False: the exchange is over, or its answer is on its way. Else the call was told, if
# x.rules.gathers is not set any more.
#
# The call under way asks for the body.
cdef bint rule_body_begin(Worker* w, Exchange* x) noexcept nogil
# More of it may have come.
cdef bint rule_body_run(Worker* w, Exchange* x) noexcept nogil
