# Without a ClientHello there is no session id. An HTTP request has none.

from fastlb._core.outcome cimport OUTCOME_NO_KEY
from fastlb._core.persist cimport Finding, PersistInput
from fastlb._core.plan cimport PlanClass


cdef void persist_ssl_find(const PersistInput* ask, const PlanClass* cls,
                           Finding* found) noexcept nogil:
    found.outcome = OUTCOME_NO_KEY
