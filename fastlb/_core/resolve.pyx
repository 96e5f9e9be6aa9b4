# Order and number of nodes do not matter, addresses alone do. A large pool has an index by
# address, a small one is walked over.

from libc.stdint cimport int32_t, uint32_t
from libc.string cimport memset

from fastlb._core.address cimport Address, address_equal, address_same_ip
from fastlb._core.balance cimport balance_was_tried
from fastlb._core.decision cimport NODE_UNLISTED, DecideInput, Decision
from fastlb._core.limits cimport NODE_SLOT_UNLISTED
from fastlb._core.outcome cimport OUTCOME_UNKNOWN_NODE
from fastlb._core.persist cimport Finding, PersistInput
from fastlb._core.plan cimport (
    CLASS_LISTED_ONLY, INDEX_KIND_BITS, INDEX_KIND_MASK, INDEX_NODE, INDEX_ONLY, Plan, PlanClass,
    PlanNode, PlanPool, plan_index_hash, plan_network_has, plan_nodes,
)


cdef int32_t _by_index(const Plan* plan, const PlanPool* pool, const Address* a) noexcept nogil:
    cdef const PlanNode* nodes = plan_nodes(plan, pool)
    cdef const uint32_t* entries = <const uint32_t*> (<const char*> plan + pool.index)
    cdef uint32_t at = plan_index_hash(a, a.port) & pool.index_mask
    cdef uint32_t node, kind
    while entries[at]:
        node = entries[at] >> INDEX_KIND_BITS
        kind = entries[at] & INDEX_KIND_MASK
        if kind == INDEX_NODE and address_equal(&nodes[node].address, a):
            return <int32_t> node
        at = (at + 1) & pool.index_mask
    at = plan_index_hash(a, 0) & pool.index_mask
    while entries[at]:
        node = entries[at] >> INDEX_KIND_BITS
        kind = entries[at] & INDEX_KIND_MASK
        if kind != INDEX_NODE and address_same_ip(&nodes[node].address, a):
            return <int32_t> node if kind == INDEX_ONLY else -1
        at = (at + 1) & pool.index_mask
    return -1


cdef int32_t resolve_listed(const Plan* plan, const PlanPool* pool,
                            const Address* a) noexcept nogil:
    cdef const PlanNode* nodes = plan_nodes(plan, pool)
    cdef int32_t i, same_ip = -1
    if pool.index_mask:
        return _by_index(plan, pool, a)
    for i in range(<int32_t> pool.node_count):
        if not address_same_ip(&nodes[i].address, a):
            continue
        if nodes[i].address.port == a.port:
            return i
        same_ip = i if same_ip == -1 else -2
    return same_ip if same_ip >= 0 else -1


cdef int32_t resolve_named(const DecideInput* ask, Decision* d, Address* a) noexcept nogil:
    cdef int32_t node = resolve(ask, a)
    if a.port == 0:
        if node >= 0:
            a.port = decide_node(ask, d, node).address.port
        return node
    if node >= 0 and address_equal(&decide_node(ask, d, node).address, a):
        return node
    # Before the only node of that address: the rule knows which port it means.
    if not plan_network_has(ask.request.plan, ask.pool.named, ask.pool.named_count, a):
        return node
    memset(&d.unlisted, 0, sizeof(d.unlisted))
    d.unlisted.address = a[0]
    d.unlisted.slot = NODE_SLOT_UNLISTED
    d.unlisted.weight = 1
    return NODE_UNLISTED


cdef bint resolve_may_name(const PersistInput* ask, const PlanClass* cls,
                           Finding* found) noexcept nogil:
    if not cls.flags & CLASS_LISTED_ONLY or ask.pool == NULL \
            or resolve_listed(ask.plan, ask.pool, &found.node) >= 0:
        return True
    found.outcome = OUTCOME_UNKNOWN_NODE
    found.first_seen_s = 0
    found.last_seen_s = 0
    return False


cdef bint resolve_is_anywhere(const DecideInput* ask, const Address* a) noexcept nogil:
    cdef const Plan* plan = ask.request.plan
    cdef const PlanNode* nodes = <const PlanNode*> (<const char*> plan + plan.nodes)
    cdef uint32_t i
    for i in range(plan.node_count):
        if address_equal(&nodes[i].address, a):
            return True
    return False


cdef bint resolve_was_tried(const Decision* d, int32_t node) noexcept nogil:
    return balance_was_tried(d.tried, d.tried_count, node)
