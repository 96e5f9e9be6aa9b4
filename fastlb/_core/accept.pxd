# Listening sockets of one worker: accepting, pausing when resources run out, adopting and
# giving up sockets at a reload.

from libc.stdint cimport uint32_t

from fastlb._core.connection cimport Listener, Worker

# Takes over a listening socket; False when there is no memory or the kernel refuses.
cdef bint accept_add(Worker* w, uint32_t id, uint32_t socket, int fd) noexcept nogil
cdef Listener* accept_find(Worker* w, uint32_t id, uint32_t socket) noexcept nogil
# Gives one socket up, if it is there; what has queued up is left to whoever else has it.
cdef void accept_drop(Worker* w, uint32_t id, uint32_t socket) noexcept nogil
# After a new plan is in force: listeners that it names serve its virtual servers, the others close.
cdef void accept_follow_plan(Worker* w) noexcept nogil
# Stops accepting until the timer, or until connections have ended.
cdef void accept_pause(Worker* w, uint32_t retry_ms) noexcept nogil
cdef void accept_resume(Worker* w) noexcept nogil
# At every turn while stopping: accepts what has queued up, as far as there is room for it, and
# closes the listeners that have no more. What comes meanwhile does not keep them open for ever.
cdef void accept_finish(Worker* w) noexcept nogil
# Closes all; what has queued up is left to whoever else has the sockets.
cdef void accept_close_all(Worker* w) noexcept nogil
# Frees what was closed in this turn.
cdef void accept_bury(Worker* w) noexcept nogil
