# Persistence by a declared key, or one that a rule sets (`type = "universal"`).

from fastlb._core.persist cimport Finding, LearnInput, Learned, PersistInput
from fastlb._core.plan cimport PlanClass

cdef void persist_universal_find(const PersistInput* ask, const PlanClass* cls,
                                 Finding* found) noexcept nogil
cdef void persist_universal_learn(const LearnInput* response, const PlanClass* cls,
                                  Learned* learned) noexcept nogil
