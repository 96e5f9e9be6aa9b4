# Persistence by the session id of a servlet container (`type = "j2ee"`).

from fastlb._core.persist cimport Finding, LearnInput, Learned, PersistInput
from fastlb._core.plan cimport PlanClass

cdef void persist_j2ee_find(const PersistInput* ask, const PlanClass* cls,
                            Finding* found) noexcept nogil
cdef void persist_j2ee_learn(const LearnInput* response, const PlanClass* cls,
                             Learned* learned) noexcept nogil
