# Who holds a reservation is the request that made it: its answer shortens it, its failure
# ends it. Looking only (peek) neither makes nor moves one.

from libc.stdint cimport int32_t, uint32_t, uint64_t

from fastlb._core.decision cimport DecideInput, Decision
from fastlb._core.head cimport FIELD_HOST, FIELD_USER_AGENT, Head, head_value
from fastlb._core.limits cimport TICK_MS
from fastlb._core.node cimport NODE_UP
from fastlb._core.outcome cimport FOUND_RESERVATION, OUTCOME_RESERVED
from fastlb._core.plan cimport KEY_RESERVATION, PlanClass
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


cdef bint reserve_take(const DecideInput* ask, Decision* d) noexcept nogil:
    cdef SessionMap held
    cdef int32_t node
    if session_cache_lookup(&ask.reservations[d.reserve_class], &d.reservation, ask.now_ticks, 0,
                            False, &held) != CACHE_HIT:
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


cdef void reserve_hold(const DecideInput* ask, Decision* d) noexcept nogil:
    cdef const PlanClass* cls = decide_class(ask, d.reserve_class)
    cdef uint32_t wait_ms = (ask.request.plan.timeouts.response
                             + ask.request.plan.timeouts.connect)
    cdef uint32_t deadline = session_cache_deadline(
        ask.now_ticks, wait_ms // TICK_MS + cls.reserve_ticks)
    cdef SessionMap existing
    if ask.peek:
        return
    if session_cache_claim(&ask.reservations[d.reserve_class], &d.reservation,
                           &decide_node(ask, d.node).address, ask.now_ticks, 0, deadline,
                           &existing) == CACHE_NEW:
        d.holds_reservation = True
    elif reserve_take(ask, d):
        reserve_join(d)
    else:
        session_cache_store(&ask.reservations[d.reserve_class], &d.reservation,
                            &decide_node(ask, d.node).address, ask.now_ticks, deadline, &existing)
        d.holds_reservation = True


cdef void reserve_answered(const DecideInput* ask, Decision* d, bint answered) noexcept nogil:
    cdef const PlanClass* cls
    cdef SessionMap previous
    cdef int32_t node
    if not d.holds_reservation:
        return
    d.holds_reservation = False
    if not answered:
        # Another request may hold one since this one's node took no more sessions.
        node = d.node if d.node >= 0 else d.tried[d.tried_count - 1]
        session_cache_delete(&ask.reservations[d.reserve_class], &d.reservation,
                             &decide_node(ask, node).address)
        return
    cls = decide_class(ask, d.reserve_class)
    session_cache_store(&ask.reservations[d.reserve_class], &d.reservation,
                        &decide_node(ask, d.node).address, ask.now_ticks,
                        session_cache_deadline(ask.now_ticks, cls.reserve_ticks), &previous)


cdef void reserve_move(const DecideInput* ask, Decision* d) noexcept nogil:
    cdef uint32_t wait_ms = ask.request.plan.timeouts.response
    cdef uint32_t deadline = session_cache_deadline(
        ask.now_ticks, decide_class(ask, d.reserve_class).reserve_ticks + wait_ms // TICK_MS)
    cdef SessionMap previous
    if ask.peek:
        return
    session_cache_store(&ask.reservations[d.reserve_class], &d.reservation,
                        &decide_node(ask, d.node).address, ask.now_ticks, deadline, &previous)
    d.holds_reservation = True
