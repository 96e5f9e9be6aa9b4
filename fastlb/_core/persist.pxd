# What a persistence method is: one function that reads the session out of a request.
#
# A method answers with nothing, with a key (the session cache of the class knows the
# node), or with a node (the client's cookie names it). It reads the request only; maps,
# nodes' states, fallbacks and failure modes are decide.pyx's, cookies in the response
# are set_cookie.pyx's. A new method is one module with one persist_find_t.

from libc.stdint cimport uint8_t, uint32_t

from fastlb._core.address cimport Address
from fastlb._core.head cimport Head
from fastlb._core.plan cimport Plan, PlanClass
from fastlb._core.siphash cimport Hash128

cdef enum FindingKind:
    FIND_NOTHING = 0
    FIND_KEY                         # `key` is set
    FIND_NODE                        # `node` is set

ctypedef struct PersistInput:
    const Plan* plan
    const Address* client            # whose request it is: peer, PROXY header or X-Forwarded-For
    const Head* head                 # NULL where the protocol has none
    const char* buf                  # what the head's offsets count in
    uint32_t wall_s                  # seconds since 1970

ctypedef struct Finding:
    uint8_t kind                     # FindingKind
    uint8_t outcome                  # Outcome, why there is nothing (FIND_NOTHING)
    uint8_t duplicates               # the class's cookie stood there more than once
    uint8_t cookie_seen              # the class's cookie stood there, valid or not
    uint8_t rewrite                  # valid, but its dates are to be added, renewed or removed
    uint32_t first_seen_s            # dates of the cookie; 0: none
    uint32_t last_seen_s
    Hash128 key
    Address node

ctypedef void (*persist_find_t)(const PersistInput* ask, const PlanClass* cls,
                                Finding* found) noexcept nogil
