# The decision procedure of design.md ("A decision", "From a map to a node", "Node states").

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memset

from fastlb._core.address cimport Address, address_equal, address_same_ip
from fastlb._core.balance cimport BalanceInput, balance_pick
from fastlb._core.debug cimport BUG_ON
from fastlb._core.head cimport FIELD_HOST, FIELD_USER_AGENT, Head, head_value
from fastlb._core.limits cimport FALLBACK_DEPTH_MAX, TICK_MS, TRIES_MAX
from fastlb._core.node cimport NODE_DISABLED, NODE_DRAINING, NODE_UP
from fastlb._core.outcome cimport (
    FOUND_CACHE, FOUND_COOKIE, FOUND_RESERVATION, OUTCOME_CONNECT_FAILED, OUTCOME_DRAINING,
    OUTCOME_EXPIRED, OUTCOME_HIT, OUTCOME_MOVED, OUTCOME_NEW, OUTCOME_NODE_DISABLED,
    OUTCOME_NODE_DOWN, OUTCOME_NODE_REMOVED, OUTCOME_NONE, OUTCOME_RESERVED,
)
from fastlb._core.persist cimport FIND_KEY, FIND_NODE, Finding, persist_find_t
from fastlb._core.persist_ip cimport persist_ip_find
from fastlb._core.persist_transparent cimport persist_transparent_find
from fastlb._core.plan cimport (
    CLASS_DELETE_ON_FAILURE, CLASS_EVERY_RESPONSE, CLASS_REISSUE, CLASS_TRANSPARENT, CLASS_TYPES,
    FAILURE_CLOSE, FAILURE_NEW_NODE, KEY_RESERVATION, PlanClass, PlanNode, plan_class, plan_nodes,
)
from fastlb._core.session_cache cimport (
    CACHE_EXPIRED, CACHE_HIT, CACHE_NEW, SessionMap, session_cache_claim, session_cache_deadline,
    session_cache_delete, session_cache_lookup, session_cache_store,
)
from fastlb._core.siphash cimport (
    Hash128, SipState, sip_final128, sip_init128, sip_update, sip_update_u64,
)
from fastlb._core.slice cimport Slice

# One per ClassType, in its order.
cdef persist_find_t* FINDERS = [persist_ip_find, persist_transparent_find]

if CLASS_TYPES != 2:
    raise ImportError("fastlb._core.decide: a class type has no finder")


cdef inline const PlanClass* _class(const DecideInput* ask, int32_t index) noexcept nogil:
    return plan_class(ask.request.plan, <uint32_t> index)


cdef inline const PlanNode* _node(const DecideInput* ask, int32_t index) noexcept nogil:
    return plan_nodes(ask.request.plan, ask.pool) + index


cdef inline uint32_t _state(const DecideInput* ask, int32_t index) noexcept nogil:
    return ask.table.slots[_node(ask, index).slot].state


# --- from a map to a node -----------------------------------------------------------------

cdef int32_t _resolve(const DecideInput* ask, const Address* a) noexcept nogil:
    # The node with this address and port; else the only one with this address.
    cdef const PlanNode* nodes = plan_nodes(ask.request.plan, ask.pool)
    cdef int32_t i, same_ip = -1
    for i in range(<int32_t> ask.pool.node_count):
        if not address_same_ip(&nodes[i].address, a):
            continue
        if nodes[i].address.port == a.port:
            return i
        same_ip = i if same_ip == -1 else -2
    return same_ip if same_ip >= 0 else -1


cdef inline bint _serves_established(uint32_t state) noexcept nogil:
    return state == NODE_UP or state == NODE_DRAINING


cdef inline bint _was_tried(const Decision* d, int32_t node) noexcept nogil:
    cdef uint32_t i
    for i in range(d.tried_count):
        if d.tried[i] == node:
            return True
    return False


# --- session maps -------------------------------------------------------------------------

cdef void _note_key(Decision* d, int32_t index, const Hash128* key) noexcept nogil:
    BUG_ON(d.key_count >= FALLBACK_DEPTH_MAX)
    d.keys[d.key_count].index = index
    d.keys[d.key_count].key = key[0]
    d.key_count += 1


cdef inline bint _is_cookie_class(const PlanClass* cls) noexcept nogil:
    return cls.type == CLASS_TRANSPARENT


cdef void _note_cookie(const DecideInput* ask, Decision* d, int32_t index,
                       const Finding* found) noexcept nogil:
    cdef const PlanClass* cls = _class(ask, index)
    cdef ClassCookie* cookie
    if not _is_cookie_class(cls):
        return
    BUG_ON(d.cookie_count >= FALLBACK_DEPTH_MAX)
    cookie = &d.cookies[d.cookie_count]
    d.cookie_count += 1
    cookie.index = index
    cookie.first_seen_s = 0
    cookie.seen = found.cookie_seen
    cookie.write = False
    cookie.expire = False
    d.duplicates |= found.duplicates
    if d.reserve_class < 0 and cls.reserve_ticks:
        d.reserve_class = index


cdef void _write_cookies(Decision* d, bint write) noexcept nogil:
    cdef uint32_t i
    for i in range(d.cookie_count):
        d.cookies[i].write = write
        d.cookies[i].first_seen_s = 0


cdef void _record(const DecideInput* ask, Decision* d) noexcept nogil:
    # The decision's node becomes the session's in each class that has a key for it.
    cdef const Address* address = &_node(ask, d.node).address
    cdef SessionMap previous
    cdef uint32_t i
    if ask.peek:
        return
    for i in range(d.key_count):
        session_cache_store(&ask.caches[d.keys[i].index], &d.keys[i].key, address,
                            ask.now_ticks, 0, &previous)


# Only maps that name the session's node: behind one address there may be other users' sessions.
cdef void _forget(const DecideInput* ask, Decision* d, const Address* node) noexcept nogil:
    cdef uint32_t i
    if ask.peek:
        return
    for i in range(d.key_count):
        session_cache_delete(&ask.caches[d.keys[i].index], &d.keys[i].key, node)


cdef void decide_forget(const DecideInput* ask, Decision* d) noexcept nogil:
    if d.node >= 0:
        _forget(ask, d, &_node(ask, d.node).address)


# The session leaves a node that failed for the decision's: so do the maps that name it, and no
# others. When another worker moved the same session meanwhile, its choice counts.
cdef void _move(const DecideInput* ask, Decision* d, const Address* failed) noexcept nogil:
    cdef SessionMap existing
    cdef int32_t index, node
    cdef uint32_t i
    if ask.peek:
        return
    for i in range(d.key_count):
        index = d.keys[i].index
        session_cache_delete(&ask.caches[index], &d.keys[i].key, failed)
        if session_cache_claim(&ask.caches[index], &d.keys[i].key, &_node(ask, d.node).address,
                               ask.now_ticks, _class(ask, index).expiry_ticks, 0,
                               &existing) != CACHE_HIT or index != d.found_class:
            continue
        node = _resolve(ask, &existing.address)
        if node >= 0 and _serves_established(_state(ask, node)) and not _was_tried(d, node):
            d.node = node


# Claims the decision's node for the first key of the chain; when another worker was faster
# with the same new session, its choice counts.
cdef void _claim(const DecideInput* ask, Decision* d) noexcept nogil:
    cdef const PlanClass* cls
    cdef SessionMap existing
    cdef int32_t node
    if d.key_count == 0 or ask.peek:
        return
    cls = _class(ask, d.keys[0].index)
    if session_cache_claim(&ask.caches[d.keys[0].index], &d.keys[0].key,
                           &_node(ask, d.node).address, ask.now_ticks, cls.expiry_ticks, 0,
                           &existing) == CACHE_HIT:
        node = _resolve(ask, &existing.address)
        if node >= 0 and _serves_established(_state(ask, node)):
            d.node = node
            d.outcome = OUTCOME_HIT
            d.found_in = FOUND_CACHE
            d.found_class = d.keys[0].index
            d.established = True
    _record(ask, d)


# --- parallel first requests --------------------------------------------------------------

cdef void _fingerprint(const DecideInput* ask, Decision* d) noexcept nogil:
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


# A node that the same client's first request, still unanswered or just answered, was given.
cdef bint _reserved(const DecideInput* ask, Decision* d) noexcept nogil:
    cdef SessionMap held
    cdef int32_t node
    if session_cache_lookup(&ask.reservations[d.reserve_class], &d.reservation, ask.now_ticks, 0,
                            False, &held) != CACHE_HIT:
        return False
    node = _resolve(ask, &held.address)
    if node < 0 or _state(ask, node) != NODE_UP or _was_tried(d, node):
        return False
    d.node = node
    return True


cdef void _join_reservation(Decision* d) noexcept nogil:
    d.outcome = OUTCOME_RESERVED
    d.found_in = FOUND_RESERVATION
    d.established = False


cdef void _reserve(const DecideInput* ask, Decision* d) noexcept nogil:
    cdef const PlanClass* cls = _class(ask, d.reserve_class)
    cdef uint32_t wait_ms = (ask.request.plan.timeouts.response
                             + ask.request.plan.timeouts.connect)
    cdef uint32_t deadline = session_cache_deadline(
        ask.now_ticks, wait_ms // TICK_MS + cls.reserve_ticks)
    cdef SessionMap existing
    if ask.peek:
        return
    if session_cache_claim(&ask.reservations[d.reserve_class], &d.reservation,
                           &_node(ask, d.node).address, ask.now_ticks, 0, deadline,
                           &existing) == CACHE_NEW:
        d.holds_reservation = True
    elif _reserved(ask, d):
        _join_reservation(d)
    else:
        session_cache_store(&ask.reservations[d.reserve_class], &d.reservation,
                            &_node(ask, d.node).address, ask.now_ticks, deadline, &existing)
        d.holds_reservation = True


cdef void decide_answered(const DecideInput* ask, Decision* d, bint answered) noexcept nogil:
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
                             &_node(ask, node).address)
        return
    cls = _class(ask, d.reserve_class)
    session_cache_store(&ask.reservations[d.reserve_class], &d.reservation,
                        &_node(ask, d.node).address, ask.now_ticks,
                        session_cache_deadline(ask.now_ticks, cls.reserve_ticks), &previous)


# --- choosing -----------------------------------------------------------------------------

cdef bint _pick(const DecideInput* ask, Decision* d) noexcept nogil:
    cdef BalanceInput balance
    cdef bint draining = False
    cdef uint64_t random = ask.random[0]
    cdef uint32_t i
    balance.plan = ask.request.plan
    balance.pool = ask.pool
    balance.table = ask.table
    balance.random = &random if ask.peek else ask.random
    balance.now_ms = ask.now_ms
    balance.peek = ask.peek
    balance.tried_count = d.tried_count
    for i in range(d.tried_count):
        balance.tried[i] = d.tried[i]
    balance.key = _source_key(ask)
    d.node = balance_pick(&balance, &draining)
    d.last_draining = draining
    d.action = ACTION_FORWARD if d.node >= 0 else ACTION_NO_NODE
    return d.node >= 0


cdef uint64_t _source_key(const DecideInput* ask) noexcept nogil:
    # Not keyed with the secret: proxies with the same nodes agree without sharing anything.
    cdef const uint64_t* words = <const uint64_t*> ask.request.client.ip
    cdef uint64_t x = words[0] * <uint64_t> 0x9E3779B97F4A7C15ULL
    return (x ^ (x >> 32) ^ words[1]) * <uint64_t> 0xD6E8FEB86659FD93ULL


cdef void _new_session(const DecideInput* ask, Decision* d) noexcept nogil:
    d.established = False
    _write_cookies(d, True)
    if d.reserve_class >= 0 and ask.request.head != NULL:
        _fingerprint(ask, d)
        if _reserved(ask, d):
            d.action = ACTION_FORWARD
            if d.has_previous:
                _move(ask, d, &d.previous)
            else:
                _join_reservation(d)
                _record(ask, d)
            return
    if not _pick(ask, d):
        return
    if d.has_reservation:
        _reserve(ask, d)
    if d.has_previous:
        _move(ask, d, &d.previous)
    else:
        _claim(ask, d)


# The session's node cannot serve; `outcome` says why.
cdef void _fail(const DecideInput* ask, Decision* d, const Address* node,
                int outcome) noexcept nogil:
    cdef const PlanClass* cls = _class(ask, d.found_class)
    cdef uint32_t i
    d.outcome = <unsigned char> outcome
    d.previous = node[0]
    d.has_previous = True
    d.node = -1
    _write_cookies(d, False)
    if cls.failure_mode == FAILURE_NEW_NODE:
        _new_session(ask, d)
        return
    d.action = ACTION_CLOSE if cls.failure_mode == FAILURE_CLOSE else ACTION_REDIRECT
    if cls.flags & CLASS_DELETE_ON_FAILURE:
        _forget(ask, d, node)
        for i in range(d.cookie_count):
            d.cookies[i].expire = d.cookies[i].seen


# --- the chain ----------------------------------------------------------------------------

cdef bint _ask_class(const DecideInput* ask, Decision* d, int32_t index, Finding* found,
                     Address* node) noexcept nogil:
    # One class of the chain; True when it knows the session's node.
    cdef const PlanClass* cls = _class(ask, index)
    cdef SessionMap map
    cdef int result
    memset(found, 0, sizeof(Finding))
    found.outcome = OUTCOME_NEW
    FINDERS[cls.type](&ask.request, cls, found)
    _note_cookie(ask, d, index, found)
    if found.kind == FIND_NODE:
        node[0] = found.node
        d.found_in = FOUND_COOKIE
        return True
    if found.kind != FIND_KEY:
        return False
    _note_key(d, index, &found.key)
    result = session_cache_lookup(&ask.caches[index], &found.key, ask.now_ticks,
                                  cls.expiry_ticks, not ask.peek, &map)
    if result == CACHE_HIT:
        node[0] = map.address
        d.found_in = FOUND_CACHE
        return True
    if result == CACHE_EXPIRED:
        found.outcome = OUTCOME_EXPIRED
    return False


# The keys of the classes behind the one that found the session. With `node`, their maps are
# kept alive too, so that they know the session on the day when the client loses its cookie; a
# map that names another node stays (many users may share one source address).
cdef void _keep_fallbacks(const DecideInput* ask, Decision* d, int32_t index,
                          const Address* node) noexcept nogil:
    cdef Finding found
    cdef SessionMap existing
    cdef const PlanClass* cls
    while index >= 0:
        cls = _class(ask, index)
        memset(&found, 0, sizeof(Finding))
        FINDERS[cls.type](&ask.request, cls, &found)
        if node == NULL:
            _note_cookie(ask, d, index, &found)
        if found.kind == FIND_KEY:
            _note_key(d, index, &found.key)
            if node != NULL and not ask.peek:
                session_cache_claim(&ask.caches[index], &found.key, node, ask.now_ticks,
                                    cls.expiry_ticks, 0, &existing)
        index = cls.fallback


cdef void _serve(const DecideInput* ask, Decision* d, const Finding* found, const Address* node,
                 uint32_t state) noexcept nogil:
    # The session's node serves; which maps and cookies follow from that.
    cdef ClassCookie* cookie
    cdef uint32_t flags, i
    cdef bint moved = not address_equal(&_node(ask, d.node).address, node)
    cdef uint32_t own_keys = d.key_count
    d.established = True
    d.action = ACTION_FORWARD
    d.outcome = OUTCOME_DRAINING if state == NODE_DRAINING else OUTCOME_HIT
    if moved:
        d.outcome = OUTCOME_MOVED
        d.previous = node[0]
        d.has_previous = True
    # Keys noted so far are those that missed, and the one that hit: all learn the node.
    if moved or own_keys > 1 or (own_keys == 1 and d.found_in == FOUND_COOKIE):
        _record(ask, d)
    _keep_fallbacks(ask, d, _class(ask, d.found_class).fallback, &_node(ask, d.node).address)
    for i in range(d.cookie_count):
        cookie = &d.cookies[i]
        flags = _class(ask, cookie.index).flags
        if cookie.index == d.found_class:
            cookie.first_seen_s = found.first_seen_s
            cookie.write = moved or found.rewrite or (flags & CLASS_EVERY_RESPONSE) != 0
        else:
            # It missed, and a fallback knew the session (design.md "A decision").
            cookie.write = (flags & CLASS_REISSUE) != 0


cdef int _failure_outcome(const DecideInput* ask, int32_t node) noexcept nogil:
    if node < 0:
        return OUTCOME_NODE_REMOVED
    if _state(ask, node) == NODE_DISABLED:
        return OUTCOME_NODE_DISABLED
    return OUTCOME_NODE_DOWN


cdef void decision_reset(Decision* d) noexcept nogil:
    memset(d, 0, <size_t> (<char*> &d.keys[0] - <char*> d))
    d.node = -1
    d.persistence = -1
    d.found_class = -1
    d.reserve_class = -1


cdef void decide(const DecideInput* ask, Decision* d) noexcept nogil:
    cdef Finding found
    cdef Address node
    cdef int32_t index = ask.persistence
    decision_reset(d)
    d.persistence = index
    if index < 0:
        d.outcome = OUTCOME_NONE
        _pick(ask, d)
        return
    d.outcome = OUTCOME_NEW
    while index >= 0:
        if _ask_class(ask, d, index, &found, &node):
            d.found_class = index
            break
        if index == d.persistence:
            d.outcome = found.outcome
        index = _class(ask, index).fallback
    if d.found_class < 0:
        _new_session(ask, d)
        return
    d.node = _resolve(ask, &node)
    if d.node >= 0 and _serves_established(_state(ask, d.node)):
        _serve(ask, d, &found, &node, _state(ask, d.node))
    else:
        _keep_fallbacks(ask, d, _class(ask, d.found_class).fallback, NULL)
        _fail(ask, d, &node, _failure_outcome(ask, d.node))


cdef void decide_again(const DecideInput* ask, Decision* d) noexcept nogil:
    cdef Address failed = _node(ask, d.node).address
    cdef SessionMap previous
    if d.tried_count < TRIES_MAX:
        d.tried[d.tried_count] = d.node
        d.tried_count += 1
    if d.established:
        _fail(ask, d, &failed, OUTCOME_CONNECT_FAILED)
        d.established = False
        return
    if not _pick(ask, d):
        return
    if d.has_reservation:
        session_cache_store(&ask.reservations[d.reserve_class], &d.reservation,
                            &_node(ask, d.node).address, ask.now_ticks,
                            session_cache_deadline(
                                ask.now_ticks, _class(ask, d.reserve_class).reserve_ticks
                                + ask.request.plan.timeouts.response // TICK_MS), &previous)
        d.holds_reservation = True
    _move(ask, d, &failed)
