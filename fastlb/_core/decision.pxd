# What a decision is made of and what it says, shared by decide, reserve and the modules that
# carry it out.

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from fastlb._core.address cimport Address, address_text
from fastlb._core.debug cimport unlikely
from fastlb._core.limits cimport FALLBACK_DEPTH_MAX, TRIES_MAX
from fastlb._core.node cimport NodeTable
from fastlb._core.persist cimport FINDING_KEYS_MAX, PersistInput
from fastlb._core.plan cimport Plan, PlanNode, PlanPool, plan_nodes, plan_text
from fastlb._core.session_shard cimport SessionCache
from fastlb._core.siphash cimport Hash128
from fastlb._core.slice cimport Slice, slice_of

cdef enum:
    DECISION_KEYS_MAX = FINDING_KEYS_MAX * FALLBACK_DEPTH_MAX
    NODE_UNLISTED = 0x7FFFFFFF       # index of the node that a rule named and the pool lacks

cdef enum Action:
    ACTION_FORWARD = 0
    ACTION_REDIRECT                  # failure mode redirect
    ACTION_CLOSE                     # failure mode close
    ACTION_NO_NODE                   # nobody may take a new session
    ACTION_WAIT                      # those who may take it are full

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
    const uint32_t* limits           # max_connections by slot; NULL: as the plan says
    const uint32_t* idle             # own idle connections by slot; NULL: none
    bint in_turn                     # it goes before all who wait for a new session's node

ctypedef struct ClassKey:
    int32_t index                    # PlanClass index
    Hash128 key

ctypedef struct ClassCookie:         # a cookie class of the chain that was asked
    int32_t index                    # PlanClass index
    uint32_t first_seen_s            # of a valid cookie, kept when it is written again; 0: now
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
    uint8_t taught                   # the answer granted an id, or was given a cookie of ours
    uint8_t keeps_previous           # the session's maps and cookie go on naming `previous`
    uint8_t has_reservation          # `reservation` is this client's fingerprint
    uint8_t holds_reservation        # and the choice behind it is this request's own
    uint8_t moves                    # a retry: its maps name the last node tried, until it has one
    uint8_t has_hash                 # `hash` places the session, whatever the pool's algorithm
    int32_t node                     # index in the pool, or NODE_UNLISTED; -1: none
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
    PlanNode unlisted                # with NODE_UNLISTED; its name is decision_node_name's


# The decision's node, which is not -1.
cdef inline const PlanNode* decision_node(const Plan* plan, const PlanPool* pool,
                                          const Decision* d) noexcept nogil:
    if unlikely(d.node == NODE_UNLISTED):
        return &d.unlisted
    return plan_nodes(plan, pool) + d.node


# Its name, "10.0.0.1:8080"; `room` has ADDRESS_TEXT_BYTES_MAX bytes and may be used for it.
cdef inline Slice decision_node_name(const Plan* plan, const PlanPool* pool, const Decision* d,
                                     char* room) noexcept nogil:
    cdef const PlanNode* node = decision_node(plan, pool, d)
    if unlikely(d.node == NODE_UNLISTED):
        return slice_of(room, address_text(&node.address, room))
    return slice_of(plan_text(plan, node.name), node.name.bytes)
