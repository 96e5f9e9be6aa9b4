# Persistence by source address (`type = "ip"`).

from fastlb._core.persist cimport Finding, PersistInput
from fastlb._core.plan cimport PlanClass

cdef void persist_ip_find(const PersistInput* ask, const PlanClass* cls,
                          Finding* found) noexcept nogil
