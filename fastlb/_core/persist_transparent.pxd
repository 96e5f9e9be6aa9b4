# Persistence by fastlb's own cookie `X-Mapping-<8 hex>` (`type = "transparent"`).

from fastlb._core.persist cimport Finding, PersistInput
from fastlb._core.plan cimport PlanClass

cdef void persist_transparent_find(const PersistInput* ask, const PlanClass* cls,
                                   Finding* found) noexcept nogil
