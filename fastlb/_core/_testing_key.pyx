"""What a declared key, and a decision by it, cost: loops without the GIL; for benchmarks only."""

from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from fastlb._core._testing_decide cimport Made, World
from fastlb._core.decide cimport decide
from fastlb._core.decision cimport DecideInput
from fastlb._core.methods cimport method_find
from fastlb._core.persist cimport Finding, persist_find_t
from fastlb._core.plan cimport PlanClass, plan_class


cdef int64_t _now_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t> now.tv_sec * 1000000000 + now.tv_nsec


def time_key(World world, bytes data, bint whole, uint32_t rounds):
    """Nanoseconds of the first class's look at a request, or of the `whole` decision about it."""
    cdef Made made = Made(world, "192.0.2.1", data, 0, False)
    cdef const PlanClass* cls = plan_class(world.image.plan, 0)
    cdef persist_find_t find = method_find(cls)
    cdef DecideInput ask
    cdef Finding found
    cdef int64_t start, end
    cdef uint32_t _round
    made._input(&ask)
    with nogil:
        start = _now_ns()
        for _round in range(rounds):
            if whole:
                decide(&ask, &made.d)
            else:
                memset(&found, 0, <size_t> (<char*> &found.keys[0] - <char*> &found))
                find(&ask.request, cls, &found)
        end = _now_ns()
    return (end - start) / rounds
