# Persistence by the session ids of ASP and ASP.NET (`type = "asp"`).

from fastlb._core.persist cimport Finding, LearnInput, Learned, PersistInput
from fastlb._core.plan cimport PlanClass

cdef void persist_asp_find(const PersistInput* ask, const PlanClass* cls,
                           Finding* found) noexcept nogil
cdef void persist_asp_learn(const LearnInput* response, const PlanClass* cls,
                            Learned* learned) noexcept nogil
