# What the worker knows of an exchange, as rules see it.

from libc.stdint cimport uint32_t

from fastlb._core.connection cimport Exchange, Worker
from fastlb._core.plan cimport plan_virtual_server
from fastlb._core.rule_call cimport RuleCall

# Fills call.facts; its slices point to memory of the worker, which stays as it is while the call
# runs in the worker's thread. `call.kind` is set.
cdef void rule_facts(Worker* w, Exchange* x, RuleCall* call) noexcept nogil


# Index of the exchange's virtual server in its plan.
cdef inline uint32_t rule_server(const Exchange* x) noexcept nogil:
    return <uint32_t> (x.server - plan_virtual_server(x.snapshot.plan, 0))
