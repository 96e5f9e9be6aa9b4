# A node's answer: its head read, parsed, edited and sent on, interim ones (1xx) before it, its
# body relayed, or the tunnel that it opens.

from fastlb._core.connection cimport Exchange, Worker

cdef enum AnswerResult:
    ANSWER_NODE_LOST = -1            # the node's connection ended before a byte of the answer
    ANSWER_ENDED = 0                 # the exchange is over, and freed
    ANSWER_ALIVE = 1                 # more is to come

# As far as it goes now; an AnswerResult. Also sends what is left of an answer of our own.
cdef int answer_pump(Worker* w, Exchange* x) noexcept nogil
# The response rules that it waited for have ended.
cdef int answer_rules_done(Worker* w, Exchange* x) noexcept nogil
# Both directions of a tunnel; False when it is over.
cdef bint answer_tunnel(Worker* w, Exchange* x) noexcept nogil
