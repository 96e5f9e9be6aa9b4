# The node table in shared memory: what changes while a plan stays the same.
#
# A slot belongs to one node of one pool (the control plane hands slots out by pool and
# address, so a node keeps its slot through reloads). `state` is written by the control plane;
# what requests show of a node's health (`health`) and the estimates by all workers, without a
# lock: they are counts and averages, and a lost one is no matter. Each worker writes its own
# columns, which are cleared when it dies.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

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
    static inline void fastlb_add_u32(uint32_t *at, uint32_t by)
    {
        __atomic_fetch_add(at, by, __ATOMIC_SEQ_CST);
    }
    """
    uint64_t fastlb_fetch_add(uint64_t* at, uint64_t by) noexcept
    void fastlb_add_u32(uint32_t* at, uint32_t by) noexcept

cdef enum:
    NO_LIMIT = 0xFFFFFFFF            # in place of max_connections: the plan in force lacks the slot
    WAITING_SLACK_MS = 1000          # who waits longer than queue_timeout and this is dead


# Requests in progress on the node over the first `workers` columns.
cdef inline uint32_t node_load(const NodeSlot* slot, uint32_t workers) noexcept nogil:
    cdef uint32_t total = 0
    cdef uint32_t i
    for i in range(workers):
        total += slot.active[i]
    return total


# Open connections to the node over the first `workers` columns.
cdef inline uint32_t node_open(const NodeSlot* slot, uint32_t workers) noexcept nogil:
    cdef uint32_t total = 0
    cdef uint32_t i
    for i in range(workers):
        total += slot.open[i]
    return total


# One more connection of worker `worker`, unless there are `limit` of them: False. Each worker adds
# first and looks then, so of two that take the last room at the same time at most one gets it.
cdef inline bint node_admit(NodeSlot* slot, uint32_t worker, uint32_t workers,
                            uint32_t limit) noexcept nogil:
    fastlb_add_u32(&slot.open[worker], 1)
    if node_open(slot, workers) <= limit:
        return True
    fastlb_add_u32(&slot.open[worker], <uint32_t> -1)
    return False


# Since when a column says that somebody waits, in ms before `now_ms`; -1: nobody, or who waited
# is dead. `now_ms`: CLOCK_BOOTTIME, which two workers have read up to some ms apart.
cdef inline int64_t node_waited(uint32_t since, uint64_t now_ms,
                                uint32_t timeout_ms) noexcept nogil:
    cdef int32_t ms = <int32_t> (<uint32_t> now_ms - since)
    if since == 0 or ms > <int64_t> timeout_ms + WAITING_SLACK_MS:
        return -1
    return ms if ms > 0 else 0


# Whether anybody waits, of any worker.
cdef inline bint node_is_awaited(const uint32_t* waiting, uint32_t workers, uint64_t now_ms,
                                 uint32_t timeout_ms) noexcept nogil:
    cdef uint32_t i
    for i in range(workers):
        if waiting[i] and node_waited(waiting[i], now_ms, timeout_ms) >= 0:
            return True
    return False


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
