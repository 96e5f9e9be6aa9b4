# The hash of what `on` declares, or of the key that a rule set, places the session; which node
# that is, is balance.pyx's affair.

from fastlb._core.key cimport key_read_public
from fastlb._core.outcome cimport OUTCOME_NO_KEY
from fastlb._core.persist cimport FIND_HASH, Finding, PersistInput
from fastlb._core.plan cimport PlanClass


cdef void persist_hash_find(const PersistInput* ask, const PlanClass* cls,
                            Finding* found) noexcept nogil:
    if key_read_public(ask, cls, found, &found.hash):
        found.kind = FIND_HASH
    else:
        found.outcome = OUTCOME_NO_KEY
