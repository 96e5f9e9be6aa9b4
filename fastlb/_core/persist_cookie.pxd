# Persistence by the application's cookie (`type = "cookie"`).

from fastlb._core.persist cimport Finding, PersistInput
from fastlb._core.plan cimport PlanClass

cdef void persist_cookie_find(const PersistInput* ask, const PlanClass* cls,
                              Finding* found) noexcept nogil
