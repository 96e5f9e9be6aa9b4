# The key is what `key` declares, or what a rule set; `learn` reads it from the response too.

from fastlb._core.outcome cimport OUTCOME_NO_KEY
from fastlb._core.persist cimport Finding, LearnInput, Learned, PersistInput
from fastlb._core.plan cimport PlanClass


cdef void persist_universal_find(const PersistInput* ask, const PlanClass* cls,
                                 Finding* found) noexcept nogil:
    found.outcome = OUTCOME_NO_KEY


cdef void persist_universal_learn(const LearnInput* response, const PlanClass* cls,
                                  Learned* learned) noexcept nogil:
    pass
