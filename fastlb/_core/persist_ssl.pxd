# Persistence by TLS session id or ticket (`type = "ssl"`).

from fastlb._core.persist cimport Finding, LearnInput, Learned, PersistInput
from fastlb._core.plan cimport PlanClass

cdef void persist_ssl_find(const PersistInput* ask, const PlanClass* cls,
                           Finding* found) noexcept nogil
cdef void persist_ssl_learn(const LearnInput* response, const PlanClass* cls,
                            Learned* learned) noexcept nogil
