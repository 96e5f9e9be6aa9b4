# Which node gets a new session: one function per algorithm, one predicate for all.
#
# Reads plan and node table, writes only the pool's round-robin position (never for a peek).
# Primary nodes come first, then backup nodes, then, if the pool allows it, draining ones.

from libc.stdint cimport int32_t, uint32_t, uint64_t

from fastlb._core.limits cimport TRIES_MAX
from fastlb._core.node cimport NodeTable
from fastlb._core.plan cimport Plan, PlanPool

ctypedef struct BalanceInput:
    const Plan* plan
    const PlanPool* pool
    NodeTable* table
    uint64_t key                     # for the hash algorithm
    uint64_t* random                 # state of the caller's generator, never 0
    uint64_t now_ms                  # CLOCK_BOOTTIME
    bint peek                        # look only: take no turn
    uint32_t tried_count
    int32_t tried[TRIES_MAX]         # indices of nodes that failed for this request

# Index of the node in the pool, -1 when no node may take a new session.
# `OUT draining` tells that only draining nodes were left and one of them was taken.
cdef int32_t balance_pick(BalanceInput* ask, bint* draining) noexcept nogil
# The node of a key over the usable nodes alone, for the `hash` persistence class too.
cdef int32_t balance_hash(BalanceInput* ask, uint32_t tier) noexcept nogil
