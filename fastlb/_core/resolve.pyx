# One walk over the pool's nodes: order and number of nodes do not matter, addresses alone do.

from libc.stdint cimport int32_t, uint32_t

from fastlb._core.address cimport Address, address_same_ip
from fastlb._core.decision cimport DecideInput, Decision
from fastlb._core.plan cimport PlanNode, plan_nodes


cdef int32_t resolve(const DecideInput* ask, const Address* a) noexcept nogil:
    cdef const PlanNode* nodes = plan_nodes(ask.request.plan, ask.pool)
    cdef int32_t i, same_ip = -1
    for i in range(<int32_t> ask.pool.node_count):
        if not address_same_ip(&nodes[i].address, a):
            continue
        if nodes[i].address.port == a.port:
            return i
        same_ip = i if same_ip == -1 else -2
    return same_ip if same_ip >= 0 else -1


cdef bint resolve_was_tried(const Decision* d, int32_t node) noexcept nogil:
    cdef uint32_t i
    for i in range(d.tried_count):
        if d.tried[i] == node:
            return True
    return False
