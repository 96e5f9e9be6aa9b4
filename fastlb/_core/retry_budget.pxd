# How many retries a pool may have: a share of its requests, so that when its nodes fail the rest
# of them do not get a multiple of the load. Counted by each worker for itself, without a lock.
# Below a floor they are free: a small site may retry, and so may all that was under way on a node
# that is lost.

from libc.stdint cimport uint32_t, uint64_t

from fastlb._core.connection cimport RetryBudget
from fastlb._core.limits cimport RETRIES_FLOOR, RETRY_WINDOW_MS


# Both counts are halved with each new window: they are of the last two windows, about.
cdef inline void retry_budget_turn(RetryBudget* budget, uint64_t now_ms) noexcept nogil:
    cdef uint32_t window = <uint32_t> (now_ms // RETRY_WINDOW_MS)
    cdef uint32_t passed = window - budget.window
    if passed == 0:
        return
    budget.window = window
    budget.requests = budget.requests >> passed if passed < 32 else 0
    budget.retries = budget.retries >> passed if passed < 32 else 0


# A request of the pool has begun.
cdef inline void retry_budget_request(RetryBudget* budget, uint64_t now_ms) noexcept nogil:
    retry_budget_turn(budget, now_ms)
    budget.requests += 1


# Whether one may be retried now; then it is counted as retried.
cdef bint retry_budget_take(RetryBudget* budget, uint32_t percent, uint64_t now_ms) noexcept nogil
