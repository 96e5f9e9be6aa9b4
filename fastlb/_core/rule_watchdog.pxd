# Rules that hold a thread: plain ones the worker's own, async ones that of their event loop. A
# thread of its own, which never needs the GIL, looks at what runs: it reports the place while it
# is held, and asks what runs too long to end.
#
# What is watched says so by two stores. A sequence number is odd while a rule runs; seen odd and
# the same for some time, the thread is held.

from libc.stdint cimport uint32_t

from fastlb._core.stats cimport WorkerStats

# Where blocked calls are counted; NULL: nowhere.
cdef void rule_watch_open(WorkerStats* stats) noexcept nogil
# A plain rule begins in the worker's thread; `slot` of WorkerStats.rules. With the GIL, right
# before it is called, and right after it has returned or raised.
cdef void rule_watch_begin(uint32_t slot) noexcept nogil
cdef void rule_watch_end() noexcept nogil
