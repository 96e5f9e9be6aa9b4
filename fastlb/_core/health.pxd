# What requests show of a node's health (docs/architecture.md "How it stays up"). Over the node's
# slot, its pool's bounds and a clock; it knows no connections, and no control process.
#
#   usable ── failures in a row, or too many 5xx ──► ejected ── its time is over ──► due
#      ▲                                                ▲                             │
#      │                                                └──────── failed ────┐        ▼
#      └───────────────────────── answered ────────────────────────────── one probe
#
# All workers write a slot, without a lock. Only a change of `ejected_until_ms` has to be one's
# own: it is made by a compare-and-swap, so that one request probes, and one failure counts.

from libc.stdint cimport uint32_t, uint64_t

from fastlb._core.debug cimport likely, unlikely
from fastlb._core.node cimport NODE_DOWN, NODE_DRAINING, NODE_UP, NodeSlot
from fastlb._core.plan cimport POOL_WATCHED, PlanPool
from fastlb._core.stats cimport NodeStats

cdef enum HealthTry:                 # Exchange.probes
    TRY_USUAL = 0                    # of a node that was not ejected when the request was sent
    TRY_PROBE                        # decides what becomes of the ejection
    TRY_LAST_RESORT                  # of an ejected one, for want of others: can only end it

cdef enum:
    SLOW_START_FROM = 10             # percent of its share that a returning node begins with


# Whether no request is to be sent there now.
cdef inline bint health_is_out(const PlanPool* pool, const NodeSlot* slot,
                               uint64_t now_ms) noexcept nogil:
    return unlikely(slot.ejected_until_ms > now_ms) and pool.flags & POOL_WATCHED != 0


# The NodeState that decisions go by.
cdef inline uint32_t health_state(const PlanPool* pool, const NodeSlot* slot,
                                  uint64_t now_ms) noexcept nogil:
    if health_is_out(pool, slot, now_ms) and (
            slot.state == NODE_UP or slot.state == NODE_DRAINING):
        return NODE_DOWN
    return slot.state


# Percent of its share of new sessions that the node gets so far.
cdef inline uint32_t health_share(const PlanPool* pool, const NodeSlot* slot,
                                  uint64_t now_ms) noexcept nogil:
    cdef uint64_t passed = 0
    if likely(pool.slow_start == 0 or slot.returned_at_ms == 0):
        return 100
    if now_ms > slot.returned_at_ms:  # the worker that wrote it may be a little ahead
        passed = now_ms - slot.returned_at_ms
    if passed >= pool.slow_start:
        return 100
    return <uint32_t> (SLOW_START_FROM + (100 - SLOW_START_FROM) * passed // pool.slow_start)


# Whether a session that nobody else can serve may try its node before the back-off is over, since
# it has nothing to lose: once in `backoff_min`, however long the back-off has become.
cdef bint health_may_try_early(const PlanPool* pool, const NodeSlot* slot,
                               uint64_t now_ms) noexcept nogil
# A request is about to be sent there: which HealthTry it is. A probe that ends neither way is
# followed by another one after `probe_ms`. `early`: it may be an early one.
cdef int health_try(const PlanPool* pool, NodeSlot* slot, NodeStats* stats, uint64_t now_ms,
                    uint32_t probe_ms, bint early) noexcept nogil
# That try (a HealthTry) failed, by the node's doing.
cdef void health_failed(const PlanPool* pool, NodeSlot* slot, NodeStats* stats, uint64_t now_ms,
                        int tried) noexcept nogil
# Its ejection ends without an answer: the next failure begins another one, twice as long, and an
# answer makes it a node like others.
cdef void health_excuse(const PlanPool* pool, NodeSlot* slot, uint64_t now_ms) noexcept nogil
# It was answered; see health_answered.
cdef void health_note_answer(const PlanPool* pool, NodeSlot* slot, NodeStats* stats,
                             uint64_t now_ms, int tried, int status) noexcept nogil


# The node's answer has begun, with this status; 0: the connection itself is the answer.
cdef inline void health_answered(const PlanPool* pool, NodeSlot* slot, NodeStats* stats,
                                 uint64_t now_ms, int tried, int status) noexcept nogil:
    stats.errors += status >= 500
    if unlikely(slot.failures != 0 or slot.ejected_until_ms != 0 or pool.errors != 0) \
            and pool.flags & POOL_WATCHED:
        health_note_answer(pool, slot, stats, now_ms, tried, status)
