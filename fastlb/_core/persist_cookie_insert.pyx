# Node and port, each encoded on its own; with a passphrase, encrypted.

from libc.stdint cimport uint32_t

from fastlb._core.address cimport Address
from fastlb._core.outcome cimport OUTCOME_NO_KEY
from fastlb._core.persist cimport Finding, PersistInput
from fastlb._core.plan cimport Plan, PlanClass


cdef void persist_cookie_insert_find(const PersistInput* ask, const PlanClass* cls,
                                     Finding* found) noexcept nogil:
    found.outcome = OUTCOME_NO_KEY


cdef uint32_t persist_cookie_insert_write(const Plan* plan, const PlanClass* cls,
                                          const Address* node, uint32_t first_seen_s,
                                          uint32_t wall_s, char* out) noexcept nogil:
    return 0
