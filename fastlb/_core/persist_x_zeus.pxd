# Persistence by the cookie X-Zeus-Backend (`type = "x-zeus"`).

from fastlb._core.persist cimport Finding, PersistInput
from fastlb._core.plan cimport PlanClass

cdef void persist_x_zeus_find(const PersistInput* ask, const PlanClass* cls,
                              Finding* found) noexcept nogil
