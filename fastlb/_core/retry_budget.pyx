# The budget of retries (contract in retry_budget.pxd).

from libc.stdint cimport uint32_t, uint64_t


cdef bint retry_budget_take(RetryBudget* budget, uint32_t percent, uint64_t now_ms) noexcept nogil:
    retry_budget_turn(budget, now_ms)
    if budget.retries >= RETRIES_FLOOR + <uint64_t> budget.requests * percent // 100:
        return False
    budget.retries += 1
    return True
