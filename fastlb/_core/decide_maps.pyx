# Two requests of one session may be decided at the same time, by any worker: what is claimed
# holds for both. A node that no pool lists is never recorded, since no map could lead there.

from libc.stdint cimport int32_t, uint32_t

from fastlb._core.address cimport Address
from fastlb._core.debug cimport BUG_ON
from fastlb._core.decision cimport DECISION_KEYS_MAX, NODE_UNLISTED, DecideInput, Decision
from fastlb._core.node cimport NODE_DRAINING
from fastlb._core.outcome cimport FOUND_CACHE, OUTCOME_DRAINING, OUTCOME_HIT
from fastlb._core.plan cimport CLASS_KEYS_GRANTED, CLASS_NAMED, CLASS_X_ZEUS, PlanClass
from fastlb._core.resolve cimport (
    decide_class, decide_node, decide_state, resolve, resolve_was_tried, serves_established,
)
from fastlb._core.session_cache cimport (
    CACHE_HIT, SessionMap, session_cache_claim, session_cache_delete, session_cache_store,
)
from fastlb._core.siphash cimport Hash128


cdef void maps_note(Decision* d, int32_t index, const Hash128* key) noexcept nogil:
    BUG_ON(d.key_count >= DECISION_KEYS_MAX)
    d.keys[d.key_count].index = index
    d.keys[d.key_count].key = key[0]
    d.key_count += 1


cdef void maps_record(const DecideInput* ask, const Decision* d,
                      const Address* address) noexcept nogil:
    cdef uint32_t i
    if ask.peek or d.node == NODE_UNLISTED:
        return
    for i in range(d.key_count):
        session_cache_store(&ask.caches[d.keys[i].index], &d.keys[i].key, address,
                            ask.now_ticks, 0, NULL)


cdef void maps_forget(const DecideInput* ask, const Decision* d,
                      const Address* node) noexcept nogil:
    cdef uint32_t i
    if ask.peek:
        return
    for i in range(d.key_count):
        session_cache_delete(&ask.caches[d.keys[i].index], &d.keys[i].key, node)


# Whether another worker's choice for this key counts for the session: the key's class found it,
# or is asked first, or the one that found it remembers nothing.
cdef bint _decisive(const DecideInput* ask, const Decision* d, uint32_t i) noexcept nogil:
    cdef uint32_t found_by
    if d.found_class < 0:
        return i == 0
    found_by = decide_class(ask, d.found_class).type
    return d.keys[i].index == d.found_class or found_by == CLASS_NAMED or found_by == CLASS_X_ZEUS


cdef void _move_key(const DecideInput* ask, Decision* d, const Address* failed, uint32_t i,
                    bint decisive) noexcept nogil:
    cdef int32_t index = d.keys[i].index
    cdef SessionMap existing
    cdef int32_t node
    session_cache_delete(&ask.caches[index], &d.keys[i].key, failed)
    if decide_class(ask, index).flags & CLASS_KEYS_GRANTED:
        return                       # the new node will grant one of its own
    if session_cache_claim(&ask.caches[index], &d.keys[i].key,
                           &decide_node(ask, d, d.node).address, ask.now_ticks,
                           decide_class(ask, index).expiry_ticks, 0, &existing) != CACHE_HIT:
        return
    node = resolve(ask, &existing.address)
    if decisive and node >= 0 and not resolve_was_tried(d, node) \
            and serves_established(decide_state(ask, node)):
        d.node = node


# The maps that tell of another worker's choice come first.
cdef void maps_move(const DecideInput* ask, Decision* d, const Address* failed) noexcept nogil:
    cdef uint32_t i
    if ask.peek:
        return
    for i in range(d.key_count):
        if _decisive(ask, d, i):
            _move_key(ask, d, failed, i, True)
    for i in range(d.key_count):
        if not _decisive(ask, d, i):
            _move_key(ask, d, failed, i, False)


cdef int maps_outcome(uint32_t state) noexcept nogil:
    return OUTCOME_DRAINING if state == NODE_DRAINING else OUTCOME_HIT


cdef void maps_claim(const DecideInput* ask, Decision* d) noexcept nogil:
    cdef const PlanClass* cls
    cdef SessionMap existing
    cdef int32_t node
    if d.key_count == 0 or ask.peek:
        return
    cls = decide_class(ask, d.keys[0].index)
    if session_cache_claim(&ask.caches[d.keys[0].index], &d.keys[0].key,
                           &decide_node(ask, d, d.node).address, ask.now_ticks, cls.expiry_ticks,
                           0, &existing) == CACHE_HIT:
        node = resolve(ask, &existing.address)
        if node >= 0 and serves_established(decide_state(ask, node)):
            d.node = node
            d.outcome = <unsigned char> maps_outcome(decide_state(ask, node))
            d.found_in = FOUND_CACHE
            d.found_class = d.keys[0].index
            d.established = True
    maps_record(ask, d, &decide_node(ask, d, d.node).address)
