# The session maps behind a decision: recorded, claimed, moved and forgotten, for all keys that
# the decision has noted. None of these writes anything for a peek.

from libc.stdint cimport int32_t, uint32_t

from fastlb._core.address cimport Address
from fastlb._core.decision cimport DecideInput, Decision
from fastlb._core.siphash cimport Hash128

# One more key of this session, in the class `index`.
cdef void maps_note(Decision* d, int32_t index, const Hash128* key) noexcept nogil
# The decision's node becomes the session's in each class that has a key for it.
cdef void maps_record(const DecideInput* ask, const Decision* d) noexcept nogil
# Claims the decision's node for the first key of the chain, and records it for the others; when
# another worker was faster with the same new session, its choice counts.
cdef void maps_claim(const DecideInput* ask, Decision* d) noexcept nogil
# The session leaves a node that failed for the decision's: so do the maps that name it, and no
# others. When another worker moved the same session meanwhile, its choice counts.
cdef void maps_move(const DecideInput* ask, Decision* d, const Address* failed) noexcept nogil
# Only maps that name `node`: behind one address there may be other users' sessions.
cdef void maps_forget(const DecideInput* ask, const Decision* d,
                      const Address* node) noexcept nogil
# The Outcome of a session whose node serves, by the node's state.
cdef int maps_outcome(uint32_t state) noexcept nogil
