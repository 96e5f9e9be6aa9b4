# Test-only: how long the consistent hash takes to place keys.

import time

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from fastlb._core._testing_decide cimport World
from fastlb._core.balance cimport BalanceInput, balance_owner, balance_pick
from fastlb._core.plan cimport plan_pool


def hash_seconds(World world, uint64_t keys, bint owner, uint64_t first=0, uint32_t pool=0):
    """CPU seconds for as many keys: a new session's node, or (`owner`) that of the hash."""
    cdef BalanceInput ask
    cdef bint draining = False
    cdef uint64_t i
    cdef long long sink = 0
    memset(&ask, 0, sizeof(ask))
    ask.plan = world.image.plan
    ask.pool = plan_pool(world.image.plan, pool)
    ask.table = world.table
    ask.by_hash = True
    ask.random = &world.random
    begun = time.thread_time()
    with nogil:
        for i in range(first, first + keys):
            ask.key = (i + 1) * <uint64_t> 0x9E3779B97F4A7C15ULL
            sink += balance_owner(&ask) if owner else balance_pick(&ask, &draining)
    return time.thread_time() - begun if sink >= 0 else -1.0
