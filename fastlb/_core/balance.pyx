# The algorithms (`algorithm` of a pool in docs/configuration.md). Each takes the tier of nodes
# to choose among and returns an index in the pool or -1; a load is the number of requests in
# progress on the node over all workers.

from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t

from fastlb._core.debug cimport likely, unlikely
from fastlb._core.health cimport health_is_out, health_share, health_state
from fastlb._core.node cimport (
    NODE_DRAINING, NODE_UP, NodeSlot, fastlb_fetch_add, node_is_awaited, node_load,
    node_open,
)
from fastlb._core.plan cimport (
    ALGORITHMS, BALANCE_HASH, NODE_IS_BACKUP, POOL_DRAIN_LAST_REFUSE, POOL_LIMITED, PlanNode,
    plan_nodes,
)
from fastlb._core.rendezvous cimport rendezvous_beats, rendezvous_log, rendezvous_mix

cdef enum Tier:
    TIER_PRIMARY = 0
    TIER_BACKUP
    TIER_DRAINING
    TIER_EJECTED                     # usable but for what requests showed of them
    TIERS

cdef enum:
    RESPONSE_HALF_LIFE_MS = 10000    # without news an estimate is halved: slow nodes get tried

ctypedef int32_t (*balance_t)(BalanceInput*, uint32_t) noexcept nogil


# No room for a new session: not even an idle connection, or what room there is, is for sessions.
cdef bint _is_full(const BalanceInput* ask, const PlanNode* node, uint32_t limit) noexcept nogil:
    cdef const NodeSlot* slot = &ask.table.slots[node.slot]
    if (ask.idle == NULL or ask.idle[node.slot] == 0) and node_open(
            slot, ask.plan.columns) >= limit:
        return True
    return node_is_awaited(slot.waiting, ask.plan.columns, ask.now_ms, ask.pool.queue_timeout)


# Whether the node is of the tier, whichever that is.
cdef bint _is_in(const BalanceInput* ask, const PlanNode* node, const NodeSlot* slot,
                 uint32_t tier) noexcept nogil:
    if health_is_out(ask.pool, slot, ask.now_ms) != (tier == TIER_EJECTED):
        return False
    if tier == TIER_EJECTED:
        return balance_may_serve(ask.pool, node, slot)
    if tier == TIER_DRAINING:
        return slot.state == NODE_DRAINING
    return (slot.state == NODE_UP and node.weight != 0
            and (node.flags & NODE_IS_BACKUP != 0) == (tier == TIER_BACKUP))


cdef inline bint _usable(const BalanceInput* ask, const PlanNode* node, int32_t index,
                         uint32_t tier) noexcept nogil:
    cdef const NodeSlot* slot = &ask.table.slots[node.slot]
    cdef uint32_t limit
    # One that is up and not ejected, in the first tier: nearly every node of nearly every pick.
    if likely(tier == TIER_PRIMARY and slot.state == NODE_UP and slot.ejected_until_ms == 0):
        if node.weight == 0 or node.flags & NODE_IS_BACKUP:
            return False
    elif not _is_in(ask, node, slot, tier):
        return False
    limit = balance_limit(ask.limits, node)
    if unlikely(limit != 0) and _is_full(ask, node, limit):
        return False
    return not balance_was_tried(ask.tried, ask.tried_count, index) and (
        likely(ask.draw == 0) or health_share(ask.pool, slot, ask.now_ms) >= ask.draw)


# The pool's next turn; one that only looks sees the turn `ahead` and leaves all as they are.
cdef inline uint64_t _turn(BalanceInput* ask, uint32_t ahead) noexcept nogil:
    if ask.peek:
        return ask.table.pools[ask.pool.slot].turn + ahead
    return fastlb_fetch_add(&ask.table.pools[ask.pool.slot].turn, 1)


cdef inline uint32_t _random(BalanceInput* ask, uint32_t below) noexcept nogil:
    # xorshift64 (Marsaglia 2003) and a multiply in place of a division (Lemire 2019).
    cdef uint64_t x = ask.random[0]
    x ^= x << 13
    x ^= x >> 7
    x ^= x << 17
    ask.random[0] = x
    return <uint32_t> (((x >> 32) * below) >> 32)


# The entry of the weighted schedule at `position`; each node stands in it as often as its
# weight (reduced by their common divisor), spread evenly.
cdef inline int32_t _scheduled(const BalanceInput* ask, uint64_t position) noexcept nogil:
    cdef const uint16_t* schedule = <const uint16_t*> (<const char*> ask.plan + ask.pool.schedule)
    return schedule[position % ask.pool.schedule_count]


# The last usable one when there are fewer: others write states and loads meanwhile.
cdef int32_t _nth_usable(const BalanceInput* ask, uint32_t tier, uint32_t nth) noexcept nogil:
    cdef const PlanNode* nodes = plan_nodes(ask.plan, ask.pool)
    cdef int32_t i, last = -1
    for i in range(<int32_t> ask.pool.node_count):
        if _usable(ask, &nodes[i], i, tier):
            last = i
            if nth == 0:
                return i
            nth -= 1
    return last


cdef uint32_t _count_usable(const BalanceInput* ask, uint32_t tier) noexcept nogil:
    cdef const PlanNode* nodes = plan_nodes(ask.plan, ask.pool)
    cdef int32_t i
    cdef uint32_t count = 0
    for i in range(<int32_t> ask.pool.node_count):
        count += _usable(ask, &nodes[i], i, tier)
    return count


cdef int32_t _round_robin(BalanceInput* ask, uint32_t tier) noexcept nogil:
    cdef uint32_t count = _count_usable(ask, tier)
    if count == 0:
        return -1
    return _nth_usable(ask, tier, <uint32_t> (_turn(ask, 0) % count))


cdef int32_t _weighted_round_robin(BalanceInput* ask, uint32_t tier) noexcept nogil:
    # The turns of nodes that are not usable are used up, not given to their neighbours: so the
    # others keep their shares. Nobody left: no turn is taken from the next tier.
    cdef const PlanNode* nodes = plan_nodes(ask.plan, ask.pool)
    cdef uint32_t i
    cdef int32_t at, first
    if tier == TIER_DRAINING or ask.pool.schedule_count == 0:
        return _round_robin(ask, tier)
    first = _nth_usable(ask, tier, 0)
    if first < 0:
        return -1
    for i in range(ask.pool.schedule_count):
        at = _scheduled(ask, _turn(ask, i))
        if _usable(ask, &nodes[at], at, tier):
            return at
    return first


cdef inline uint32_t _weight(const PlanNode* node) noexcept nogil:
    return node.weight if node.weight else 1


cdef int32_t _least_connections(BalanceInput* ask, uint32_t tier) noexcept nogil:
    # Equal loads fall to weighted round robin: the scheduled node is asked first.
    cdef const PlanNode* nodes = plan_nodes(ask.plan, ask.pool)
    cdef int32_t best = _weighted_round_robin(ask, tier)
    cdef int32_t i
    cdef uint64_t load, best_load
    if best < 0:
        return -1
    best_load = node_load(&ask.table.slots[nodes[best].slot], ask.plan.columns)
    for i in range(<int32_t> ask.pool.node_count):
        if best_load == 0:
            break
        if i == best or not _usable(ask, &nodes[i], i, tier):
            continue
        load = node_load(&ask.table.slots[nodes[i].slot], ask.plan.columns)
        if load * _weight(&nodes[best]) < best_load * _weight(&nodes[i]):
            best = i
            best_load = load
    return best


# A usable node, each as likely as its weight says; -1: none.
cdef int32_t _draw(BalanceInput* ask, uint32_t tier) noexcept nogil:
    cdef const PlanNode* nodes = plan_nodes(ask.plan, ask.pool)
    cdef uint32_t total = 0, at
    cdef int32_t i, last = -1
    for i in range(<int32_t> ask.pool.node_count):
        if _usable(ask, &nodes[i], i, tier):
            total += _weight(&nodes[i])
    at = _random(ask, total)
    for i in range(<int32_t> ask.pool.node_count):
        if _usable(ask, &nodes[i], i, tier):
            last = i
            if at < _weight(&nodes[i]):
                break
            at -= _weight(&nodes[i])
    return last


cdef int32_t _random_of_two(BalanceInput* ask, uint32_t tier) noexcept nogil:
    # Mitzenmacher 2001: the less loaded of two random nodes. The first one is drawn by weight
    # and wins a draw, so that idle nodes get their shares too.
    cdef const PlanNode* nodes = plan_nodes(ask.plan, ask.pool)
    cdef uint32_t count = _count_usable(ask, tier)
    cdef uint32_t other
    cdef uint64_t load_a, load_b
    cdef int32_t b, a = _draw(ask, tier)
    if a < 0 or count < 2:
        return a
    other = _random(ask, count - 1)
    b = _nth_usable(ask, tier, other)
    if b >= a:
        b = _nth_usable(ask, tier, other + 1)
    if b < 0:
        return a
    load_a = node_load(&ask.table.slots[nodes[a].slot], ask.plan.columns)
    load_b = node_load(&ask.table.slots[nodes[b].slot], ask.plan.columns)
    return b if load_b * _weight(&nodes[a]) < load_a * _weight(&nodes[b]) else a


cdef uint64_t _response_us(const BalanceInput* ask, const PlanNode* node) noexcept nogil:
    # The average, halved for each half-life without news; 0: none yet.
    cdef const NodeSlot* slot = &ask.table.slots[node.slot]
    cdef uint64_t halves = 0
    if ask.now_ms > slot.response_at_ms:
        halves = (ask.now_ms - slot.response_at_ms) // RESPONSE_HALF_LIFE_MS
    if slot.response_us == 0:
        return 0
    return (slot.response_us >> (halves if halves < 63 else 63)) + 1


cdef int32_t _fastest_response(BalanceInput* ask, uint32_t tier) noexcept nogil:
    # Expected wait: average time to the first byte times the requests that wait already.
    cdef const PlanNode* nodes = plan_nodes(ask.plan, ask.pool)
    cdef const NodeSlot* slot
    cdef int32_t best = _weighted_round_robin(ask, tier)
    cdef int32_t i, first = best
    cdef uint64_t score, best_score = 0, fastest = 0
    for i in range(<int32_t> ask.pool.node_count):
        score = _response_us(ask, &nodes[i])
        if score and _usable(ask, &nodes[i], i, tier) and (fastest == 0 or score < fastest):
            fastest = score
    for i in range(<int32_t> ask.pool.node_count):
        if best < 0 or not _usable(ask, &nodes[i], i, tier):
            continue
        slot = &ask.table.slots[nodes[i].slot]
        # A node that has never answered counts as fast as the fastest, so that it gets its
        # share and no more: one that never answers must not swallow everything.
        score = _response_us(ask, &nodes[i])
        if score == 0:
            score = fastest
        score = (score + 1) * (node_load(slot, ask.plan.columns) + 1) * 256 // _weight(&nodes[i])
        if best_score == 0 or score < best_score or (score == best_score and i == first):
            best = i
            best_score = score
    return best


# The best of the nodes that have drawn for a key.
ctypedef struct Best:
    int32_t index                    # -1: none has
    uint32_t weight
    uint64_t hash                    # the greater, the smaller the draw
    uint64_t draw


# Whether the node beats the best so far, and if so what it would be the best with. Of two nodes
# the one with the smaller hash has no smaller draw: unless it is heavier, no logarithm is needed.
cdef inline bint _beats(const BalanceInput* ask, const PlanNode* node, const Best* best,
                        Best* own) noexcept nogil:
    own.weight = _weight(node)
    own.hash = rendezvous_mix(ask.key, node.hash_seed)
    if best.index >= 0 and own.hash <= best.hash and own.weight <= best.weight:
        return False
    own.draw = rendezvous_log(own.hash)
    return best.index < 0 or rendezvous_beats(own.draw, own.weight, best.draw, best.weight)


# The node's state is looked up last: it is in a cache line of its own, and few nodes get so far.
cdef int32_t _hash(BalanceInput* ask, uint32_t tier) noexcept nogil:
    cdef const PlanNode* nodes = plan_nodes(ask.plan, ask.pool)
    cdef Best best, own
    cdef int32_t i
    best.index = -1
    for i in range(<int32_t> ask.pool.node_count):
        if _beats(ask, &nodes[i], &best, &own) and _usable(ask, &nodes[i], i, tier):
            own.index = i
            best = own
    return best.index


cdef inline bint _owns(const BalanceInput* ask, const PlanNode* node, uint32_t tier) noexcept nogil:
    return (node.weight != 0 and (node.flags & NODE_IS_BACKUP != 0) == (tier == TIER_BACKUP)
            and ask.table.slots[node.slot].state != NODE_DRAINING)


cdef int32_t balance_owner(const BalanceInput* ask) noexcept nogil:
    cdef const PlanNode* nodes = plan_nodes(ask.plan, ask.pool)
    cdef Best best, own
    cdef int32_t i
    cdef uint32_t tier
    best.index = -1
    for tier in range(<uint32_t> TIER_DRAINING):
        for i in range(<int32_t> ask.pool.node_count):
            if _beats(ask, &nodes[i], &best, &own) and _owns(ask, &nodes[i], tier):
                own.index = i
                best = own
        if best.index >= 0:
            break
    return best.index


cdef balance_t* BALANCERS = [
    _round_robin, _weighted_round_robin, _least_connections, _random_of_two, _fastest_response,
    _hash,
]


cdef bint _some_only_full(const BalanceInput* ask) noexcept nogil:
    # A node that is well but at its max_connections: the draining ones are not the last, and no
    # ejected one is needed.
    cdef const PlanNode* nodes = plan_nodes(ask.plan, ask.pool)
    cdef int32_t i
    for i in range(<int32_t> ask.pool.node_count):
        if nodes[i].weight != 0 and health_state(
                ask.pool, &ask.table.slots[nodes[i].slot], ask.now_ms) == NODE_UP \
                and not balance_was_tried(ask.tried, ask.tried_count, i):
            return True
    return False


# New sessions wait, in whatever worker: this one comes behind them.
cdef inline bint _comes_too_early(const BalanceInput* ask) noexcept nogil:
    return not ask.in_turn and node_is_awaited(
        ask.table.pools[ask.pool.slot].waiting, ask.plan.columns, ask.now_ms,
        ask.pool.queue_timeout)


cdef bint balance_waits(const BalanceInput* ask) noexcept nogil:
    cdef const PlanNode* nodes = plan_nodes(ask.plan, ask.pool)
    cdef int32_t i
    for i in range(<int32_t> ask.pool.node_count):
        if balance_limit(ask.limits, &nodes[i]) != 0 \
                and not balance_was_tried(ask.tried, ask.tried_count, i) \
                and balance_may_serve(ask.pool, &nodes[i], &ask.table.slots[nodes[i].slot]):
            return True
    return False


cdef bint balance_has_healthy(BalanceInput* ask) noexcept nogil:
    cdef uint32_t tier
    ask.draw = 0
    for tier in range(<uint32_t> TIER_EJECTED):
        if tier == TIER_DRAINING and ask.pool.flags & POOL_DRAIN_LAST_REFUSE:
            break
        if _count_usable(ask, tier):
            return True
    return False


# Among the nodes of a tier; returning ones sit out as often as their share is short of a whole,
# unless that leaves nobody.
cdef int32_t _pick_in(BalanceInput* ask, uint32_t algorithm, uint32_t tier) noexcept nogil:
    cdef int32_t node
    ask.draw = 0
    if unlikely(ask.pool.slow_start != 0) and algorithm != BALANCE_HASH:
        ask.draw = 1 + _random(ask, 100)
        node = BALANCERS[algorithm](ask, tier)
        if node >= 0:
            return node
        ask.draw = 0
    return BALANCERS[algorithm](ask, tier)


cdef int32_t balance_pick(BalanceInput* ask, bint* draining) noexcept nogil:
    cdef uint32_t algorithm = BALANCE_HASH if ask.by_hash else ask.pool.algorithm
    cdef const PlanNode* nodes = plan_nodes(ask.plan, ask.pool)
    cdef uint32_t tier
    cdef int32_t node
    draining[0] = False
    if unlikely(ask.pool.flags & POOL_LIMITED != 0) and _comes_too_early(ask):
        return -1
    for tier in range(TIERS):
        if tier == TIER_DRAINING:
            if _some_only_full(ask):
                break
            if ask.pool.flags & POOL_DRAIN_LAST_REFUSE:
                continue
        node = _pick_in(ask, algorithm, tier)
        if node >= 0:
            draining[0] = ask.table.slots[nodes[node].slot].state == NODE_DRAINING
            return node
    return -1


if ALGORITHMS != 6:
    raise ImportError("fastlb._core.balance: an algorithm has no function")
