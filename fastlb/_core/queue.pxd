# Requests and passages that wait because nodes have their max_connections: sessions for their node,
# new ones for any node of their pool.
#
#   queue_enter -> STAGE_QUEUE -> queue_run -> its turn -> a node
#                             \-> its time is over, its client has left: queue_leave
#
# Who came first is served first, over all workers: each tells in its columns of the node table
# since when its oldest one waits, and takes no room while somebody elsewhere is clearly older.
# Sessions come before new ones. Not known here: how a request is let in; see exchange and passage.

from libc.stdint cimport uint32_t

from fastlb._core.connection cimport Exchange, Worker
from fastlb._core.plan cimport PlanNode

cdef enum:
    QUEUE_POLL_MS = 2                # what other workers set free is seen so much later
    QUEUE_IDLE_LOOK_MS = 100         # for idle connections that keep others from a node

# Lets in one that is in no queue any more; it may come back into one, or be over.
ctypedef void (*queue_turn_t)(Worker* w, Exchange* x) noexcept nogil

# Connections that may be open to the node; 0: any number.
cdef uint32_t queue_limit(const Worker* w, const PlanNode* node) noexcept nogil
# Whether sessions wait for the node, so that this one must not overtake them.
cdef bint queue_is_awaited(const Worker* w, const Exchange* x, const PlanNode* node) noexcept nogil
# The decision's node is full, or with ACTION_WAIT all are: x waits from now on. False: too many do.
cdef bint queue_enter(Worker* w, Exchange* x) noexcept nogil
cdef void queue_leave(Worker* w, Exchange* x) noexcept nogil
# It has waited for as long as it may.
cdef void queue_time_over(Worker* w, Exchange* x) noexcept nogil
# Its turn: one that may have any node takes the plan in force, whose nodes may be others. Whether
# it did: then its pool is to be chosen again, and nothing was decided yet.
cdef bint queue_follow(Worker* w, Exchange* x) noexcept nogil
# At the end of a turn: whoever's turn it is while there is room.
cdef void queue_run(Worker* w, queue_turn_t turn) noexcept nogil
# At times: idle connections that keep other workers from a node are closed.
cdef void queue_look_at_idle(Worker* w) noexcept nogil
cdef void queue_free_all(Worker* w) noexcept nogil
