# Placement by a consistent hash (`type = "hash"`).

from fastlb._core.persist cimport Finding, PersistInput
from fastlb._core.plan cimport PlanClass

cdef void persist_hash_find(const PersistInput* ask, const PlanClass* cls,
                            Finding* found) noexcept nogil
