# Calls on their way between the worker's thread and the thread of the rules' event loop: two
# queues, each with a descriptor that wakes the other side. Neither side waits for the other, or
# for the GIL.

from libc.stdint cimport uint32_t

from fastlb._core.connection cimport Worker
from fastlb._core.rule_call cimport RuleCall

# Both queues and their descriptors, once per process; the worker's side is put into its epoll.
# False: no descriptors.
cdef bint rule_queue_open(Worker* w) noexcept nogil
cdef void rule_queue_close(Worker* w) noexcept nogil
# Towards the event loop; from now on the call is that thread's. Also tells of a change of
# `cancelled` or `body_state` of a call that is there already: then it is the same pointer again.
cdef void rule_queue_put(RuleCall* call) noexcept nogil
cdef void rule_queue_tell(RuleCall* call) noexcept nogil
# The event loop's side: the first of a list (by `next`) of all calls that came; NULL: none.
cdef RuleCall* rule_queue_take() noexcept nogil
# Back to the worker, with `message` set.
cdef void rule_queue_give(RuleCall* call) noexcept nogil
# The event loop's descriptor.
cdef int rule_queue_fd() noexcept nogil
