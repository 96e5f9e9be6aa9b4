# Declared keys: what `key`, `on` and `learn` of a persistence class name in a request or
# response ("header:X-User", "cookie:SID", "query:sid", "path:2", "host", "sni", "source").
#
# The hash of one part is that of its bytes alone, so that a value learned from a response is
# the same key as the value in a request; several parts are joined with their lengths in front.
# A missing or empty part makes no key. A key that a rule set goes before the declared one.

from libc.stdint cimport uint64_t

from fastlb._core.persist cimport Finding, LearnInput, Learned, PersistInput
from fastlb._core.plan cimport Plan, PlanClass
from fastlb._core.siphash cimport Hash128
from fastlb._core.slice cimport Slice

# The session key of a value: a keyed hash, as session caches keep it.
cdef Hash128 key_of_value(const Plan* plan, Slice value) noexcept nogil
# The class's key in a request; False when there is none. `found` is told of duplicates.
cdef bint key_read(const PersistInput* ask, const PlanClass* cls, Finding* found,
                   Hash128* key) noexcept nogil
# The same for consistent hashing: not keyed with the secret, so that all proxies agree.
cdef bint key_read_public(const PersistInput* ask, const PlanClass* cls, Finding* found,
                          uint64_t* key) noexcept nogil
# What the class's `learn` names in a response.
cdef void key_learn(const LearnInput* response, const PlanClass* cls,
                    Learned* learned) noexcept nogil
