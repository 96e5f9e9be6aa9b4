# Parallel first requests (design.md): while a first request of a cookie class is unanswered,
# and for `reserve` after its answer, its node is held under a keyed hash of client address,
# Host and User-Agent, in shared memory. For COOKIE_MEMORY_TICKS more it is remembered that
# this client was given a cookie: one that comes without has lost it. All functions need
# `d.reserve_class >= 0`, and all but the first the fingerprint.

from fastlb._core.decision cimport DecideInput, Decision

# Notes the client's fingerprint in the decision.
cdef void reserve_fingerprint(const DecideInput* ask, Decision* d) noexcept nogil
# Whether this client was given a cookie, and longer ago than parallel requests are apart.
cdef bint reserve_remembers(const DecideInput* ask, const Decision* d) noexcept nogil
# Takes the node that the same client's first request was given, if there is one that serves.
cdef bint reserve_take(const DecideInput* ask, Decision* d) noexcept nogil
# Holds the decision's node; joins another request's choice where that came first.
cdef void reserve_hold(const DecideInput* ask, Decision* d) noexcept nogil
# The same for a node that is not up for choice: another request's reservation stays.
cdef void reserve_note(const DecideInput* ask, Decision* d) noexcept nogil
# The decision's node became another one.
cdef void reserve_move(const DecideInput* ask, Decision* d) noexcept nogil
# The decision goes by what reserve_take found.
cdef void reserve_join(Decision* d) noexcept nogil
# The request was answered (the reservation ends soon), or will never be (it ends now).
cdef void reserve_answered(const DecideInput* ask, Decision* d, bint answered) noexcept nogil
