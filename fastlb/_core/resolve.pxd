# From what a map, a cookie or a rule names to a node (docs/persistence.md "From a name to a node").

from libc.stdint cimport int32_t, uint32_t

from fastlb._core.address cimport Address
from fastlb._core.debug cimport unlikely
from fastlb._core.decision cimport NODE_UNLISTED, DecideInput, Decision
from fastlb._core.health cimport health_state
from fastlb._core.node cimport NODE_DRAINING, NODE_UP
from fastlb._core.persist cimport Finding, PersistInput
from fastlb._core.plan cimport Plan, PlanClass, PlanNode, PlanPool, plan_class, plan_nodes


cdef inline const PlanClass* decide_class(const DecideInput* ask, int32_t index) noexcept nogil:
    return plan_class(ask.request.plan, <uint32_t> index)


cdef inline const PlanNode* decide_node(const DecideInput* ask, const Decision* d,
                                        int32_t index) noexcept nogil:
    if unlikely(index == NODE_UNLISTED):
        return &d.unlisted
    return plan_nodes(ask.request.plan, ask.pool) + index


# An ejected node counts as down. One that no pool lists has no state of its own: it is up until it
# can't be connected to.
cdef inline uint32_t decide_state(const DecideInput* ask, int32_t index) noexcept nogil:
    if unlikely(index == NODE_UNLISTED):
        return NODE_UP
    return health_state(
        ask.pool, &ask.table.slots[(plan_nodes(ask.request.plan, ask.pool) + index).slot],
        ask.now_ms)


cdef inline bint serves_established(uint32_t state) noexcept nogil:
    return state == NODE_UP or state == NODE_DRAINING


# The pool's node with this address and port; else its only one with this address; else -1.
cdef int32_t resolve_listed(const Plan* plan, const PlanPool* pool,
                            const Address* a) noexcept nogil
# The same for what a rule named, port 0: any. NODE_UNLISTED where the pool allows it; then the
# node is in the decision. Fills in the port of a node that was named without.
cdef int32_t resolve_named(const DecideInput* ask, Decision* d, Address* a) noexcept nogil
# Whether the class may name `found.node`: a value that anybody could have written
# (CLASS_LISTED_ONLY) is obeyed for nodes of the pool only. If not, `found` says why; a later
# cookie of the name gets its chance.
cdef bint resolve_may_name(const PersistInput* ask, const PlanClass* cls,
                           Finding* found) noexcept nogil
# Whether any pool has this very node: a class may be shared by pools on the same machines.
cdef bint resolve_is_anywhere(const DecideInput* ask, const Address* a) noexcept nogil
# Whether this request tried the node before.
cdef bint resolve_was_tried(const Decision* d, int32_t node) noexcept nogil


cdef inline int32_t resolve(const DecideInput* ask, const Address* a) noexcept nogil:
    return resolve_listed(ask.request.plan, ask.pool, a)
