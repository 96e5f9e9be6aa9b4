# Nothing is remembered: the rule names the node anew for each request.

from fastlb._core.outcome cimport OUTCOME_NO_KEY
from fastlb._core.persist cimport FIND_NODE, Finding, PersistInput
from fastlb._core.plan cimport PlanClass


cdef void persist_named_find(const PersistInput* ask, const PlanClass* cls,
                             Finding* found) noexcept nogil:
    if ask.named == NULL:
        found.outcome = OUTCOME_NO_KEY
        return
    found.kind = FIND_NODE
    found.node = ask.named[0]
