# Ejection, probes and return of nodes (contract in health.pxd).

from libc.stdint cimport uint32_t, uint64_t

cdef extern from * nogil:
    """
    static inline int fastlb_swap_u64(uint64_t *at, uint64_t expected, uint64_t wanted)
    {
        return __atomic_compare_exchange_n(at, &expected, wanted, 0, __ATOMIC_RELAXED,
                                           __ATOMIC_RELAXED);
    }
    """
    bint fastlb_swap_u64(uint64_t* at, uint64_t expected, uint64_t wanted) noexcept


# How long the node is out that was ejected `times` times in a row before.
cdef uint64_t _backoff(const PlanPool* pool, uint32_t times) noexcept nogil:
    cdef uint64_t length = <uint64_t> pool.backoff_min << (times if times < 30 else 30)
    return length if length < pool.backoff_max else pool.backoff_max


cdef void _begin_window(NodeSlot* slot, uint64_t now_ms) noexcept nogil:
    slot.window_answers = 0
    slot.window_errors = 0
    slot.window_s = <uint32_t> (now_ms // 1000)


cdef void _eject(const PlanPool* pool, NodeSlot* slot, NodeStats* stats, uint64_t expected,
                 uint64_t now_ms) noexcept nogil:
    if not fastlb_swap_u64(&slot.ejected_until_ms, expected,
                           now_ms + _backoff(pool, slot.ejections)):
        return                       # another worker was first
    slot.ejections += 1
    slot.failures = 0
    _begin_window(slot, now_ms)
    stats.ejections += 1


# Ends the ejection that was seen to last until `expected`; no other one that began meanwhile.
cdef bint _end(NodeSlot* slot, uint64_t expected, uint64_t now_ms) noexcept nogil:
    if not fastlb_swap_u64(&slot.ejected_until_ms, expected, 0):
        return False
    slot.returned_at_ms = now_ms
    _begin_window(slot, now_ms)
    return True


cdef void _return(NodeSlot* slot, uint64_t expected, uint64_t now_ms) noexcept nogil:
    if _end(slot, expected, now_ms):
        slot.failures = 0
        slot.ejections = 0


cdef void health_excuse(const PlanPool* pool, NodeSlot* slot, uint64_t now_ms) noexcept nogil:
    cdef uint64_t until = slot.ejected_until_ms
    if until != 0 and _end(slot, until, now_ms):
        slot.failures = pool.failures - 1 if pool.failures else 0


cdef bint health_may_try_early(const PlanPool* pool, const NodeSlot* slot,
                               uint64_t now_ms) noexcept nogil:
    cdef uint64_t until = slot.ejected_until_ms
    cdef uint64_t length = _backoff(pool, slot.ejections - 1 if slot.ejections else 0)
    return now_ms + length >= until + pool.backoff_min


cdef int health_try(const PlanPool* pool, NodeSlot* slot, NodeStats* stats, uint64_t now_ms,
                    uint32_t probe_ms, bint early) noexcept nogil:
    cdef uint64_t until = slot.ejected_until_ms
    cdef uint64_t next_ms = now_ms + probe_ms
    if until == 0 or not pool.flags & POOL_WATCHED:
        return TRY_USUAL
    if until > now_ms:
        if not early or not health_may_try_early(pool, slot, now_ms):
            return TRY_LAST_RESORT
        next_ms = now_ms + _backoff(pool, slot.ejections - 1 if slot.ejections else 0)
    if not fastlb_swap_u64(&slot.ejected_until_ms, until, next_ms):
        return TRY_LAST_RESORT       # another worker's request is the probe
    stats.probes += 1
    return TRY_PROBE


cdef void health_failed(const PlanPool* pool, NodeSlot* slot, NodeStats* stats, uint64_t now_ms,
                        int tried) noexcept nogil:
    cdef uint64_t until = slot.ejected_until_ms
    if not pool.flags & POOL_WATCHED:
        return
    if until != 0:
        # What began before the ejection, or was a last resort, tells nothing new.
        if tried == TRY_PROBE:
            _eject(pool, slot, stats, until, now_ms)
        return
    slot.failures += 1
    if pool.failures != 0 and slot.failures >= pool.failures:
        _eject(pool, slot, stats, 0, now_ms)


# 501 and 505 are about the request: a client could have any number of them.
cdef inline bint _is_error(const PlanPool* pool, int status) noexcept nogil:
    return pool.errors != 0 and status >= 500 and status != 501 and status != 505


cdef void health_note_answer(const PlanPool* pool, NodeSlot* slot, NodeStats* stats,
                             uint64_t now_ms, int tried, int status) noexcept nogil:
    cdef uint64_t until = slot.ejected_until_ms
    cdef bint error = _is_error(pool, status)
    if until != 0:
        # A node that is shutting down refuses connections, and still answers what it has.
        if tried == TRY_PROBE and error:
            _eject(pool, slot, stats, until, now_ms)
        elif tried != TRY_USUAL and not error:
            _return(slot, until, now_ms)
        return
    slot.failures = 0
    if not error:
        slot.ejections = 0           # of one that was excused
    if pool.errors == 0:
        return
    if now_ms // 1000 - slot.window_s >= pool.window:
        _begin_window(slot, now_ms)
    slot.window_answers += 1
    slot.window_errors += error
    if slot.window_answers >= pool.errors_of \
            and slot.window_errors * 100 >= <uint64_t> pool.errors * slot.window_answers:
        _eject(pool, slot, stats, 0, now_ms)
