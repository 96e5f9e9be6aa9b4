# Which node gets a new session: one function per algorithm, one predicate for all.
#
# Reads plan and node table, writes only the pool's round-robin position (never for a peek).
# Primary nodes come first, then backup nodes, then, if the pool allows it, draining ones, and at
# the very last those that are ejected for what requests showed (`health`).

from libc.stdint cimport int32_t, uint32_t, uint64_t

from fastlb._core.debug cimport unlikely
from fastlb._core.limits cimport TRIES_MAX
from fastlb._core.node cimport NODE_DRAINING, NODE_UP, NO_LIMIT, NodeSlot, NodeTable
from fastlb._core.plan cimport POOL_DRAIN_LAST_REFUSE, Plan, PlanNode, PlanPool

ctypedef struct BalanceInput:
    const Plan* plan
    const PlanPool* pool
    NodeTable* table
    uint64_t key                     # for the hash algorithm
    bint by_hash                     # place by `key`, whatever the pool's algorithm
    uint64_t* random                 # state of the caller's generator, never 0
    uint64_t now_ms                  # CLOCK_BOOTTIME
    bint peek                        # look only: take no turn
    const uint32_t* limits           # max_connections by slot; NULL: as the plan says
    const uint32_t* idle             # own idle connections by slot: room in a full node; NULL: none
    bint in_turn                     # new sessions that wait do not come before this one
    uint32_t draw                    # of balance_pick: nodes whose share is below it sit out
    uint32_t tried_count
    int32_t tried[TRIES_MAX]         # indices of nodes that failed for this request

# Index of the node in the pool, -1 when no node may take a new session.
# `OUT draining` tells that only draining nodes were left and one of them was taken.
cdef int32_t balance_pick(BalanceInput* ask, bint* draining) noexcept nogil
# Connections that may be open to the node; 0: any number. `limits`: by slot, of the plan in force;
# NULL: as the node's own plan says.
cdef inline uint32_t balance_limit(const uint32_t* limits, const PlanNode* node) noexcept nogil:
    if unlikely(limits != NULL) and limits[node.slot] != NO_LIMIT:
        return limits[node.slot]
    return node.max_connections


# Whether the node is among those that failed for a request.
cdef inline bint balance_was_tried(const int32_t* tried, uint32_t count,
                                   int32_t index) noexcept nogil:
    cdef uint32_t i
    for i in range(count):
        if tried[i] == index:
            return True
    return False


# Whether the node would get new sessions were it not ejected, in whatever tier.
cdef inline bint balance_may_serve(const PlanPool* pool, const PlanNode* node,
                                   const NodeSlot* slot) noexcept nogil:
    if slot.state == NODE_DRAINING:
        return not pool.flags & POOL_DRAIN_LAST_REFUSE
    return slot.state == NODE_UP and node.weight != 0


# After that was -1: whether some node is merely full, and worth waiting for.
cdef bint balance_waits(const BalanceInput* ask) noexcept nogil
# Whether a node that is not ejected may take a new session.
cdef bint balance_has_healthy(BalanceInput* ask) noexcept nogil
# The node that a key belongs to while all that are listed serve: over the primary nodes that
# take part in the hash, those that are down or disabled too; backup nodes where there is no
# other. -1: none. The caller meets the failure mode when that node cannot serve.
cdef int32_t balance_owner(const BalanceInput* ask) noexcept nogil
