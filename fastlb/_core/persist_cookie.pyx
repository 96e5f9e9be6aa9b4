# The application's cookie says whether there is a session, `K-<name>-<8 hex>` beside it where.

from fastlb._core.outcome cimport OUTCOME_NO_KEY
from fastlb._core.persist cimport Finding, PersistInput
from fastlb._core.plan cimport PlanClass


cdef void persist_cookie_find(const PersistInput* ask, const PlanClass* cls,
                              Finding* found) noexcept nogil:
    found.outcome = OUTCOME_NO_KEY
