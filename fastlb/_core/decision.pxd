# What a decision is made of and what it says: types only, shared by decide, reserve and the
# modules that carry it out.

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from fastlb._core.address cimport Address
from fastlb._core.limits cimport FALLBACK_DEPTH_MAX, TRIES_MAX
from fastlb._core.node cimport NodeTable
from fastlb._core.persist cimport PersistInput
from fastlb._core.plan cimport PlanPool
from fastlb._core.session_shard cimport SessionCache
from fastlb._core.siphash cimport Hash128

cdef enum:
    DECISION_KEYS_MAX = 24           # session keys of one request, over its chain of classes

cdef enum Action:
    ACTION_FORWARD = 0
    ACTION_REDIRECT                  # failure mode redirect
    ACTION_CLOSE                     # failure mode close
    ACTION_NO_NODE                   # nobody may take a new session

ctypedef struct DecideInput:
    PersistInput request
    const PlanPool* pool
    int32_t persistence              # PlanClass index, -1: none
    NodeTable* table
    SessionCache* caches             # one per PlanClass; unused where the class has none
    SessionCache* reservations       # one per PlanClass
    uint64_t* random                 # generator state, never 0
    uint64_t now_ms                  # CLOCK_BOOTTIME
    uint32_t now_ticks               # of the segment's epoch
    bint peek                        # look only: renew, record and claim nothing

ctypedef struct ClassKey:
    int32_t index                    # PlanClass index
    Hash128 key

ctypedef struct ClassCookie:         # a cookie class of the chain that was asked
    int32_t index                    # PlanClass index
    uint32_t first_seen_s            # to be kept when the cookie is written again; 0: now
    uint8_t seen                     # the request carried its cookie, valid or not
    uint8_t session_seen             # and the application's own, where the class goes by that one
    uint8_t write                    # the response gets it
    uint8_t expire                   # a 302 or 503 of our own expires it

ctypedef struct Decision:
    uint8_t action                   # Action
    uint8_t outcome                  # Outcome
    uint8_t found_in                 # FoundIn
    uint8_t established              # the node was a session's, not the algorithm's
    uint8_t has_previous             # `previous` is the session's node, which could not serve
    uint8_t duplicates               # a class's cookie stood in the request more than once
    uint8_t several_ids              # a class found more than one session id in the request
    uint8_t last_draining            # a new session went to a draining node: none other was left
    uint8_t has_reservation          # `reservation` is this client's fingerprint
    uint8_t holds_reservation        # and the choice behind it is this request's own
    uint8_t has_hash                 # `hash` places the session, whatever the pool's algorithm
    int32_t node                     # index in the pool, -1: none
    int32_t persistence              # PlanClass index that was asked first, -1: none
    int32_t found_class              # PlanClass index that found the session, -1: none
    int32_t reserve_class            # PlanClass index that holds the reservation, -1: none
    Address previous
    Hash128 reservation
    uint64_t hash
    uint32_t key_count
    uint32_t cookie_count
    uint32_t tried_count
    # not cleared: the counts say how much of each is in use
    ClassKey keys[DECISION_KEYS_MAX]
    ClassCookie cookies[FALLBACK_DEPTH_MAX]
    int32_t tried[TRIES_MAX]
