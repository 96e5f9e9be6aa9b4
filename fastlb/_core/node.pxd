# The node table in shared memory: what changes while a plan stays the same.
#
# A slot belongs to one node of one pool (the control plane hands slots out by pool and
# address, so a node keeps its slot through reloads). `state` is written by the control plane;
# what requests show of a node's health (`health`) and the estimates by all workers, without a
# lock: they are counts and averages, and a lost one is no matter. Each worker writes its own
# columns, which are cleared when it dies.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from fastlb._core.limits cimport NODES_MAX, WORKERS_MAX

cdef enum NodeState:
    NODE_FREE = 0                    # slot not in use
    NODE_UP
    NODE_DRAINING                    # established sessions only
    NODE_DOWN                        # found dead by a monitor or by connecting
    NODE_DISABLED                    # by the operator

ctypedef struct NodeSlot:
    # line 0: read by every decision, seldom written
    uint32_t state                   # NodeState
    uint32_t failures                # in a row: connect failures, resets before an answer
    uint64_t response_us             # moving average of the time to the first byte; 0 = unknown
    uint64_t response_at_ms          # when it was last fed, CLOCK_BOOTTIME
    uint64_t used_at_ms              # last request of any session, CLOCK_BOOTTIME
    uint64_t ejected_until_ms        # CLOCK_BOOTTIME: no request before, then one probes; 0: not
    uint64_t returned_at_ms          # it became usable again (slow start), CLOCK_BOOTTIME; 0: never
    uint32_t ejections               # in a row, for the back-off
    uint32_t window_answers          # since `window_s`
    uint32_t window_errors           # of them with a status of 5xx
    uint32_t window_s                # CLOCK_BOOTTIME in seconds
    # one column per worker
    uint32_t active[WORKERS_MAX]     # requests and tunnels in progress
    uint32_t open[WORKERS_MAX]       # connections: being made, in use, pooled
    # Since when the oldest request of an established session waits for the node: the low 32 bits
    # of CLOCK_BOOTTIME in ms, never 0; 0: none does.
    uint32_t waiting[WORKERS_MAX]

ctypedef struct PoolSlot:
    uint64_t turn                    # round-robin position (atomic)
    uint32_t waiting[WORKERS_MAX]    # as of nodes, of new sessions' oldest request

ctypedef struct NodeTable:
    NodeSlot slots[NODES_MAX]
    PoolSlot pools[NODES_MAX]        # by PlanPool.slot

cdef extern from * nogil:
    """
    static inline uint64_t fastlb_fetch_add(uint64_t *at, uint64_t by)
    {
        return __atomic_fetch_add(at, by, __ATOMIC_RELAXED);
    }
    """
    uint64_t fastlb_fetch_add(uint64_t* at, uint64_t by) noexcept


# Requests in progress on the node over the first `workers` columns.
cdef inline uint32_t node_load(const NodeSlot* slot, uint32_t workers) noexcept nogil:
    cdef uint32_t total = 0
    cdef uint32_t i
    for i in range(workers):
        total += slot.active[i]
    return total


# Feeds the average with one measurement; weight 1/8 as in RFC 6298 (SRTT), rounded to the
# nearest, so that it drifts neither up nor down. Never 0 again, which would mean: unknown.
cdef inline void node_feed_response(NodeSlot* slot, uint64_t us, uint64_t now_ms) noexcept nogil:
    cdef int64_t average = <int64_t> slot.response_us
    if average == 0:
        average = <int64_t> us
    else:
        average += (<int64_t> us - average + 4) >> 3
    slot.response_us = <uint64_t> average if average > 0 else 1
    slot.response_at_ms = now_ms
