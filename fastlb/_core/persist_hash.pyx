# The hash of what `on` declares places the session.

from fastlb._core.outcome cimport OUTCOME_NO_KEY
from fastlb._core.persist cimport Finding, PersistInput
from fastlb._core.plan cimport PlanClass


cdef void persist_hash_find(const PersistInput* ask, const PlanClass* cls,
                            Finding* found) noexcept nogil:
    found.outcome = OUTCOME_NO_KEY
