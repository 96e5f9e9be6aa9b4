# Persistence by the node that a rule names (`type = "named"`).

from fastlb._core.persist cimport Finding, PersistInput
from fastlb._core.plan cimport PlanClass

cdef void persist_named_find(const PersistInput* ask, const PlanClass* cls,
                             Finding* found) noexcept nogil
