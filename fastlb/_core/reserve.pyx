# Who holds a reservation is the request that made it: its answer shortens it, its failure
# ends it. Looking only (peek) neither makes nor moves one.
#
# Reservation and memory are one map with one deadline. Whoever wants the reservation reads a
# clock that is COOKIE_MEMORY_TICKS fast, so to him the map ends that much earlier, and a claim
# replaces it as one that has ended.

from libc.stdint cimport int32_t, uint32_t, uint64_t

from fastlb._core.decision cimport DecideInput, Decision
from fastlb._core.head cimport FIELD_HOST, FIELD_USER_AGENT, Head, head_value
from fastlb._core.limits cimport COOKIE_MEMORY_TICKS, TICK_MS
from fastlb._core.node cimport NODE_UP
from fastlb._core.outcome cimport FOUND_RESERVATION, OUTCOME_RESERVED
from fastlb._core.plan cimport KEY_RESERVATION
from fastlb._core.resolve cimport (
    decide_class, decide_node, decide_state, resolve, resolve_was_tried,
)
from fastlb._core.session_cache cimport (
    CACHE_HIT, CACHE_NEW, SessionMap, session_cache_claim, session_cache_deadline,
    session_cache_delete, session_cache_lookup, session_cache_store,
)
from fastlb._core.siphash cimport (
    SipState, sip_final128, sip_init128, sip_update, sip_update_u64,
)
from fastlb._core.slice cimport Slice


cdef void reserve_fingerprint(const DecideInput* ask, Decision* d) noexcept nogil:
    cdef SipState state
    cdef const Head* head = ask.request.head
    cdef int field
    cdef Slice value
    cdef int[2] fields = [FIELD_HOST, FIELD_USER_AGENT]
    sip_init128(&state, &ask.request.plan.keys[KEY_RESERVATION])
    sip_update(&state, ask.request.client.ip, 16)
    for field in fields:
        if head.first[field] < 0:
            sip_update_u64(&state, <uint64_t> -1)
            continue
        value = head_value(head, ask.request.buf, <uint32_t> head.first[field])
        sip_update_u64(&state, value.bytes)
        sip_update(&state, value.at, value.bytes)
    d.reservation = sip_final128(&state)
    d.has_reservation = True


cdef inline uint32_t _fast_clock(const DecideInput* ask) noexcept nogil:
    return ask.now_ticks + COOKIE_MEMORY_TICKS


cdef inline bint _look(const DecideInput* ask, const Decision* d, uint32_t now,
                       SessionMap* held) noexcept nogil:
    return session_cache_lookup(&ask.reservations[d.reserve_class], &d.reservation, now, 0, False,
                                held) == CACHE_HIT


cdef bint reserve_remembers(const DecideInput* ask, const Decision* d) noexcept nogil:
    cdef SessionMap held
    return _look(ask, d, ask.now_ticks, &held) and not _look(ask, d, _fast_clock(ask), &held)


cdef bint reserve_take(const DecideInput* ask, Decision* d) noexcept nogil:
    cdef SessionMap held
    cdef int32_t node
    if not _look(ask, d, _fast_clock(ask), &held):
        return False
    node = resolve(ask, &held.address)
    if node < 0 or decide_state(ask, node) != NODE_UP or resolve_was_tried(d, node):
        return False
    d.node = node
    return True


cdef void reserve_join(Decision* d) noexcept nogil:
    d.outcome = OUTCOME_RESERVED
    d.found_in = FOUND_RESERVATION
    d.established = False


# Until the answer must have come, and `reserve` after it.
cdef uint32_t _unanswered(const DecideInput* ask, const Decision* d) noexcept nogil:
    cdef uint32_t wait_ms = (ask.request.plan.timeouts.response
                             + ask.request.plan.timeouts.connect)
    return session_cache_deadline(
        _fast_clock(ask), wait_ms // TICK_MS + decide_class(ask, d.reserve_class).reserve_ticks)


cdef bint _claim(const DecideInput* ask, Decision* d) noexcept nogil:
    cdef SessionMap existing
    if session_cache_claim(&ask.reservations[d.reserve_class], &d.reservation,
                           &decide_node(ask, d, d.node).address, _fast_clock(ask), 0,
                           _unanswered(ask, d), &existing) != CACHE_NEW:
        return False
    d.holds_reservation = True
    return True


cdef void _store(const DecideInput* ask, Decision* d, uint32_t deadline) noexcept nogil:
    session_cache_store(&ask.reservations[d.reserve_class], &d.reservation,
                        &decide_node(ask, d, d.node).address, _fast_clock(ask), deadline, NULL)


cdef void reserve_hold(const DecideInput* ask, Decision* d) noexcept nogil:
    if ask.peek or _claim(ask, d):
        return
    if reserve_take(ask, d):
        reserve_join(d)
    else:
        reserve_move(ask, d)


cdef void reserve_note(const DecideInput* ask, Decision* d) noexcept nogil:
    if not ask.peek:
        _claim(ask, d)


cdef void reserve_move(const DecideInput* ask, Decision* d) noexcept nogil:
    if ask.peek:
        return
    _store(ask, d, _unanswered(ask, d))
    d.holds_reservation = True


cdef void reserve_answered(const DecideInput* ask, Decision* d, bint answered) noexcept nogil:
    cdef int32_t node
    if not d.holds_reservation:
        return
    d.holds_reservation = False
    if answered:
        _store(ask, d, session_cache_deadline(
            _fast_clock(ask), decide_class(ask, d.reserve_class).reserve_ticks))
        return
    # Another request may hold one since this one's node took no more sessions.
    node = d.node if d.node >= 0 else d.tried[d.tried_count - 1]
    session_cache_delete(&ask.reservations[d.reserve_class], &d.reservation,
                         &decide_node(ask, d, node).address)
