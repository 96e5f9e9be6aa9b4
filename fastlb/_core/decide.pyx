# The decision procedure: classes, maps, nodes, states, failure modes (docs/persistence.md).

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memset

from fastlb._core.address cimport Address, address_equal
from fastlb._core.balance cimport (
    BalanceInput, balance_has_healthy, balance_owner, balance_pick, balance_waits,
)
from fastlb._core.debug cimport BUG_ON, likely
from fastlb._core.decide_maps cimport (
    maps_claim, maps_forget, maps_move, maps_note, maps_outcome, maps_record,
)
from fastlb._core.decision cimport (
    ACTION_CLOSE, ACTION_FORWARD, ACTION_NO_NODE, ACTION_REDIRECT, ACTION_WAIT, NODE_UNLISTED,
    ClassCookie, DecideInput, Decision,
)
from fastlb._core.health cimport health_may_try_early
from fastlb._core.key cimport key_of_value
from fastlb._core.limits cimport FALLBACK_DEPTH_MAX, TRIES_MAX
from fastlb._core.methods cimport method_find, method_learn
from fastlb._core.node cimport NODE_DISABLED, NODE_DOWN, NodeSlot
from fastlb._core.outcome cimport (
    FOUND_CACHE, FOUND_COOKIE, FOUND_HASH, FOUND_RULE, OUTCOME_CONNECT_FAILED,
    OUTCOME_COOKIE_LOST, OUTCOME_EXPIRED, OUTCOME_HASHED, OUTCOME_MOVED, OUTCOME_NEW,
    OUTCOME_NODE_DISABLED, OUTCOME_NODE_DOWN, OUTCOME_NODE_REMOVED, OUTCOME_NONE,
    OUTCOME_UNKNOWN_NODE,
)
from fastlb._core.persist cimport (
    FIND_HASH, FIND_KEY, FIND_NODE, Finding, LearnInput, Learned, learned_add_key,
    persist_find_t, persist_learn_t,
)
from fastlb._core.plan cimport (
    CLASS_COOKIE, CLASS_DELETE_ON_FAILURE, CLASS_EVERY_RESPONSE, CLASS_INSERTS_COOKIE,
    CLASS_KEYS_GRANTED, CLASS_LEARNS, CLASS_LISTED_ONLY, CLASS_NAMED, CLASS_REISSUE,
    CLASS_UNIVERSAL, FAILURE_CLOSE, FAILURE_NEW_NODE, PlanClass,
)
from fastlb._core.reserve cimport (
    reserve_answered, reserve_fingerprint, reserve_hold, reserve_join, reserve_move, reserve_note,
    reserve_remembers, reserve_take,
)
from fastlb._core.resolve cimport (
    decide_class, decide_node, decide_state, resolve, resolve_is_anywhere, resolve_named,
    serves_established,
)
from fastlb._core.session_cache cimport (
    CACHE_EXPIRED, CACHE_HIT, SessionMap, session_cache_claim, session_cache_lookup,
    session_cache_store,
)
from fastlb._core.siphash cimport Hash128, hash128_equal
from fastlb._core.slice cimport Slice

# --- what a decision keeps ----------------------------------------------------------------

cdef void _note_cookie(const DecideInput* ask, Decision* d, int32_t index,
                       const Finding* found) noexcept nogil:
    cdef const PlanClass* cls = decide_class(ask, index)
    cdef ClassCookie* cookie
    cdef uint32_t i
    d.duplicates |= found.duplicates
    if not cls.flags & CLASS_INSERTS_COOKIE:
        return
    for i in range(d.cookie_count):
        if d.cookies[i].index == index:
            return                   # noted before a faster worker's choice was joined
    BUG_ON(d.cookie_count >= FALLBACK_DEPTH_MAX)
    cookie = &d.cookies[d.cookie_count]
    d.cookie_count += 1
    cookie.index = index
    cookie.first_seen_s = found.first_seen_s
    cookie.seen = found.cookie_seen
    cookie.session_seen = found.session_seen
    cookie.write = False
    cookie.expire = False
    if d.reserve_class < 0 and cls.reserve_ticks:
        d.reserve_class = index


cdef void _write_cookies(Decision* d, bint write) noexcept nogil:
    cdef uint32_t i
    for i in range(d.cookie_count):
        d.cookies[i].write = write


# The address by which maps and cookies know the session's node.
cdef const Address* _session_address(const DecideInput* ask, const Decision* d) noexcept nogil:
    return &d.previous if d.keeps_previous else &decide_node(ask, d, d.node).address


cdef void decide_forget(const DecideInput* ask, Decision* d) noexcept nogil:
    if d.node >= 0:
        maps_forget(ask, d, _session_address(ask, d))


# The decision's node is the session's now, or was `failed` when that is given.
cdef void _settle(const DecideInput* ask, Decision* d, const Address* failed) noexcept nogil:
    cdef int32_t chosen = d.node
    if failed != NULL:
        maps_move(ask, d, failed)
    else:
        maps_claim(ask, d)
    if d.node != chosen and d.holds_reservation:
        reserve_move(ask, d)


cdef void decide_answered(const DecideInput* ask, Decision* d, bint answered) noexcept nogil:
    if d.holds_reservation:
        reserve_answered(ask, d, answered)


# --- choosing -----------------------------------------------------------------------------

cdef inline void _balance_input(const DecideInput* ask, const Decision* d,
                                BalanceInput* balance) noexcept nogil:
    cdef uint32_t i
    balance.plan = ask.request.plan
    balance.pool = ask.pool
    balance.table = ask.table
    balance.random = ask.random
    balance.now_ms = ask.now_ms
    balance.peek = ask.peek
    balance.limits = ask.limits
    balance.idle = ask.idle
    balance.in_turn = ask.in_turn
    balance.tried_count = d.tried_count
    for i in range(d.tried_count):
        balance.tried[i] = d.tried[i]
    balance.by_hash = d.has_hash
    balance.key = d.hash if d.has_hash else _source_key(ask)


cdef bint _pick(const DecideInput* ask, Decision* d) noexcept nogil:
    cdef BalanceInput balance
    cdef bint draining = False
    cdef uint64_t random = ask.random[0]
    _balance_input(ask, d, &balance)
    if ask.peek:
        balance.random = &random
    d.node = balance_pick(&balance, &draining)
    d.last_draining = draining
    if d.node < 0:
        d.action = ACTION_WAIT if balance_waits(&balance) else ACTION_NO_NODE
        return False
    d.action = ACTION_FORWARD
    return True


cdef uint64_t _source_key(const DecideInput* ask) noexcept nogil:
    # Not keyed with the secret: proxies with the same nodes agree without sharing anything.
    cdef const uint64_t* words = <const uint64_t*> ask.request.client.ip
    cdef uint64_t x = words[0] * <uint64_t> 0x9E3779B97F4A7C15ULL
    return (x ^ (x >> 32) ^ words[1]) * <uint64_t> 0xD6E8FEB86659FD93ULL


# Whether the class's first cookie was given to this client a moment ago, and did not come now.
cdef bint _lost_cookie(const DecideInput* ask, const Decision* d) noexcept nogil:
    cdef uint32_t i
    if d.outcome != OUTCOME_NEW:
        return False
    for i in range(d.cookie_count):
        if d.cookies[i].seen:
            return False
        if d.cookies[i].index == d.reserve_class and not d.cookies[i].session_seen \
                and decide_class(ask, d.reserve_class).type == CLASS_COOKIE:
            return False             # it is given with the application's only
    return reserve_remembers(ask, d)


cdef void _new_session(const DecideInput* ask, Decision* d) noexcept nogil:
    cdef const Address* failed = NULL
    if d.has_previous:
        failed = &d.previous
    d.established = False
    _write_cookies(d, True)
    if d.reserve_class >= 0 and ask.request.head != NULL:
        reserve_fingerprint(ask, d)
        if reserve_take(ask, d):
            d.action = ACTION_FORWARD
            if failed != NULL:
                maps_move(ask, d, failed)
            else:
                reserve_join(d)
                maps_record(ask, d, &decide_node(ask, d, d.node).address)
            return
        if _lost_cookie(ask, d):
            d.outcome = OUTCOME_COOKIE_LOST
    if not _pick(ask, d):
        return
    if d.has_reservation:
        reserve_hold(ask, d)
    _settle(ask, d, failed)


# The session's node cannot serve; `outcome` says why.
cdef void _fail(const DecideInput* ask, Decision* d, const Address* node,
                int outcome) noexcept nogil:
    cdef const PlanClass* cls = decide_class(ask, d.found_class)
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
        maps_forget(ask, d, node)
        for i in range(d.cookie_count):
            d.cookies[i].expire = d.cookies[i].seen


# --- the chain ----------------------------------------------------------------------------

cdef inline void _find(const DecideInput* ask, const PlanClass* cls,
                       Finding* found) noexcept nogil:
    cdef persist_find_t find = method_find(cls)
    memset(found, 0, <size_t> (<char*> &found.keys[0] - <char*> found))
    found.outcome = OUTCOME_NEW
    find(&ask.request, cls, found)


cdef bint _look_up(const DecideInput* ask, Decision* d, int32_t index, Finding* found,
                   Address* node) noexcept nogil:
    # The first key that has a map; those before it missed, and will learn its node, except where
    # only a node can grant keys.
    cdef SessionMap map
    cdef uint32_t i
    cdef int result
    cdef bint granted = decide_class(ask, index).flags & CLASS_KEYS_GRANTED != 0
    d.several_ids |= found.key_count > 1
    for i in range(found.key_count):
        if not granted:
            maps_note(d, index, &found.keys[i])
        result = session_cache_lookup(&ask.caches[index], &found.keys[i], ask.now_ticks,
                                      decide_class(ask, index).expiry_ticks, not ask.peek, &map)
        if result == CACHE_HIT:
            node[0] = map.address
            if granted:
                maps_note(d, index, &found.keys[i])
            return True
        if result == CACHE_EXPIRED:
            found.outcome = OUTCOME_EXPIRED
    return False


cdef bint _hash(const DecideInput* ask, Decision* d, uint64_t hash, Address* node) noexcept nogil:
    cdef BalanceInput balance
    cdef int32_t owner
    d.has_hash = True
    d.hash = hash
    _balance_input(ask, d, &balance)
    owner = balance_owner(&balance)
    if owner < 0:
        return False
    node[0] = decide_node(ask, d, owner).address
    d.found_in = FOUND_HASH
    return True


# One class of the chain; True when it knows the session's node.
cdef bint _ask_class(const DecideInput* ask, Decision* d, int32_t index, Finding* found,
                     Address* node) noexcept nogil:
    cdef const PlanClass* cls = decide_class(ask, index)
    _find(ask, cls, found)
    _note_cookie(ask, d, index, found)
    if found.kind == FIND_KEY:
        if not _look_up(ask, d, index, found, node):
            return False
        d.found_in = FOUND_CACHE
        return True
    if found.kind == FIND_HASH:
        return _hash(ask, d, found.hash, node)
    if found.kind != FIND_NODE:
        return False
    if cls.flags & CLASS_LISTED_ONLY and resolve(ask, &found.node) < 0:
        found.outcome = OUTCOME_UNKNOWN_NODE
        return False
    node[0] = found.node
    d.found_in = FOUND_RULE if cls.type == CLASS_NAMED else FOUND_COOKIE
    return True


# The keys of the classes behind the one that found the session. With `node`, their maps are
# kept alive too, so that they know the session on the day when the client loses its cookie; a
# map that names another node stays (many users may share one source address).
cdef void _keep_fallbacks(const DecideInput* ask, Decision* d, int32_t index,
                          const Address* node) noexcept nogil:
    cdef Finding found
    cdef SessionMap existing
    cdef Address other
    cdef const PlanClass* cls
    cdef uint32_t i
    while index >= 0:
        cls = decide_class(ask, index)
        _find(ask, cls, &found)
        d.several_ids |= found.key_count > 1
        if cls.flags & CLASS_KEYS_GRANTED:
            _look_up(ask, d, index, &found, &other)   # what was granted lives on, or will go
            index = cls.fallback
            continue
        for i in range(found.key_count):
            maps_note(d, index, &found.keys[i])
            if node != NULL and not ask.peek:
                session_cache_claim(&ask.caches[index], &found.keys[i], node, ask.now_ticks,
                                    cls.expiry_ticks, 0, &existing)
        index = cls.fallback


# The session fails: what its classes' cookies say, of those behind the finder too.
cdef void _note_cookies_behind(const DecideInput* ask, Decision* d) noexcept nogil:
    cdef Finding found
    cdef int32_t index = decide_class(ask, d.found_class).fallback
    while index >= 0:
        if decide_class(ask, index).flags & CLASS_INSERTS_COOKIE:
            _find(ask, decide_class(ask, index), &found)
            _note_cookie(ask, d, index, &found)
        index = decide_class(ask, index).fallback


# A hash knows no sessions: where it placed a new one, the cookies of the classes before it are
# what will remember that. A client that was given one and came without is no new one.
cdef bint _hash_begins(const DecideInput* ask, Decision* d) noexcept nogil:
    if d.reserve_class < 0 or ask.request.head == NULL:
        return True
    reserve_fingerprint(ask, d)
    if _lost_cookie(ask, d):
        d.outcome = OUTCOME_COOKIE_LOST
        return False
    reserve_note(ask, d)
    return True


# The cookies of the finder and of the classes before it, which missed.
cdef void _cookies_of_found(const DecideInput* ask, Decision* d, const Finding* found,
                            bint moved) noexcept nogil:
    cdef ClassCookie* cookie
    cdef bint begins = d.found_in == FOUND_HASH and d.cookie_count and _hash_begins(ask, d)
    cdef uint32_t flags, i
    if d.node == NODE_UNLISTED:
        return                       # nothing remembers it
    for i in range(d.cookie_count):
        cookie = &d.cookies[i]
        flags = decide_class(ask, cookie.index).flags
        if cookie.index == d.found_class:
            cookie.write = moved or found.rewrite or (flags & CLASS_EVERY_RESPONSE) != 0
        else:
            cookie.write = begins or (flags & CLASS_REISSUE) != 0


cdef void _serve(const DecideInput* ask, Decision* d, const Finding* found, const Address* node,
                 uint32_t state) noexcept nogil:
    # The session's node serves; which maps and cookies follow from that.
    cdef const Address* address
    cdef bint moved = not address_equal(&decide_node(ask, d, d.node).address, node)
    cdef bint rewritten = moved and not resolve_is_anywhere(ask, node)
    cdef int32_t behind = decide_class(ask, d.found_class).fallback
    cdef uint32_t own_keys = d.key_count
    d.established = True
    d.action = ACTION_FORWARD
    # Another pool's node on the same machine stays the session's: in that pool it is needed.
    d.keeps_previous = moved and not rewritten
    _cookies_of_found(ask, d, found, rewritten)
    if moved:
        d.outcome = OUTCOME_MOVED
        d.previous = node[0]
        d.has_previous = True
    elif d.found_in != FOUND_HASH:
        d.outcome = <unsigned char> maps_outcome(state)
    elif d.outcome != OUTCOME_COOKIE_LOST:
        d.outcome = OUTCOME_HASHED
    # Keys noted so far are those that missed, and the one that hit: all learn the node.
    address = _session_address(ask, d)
    if rewritten or own_keys > 1 or (own_keys == 1 and d.found_in != FOUND_CACHE):
        maps_record(ask, d, address)
    if d.node == NODE_UNLISTED:
        address = NULL
    _keep_fallbacks(ask, d, behind, address)


cdef int _failure_outcome(const DecideInput* ask, int32_t node) noexcept nogil:
    if node < 0:
        return OUTCOME_NODE_REMOVED
    if decide_state(ask, node) == NODE_DISABLED:
        return OUTCOME_NODE_DISABLED
    return OUTCOME_NODE_DOWN


# A session does not leave a node that is ejected only, where there is no better one; and one that
# would neither move nor end tries it now and then, so that it is back as soon as its node is.
cdef uint32_t _session_state(const DecideInput* ask, const Decision* d) noexcept nogil:
    cdef uint32_t state = decide_state(ask, d.node)
    cdef const PlanClass* cls = decide_class(ask, d.found_class)
    cdef const NodeSlot* slot
    cdef BalanceInput balance
    if likely(state != NODE_DOWN):
        return state
    slot = &ask.table.slots[decide_node(ask, d, d.node).slot]
    if slot.state == NODE_DOWN:
        return NODE_DOWN
    if cls.failure_mode != FAILURE_NEW_NODE and not cls.flags & CLASS_DELETE_ON_FAILURE \
            and health_may_try_early(ask.pool, slot, ask.now_ms):
        return slot.state
    _balance_input(ask, d, &balance)
    return NODE_DOWN if balance_has_healthy(&balance) else slot.state


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
    cdef uint32_t state = NODE_DOWN
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
        index = decide_class(ask, index).fallback
    if d.found_class < 0:
        _new_session(ask, d)
        return
    if d.found_in == FOUND_RULE:
        d.node = resolve_named(ask, d, &node)
    else:
        d.node = resolve(ask, &node)
    if d.node >= 0 and node.port == 0:
        node = decide_node(ask, d, d.node).address  # named by its address alone
    if d.node >= 0:
        state = _session_state(ask, d)
    if serves_established(state):
        _serve(ask, d, &found, &node, state)
    else:
        _keep_fallbacks(ask, d, decide_class(ask, d.found_class).fallback, NULL)
        _note_cookies_behind(ask, d)
        _fail(ask, d, &node, _failure_outcome(ask, d.node))


cdef void decide_again(const DecideInput* ask, Decision* d) noexcept nogil:
    cdef Address failed = _session_address(ask, d)[0]
    d.keeps_previous = False
    if d.tried_count < TRIES_MAX:
        d.tried[d.tried_count] = d.node
        d.tried_count += 1
    if d.established:
        _note_cookies_behind(ask, d)
        _fail(ask, d, &failed, OUTCOME_CONNECT_FAILED)
        d.established = False
        return
    d.moves = True
    _move_on(ask, d, &failed)


# No session's any more, and no new one: its maps, which name the node that failed, follow.
cdef void _move_on(const DecideInput* ask, Decision* d, const Address* failed) noexcept nogil:
    if not _pick(ask, d):
        return
    maps_move(ask, d, failed)
    if d.has_reservation:
        reserve_move(ask, d)


cdef void decide_waited(const DecideInput* ask, Decision* d) noexcept nogil:
    cdef Address failed
    cdef bint held = d.holds_reservation
    if d.node >= 0 and not d.established:
        if not serves_established(decide_state(ask, d.node)):
            decide_again(ask, d)
    elif d.tried_count == 0:
        decide(ask, d)               # its map may be another one now, or be there at all
        if held and d.has_reservation:
            d.holds_reservation = True
    elif d.moves:
        failed = decide_node(ask, d, d.tried[d.tried_count - 1]).address
        _move_on(ask, d, &failed)
    else:
        _new_session(ask, d)


# Its map is as old as the request, or newer: a late answer must not take a session back that
# has moved on meanwhile.
cdef bint _came_with_request(const Decision* d, int32_t index, const Hash128* key) noexcept nogil:
    cdef uint32_t i
    for i in range(d.key_count):
        if d.keys[i].index == index and hash128_equal(&d.keys[i].key, key):
            return True
    return False


cdef void _store_learned(const DecideInput* ask, const Decision* d, int32_t index,
                         const Learned* learned) noexcept nogil:
    cdef const Address* address = &decide_node(ask, d, d.node).address
    cdef SessionMap existing
    cdef uint32_t i
    for i in range(learned.key_count):
        if learned.shown >> i & 1 or _came_with_request(d, index, &learned.keys[i]):
            session_cache_claim(&ask.caches[index], &learned.keys[i], address, ask.now_ticks,
                                decide_class(ask, index).expiry_ticks, 0, &existing)
        else:
            session_cache_store(&ask.caches[index], &learned.keys[i], address, ask.now_ticks, 0,
                                NULL)


cdef void decide_learn(const DecideInput* ask, Decision* d,
                       const LearnInput* response) noexcept nogil:
    cdef Learned learned
    cdef const PlanClass* cls
    cdef persist_learn_t learn
    cdef int32_t index = d.persistence
    if ask.peek or d.node < 0 or d.node == NODE_UNLISTED:
        return
    while index >= 0:
        cls = decide_class(ask, index)
        # What is read out of messages is learned from messages.
        if cls.flags & CLASS_LEARNS and (
                response.head != NULL or cls.flags & CLASS_KEYS_GRANTED):
            learned.ended = False
            learned.key_count = 0
            learned.shown = 0
            learn = method_learn(cls)
            learn(response, cls, &learned)
            # Which of several ended is not known here; the others must live, and it will expire.
            if learned.ended and not d.several_ids:
                decide_forget(ask, d)
            d.taught |= learned.key_count != 0
            _store_learned(ask, d, index, &learned)
        index = cls.fallback


cdef void decide_learn_key(const DecideInput* ask, Decision* d, Slice key) noexcept nogil:
    cdef Learned learned
    cdef int32_t index = d.persistence
    if ask.peek or d.node < 0 or d.node == NODE_UNLISTED or key.bytes == 0:
        return
    learned.ended = False
    learned.key_count = 0
    learned.shown = 0
    learned_add_key(&learned, key_of_value(ask.request.plan, key))
    while index >= 0:
        if decide_class(ask, index).type == CLASS_UNIVERSAL:
            d.taught = True
            _store_learned(ask, d, index, &learned)
        index = decide_class(ask, index).fallback
