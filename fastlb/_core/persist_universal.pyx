# The key is what `key` declares, or what a rule set; `learn` reads it from the response too.
#
# An unknown key makes a map on its request also where the class learns: an application that does
# not set its cookie again (after a restart, or for a client from before fastlb) would otherwise
# send its users round and round.

from fastlb._core.key cimport key_learn, key_read
from fastlb._core.outcome cimport OUTCOME_NO_KEY
from fastlb._core.persist cimport Finding, LearnInput, Learned, PersistInput, finding_add_key
from fastlb._core.plan cimport PlanClass
from fastlb._core.siphash cimport Hash128


cdef void persist_universal_find(const PersistInput* ask, const PlanClass* cls,
                                 Finding* found) noexcept nogil:
    cdef Hash128 key
    if key_read(ask, cls, found, &key):
        finding_add_key(found, key)
    else:
        found.outcome = OUTCOME_NO_KEY


cdef void persist_universal_learn(const LearnInput* response, const PlanClass* cls,
                                  Learned* learned) noexcept nogil:
    key_learn(response, cls, learned)
