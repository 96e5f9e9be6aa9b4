# Calls on their way between the worker's thread and the thread of the rules' event loop: two
# queues, each with a descriptor that wakes the other side. Neither side waits for the other, or
# for the GIL.

from libc.stdint cimport uint8_t, uint32_t

from fastlb._core.connection cimport Worker
from fastlb._core.rule_call cimport RuleCall

cdef enum RuleQueued:                # RuleCall.queued
    RULE_QUEUED_NOWHERE = 0
    RULE_QUEUED_OUT                  # on the way to the event loop
    RULE_QUEUED_BACK                 # on the way to the worker

# A call came back to the worker's thread; `message` says why. RuleCall.message must not be asked:
# behind a wish, the other thread may be writing its end there.
ctypedef void (*RuleCallBack)(Worker* w, RuleCall* call, uint8_t message) noexcept nogil

# Both queues and their descriptors, once per process; the worker's side is put into its epoll
# (w.rules), from where `on_call` is called for each call that came back. False: no descriptors.
cdef bint rule_queue_open(Worker* w, RuleCallBack on_call) noexcept nogil
# At the worker's end, when the event loop's thread has ended or was given up: calls that came
# back go to on_call, then the descriptors are closed. What comes later is nobody's.
cdef void rule_queue_close(Worker* w) noexcept nogil
# Towards the event loop; from now on the call is that thread's. Also tells of a change of
# `cancelled` or `body_state` of a call that is there already: then it is the same pointer again,
# once however often it was told, and not at all if its end is on its way already. If it is its
# wish for a body that is on its way, that is withdrawn.
cdef void rule_queue_put(RuleCall* call) noexcept nogil
cdef void rule_queue_tell(RuleCall* call) noexcept nogil
# The event loop's side: the first of a list (by `next`) of all calls that came; NULL: none.
cdef RuleCall* rule_queue_take() noexcept nogil
# Back to the worker, with `message` set. A wish for a body that crosses a cancellation is dropped:
# the cancellation is in what rule_queue_take gives next. So is a wish that has not been seen
# when its call's end is given.
cdef void rule_queue_give(RuleCall* call, uint8_t message) noexcept nogil
# The event loop's descriptor, readable when calls came; made at the first need. -1: none to be had.
cdef int rule_queue_fd() noexcept nogil
