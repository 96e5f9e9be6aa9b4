# From what a map or a cookie names to a node of the pool (design.md "From a map to a node").

from libc.stdint cimport int32_t, uint32_t

from fastlb._core.address cimport Address
from fastlb._core.decision cimport DecideInput, Decision
from fastlb._core.node cimport NODE_DRAINING, NODE_UP
from fastlb._core.plan cimport PlanClass, PlanNode, plan_class, plan_nodes


cdef inline const PlanClass* decide_class(const DecideInput* ask, int32_t index) noexcept nogil:
    return plan_class(ask.request.plan, <uint32_t> index)


cdef inline const PlanNode* decide_node(const DecideInput* ask, int32_t index) noexcept nogil:
    return plan_nodes(ask.request.plan, ask.pool) + index


cdef inline uint32_t decide_state(const DecideInput* ask, int32_t index) noexcept nogil:
    return ask.table.slots[decide_node(ask, index).slot].state


cdef inline bint serves_established(uint32_t state) noexcept nogil:
    return state == NODE_UP or state == NODE_DRAINING


# The node with this address and port; else the only one with this address; else -1.
cdef int32_t resolve(const DecideInput* ask, const Address* a) noexcept nogil
# Whether this request tried the node before.
cdef bint resolve_was_tried(const Decision* d, int32_t node) noexcept nogil
