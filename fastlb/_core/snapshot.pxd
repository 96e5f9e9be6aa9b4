# The plans that this worker has mapped. An exchange holds the one it began with; the one in
# force is held by the worker; one that nobody holds is unmapped.

from libc.stdint cimport uint64_t

from fastlb._core.connection cimport Snapshot, Worker

# Maps the plan in `fd`, which it takes over, and opens its session caches. NULL when it is none
# of this build, or names regions that are no session caches: then `fd` stays the caller's. Does
# not take it into force.
cdef Snapshot* snapshot_map(Worker* w, int fd) noexcept nogil
# Takes it into force; the one before goes when its last exchange has ended.
cdef void snapshot_enter(Worker* w, Snapshot* snapshot) noexcept nogil
cdef void snapshot_release(Worker* w, Snapshot* snapshot) noexcept nogil
