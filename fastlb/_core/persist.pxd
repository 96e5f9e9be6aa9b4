# What a persistence method is: small functions with fixed signatures, one module each.
#
#   find   reads the session out of a request: nothing, keys, a node, or a hash
#   write  makes the value of the cookie that fastlb inserts (cookie classes)
#   learn  reads keys out of a response (classes with CLASS_LEARNS)
#
# A method reads messages only. Maps, nodes' states, fallbacks and failure modes are
# decide.pyx's; methods.pyx has the tables; cookies in responses are set_cookie.pyx's.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastlb._core.address cimport Address
from fastlb._core.head cimport Head
from fastlb._core.plan cimport Plan, PlanClass, PlanPool
from fastlb._core.siphash cimport Hash128
from fastlb._core.slice cimport Slice
from fastlb._core.tls_hello cimport TlsClientHello, TlsServerFlight

cdef enum:
    FINDING_KEYS_MAX = 8             # session ids that one class takes from one message
    COOKIE_VALUE_BYTES_MAX = 128     # of a cookie that fastlb inserts

cdef enum FindingKind:
    FIND_NOTHING = 0
    FIND_KEY                         # `keys`: the first one with a map is the session's
    FIND_NODE                        # `node`
    FIND_HASH                        # `hash` places the session

ctypedef struct PersistInput:
    const Plan* plan
    const PlanPool* pool             # whose nodes CLASS_LISTED_ONLY means; NULL: not known
    const Address* client            # whose request it is: peer, PROXY header or X-Forwarded-For
    const Address* local             # where the client connected to; NULL: not known
    const Head* head                 # NULL where the protocol has none
    const char* buf                  # what the head's offsets count in
    Slice sni                        # server name of the ClientHello; empty: none
    const TlsClientHello* hello      # NULL where there is none
    Slice key                        # what a rule set as key; `at` NULL: nothing
    const Address* named             # the node that a rule named, port 0: any; NULL: none
    uint32_t virtual_server          # its index in the plan
    uint32_t wall_s                  # seconds since 1970

ctypedef struct Finding:
    uint8_t kind                     # FindingKind
    uint8_t outcome                  # Outcome, why there is nothing (FIND_NOTHING)
    uint8_t duplicates               # the class's cookie stood there more than once
    uint8_t cookie_seen              # the class's cookie stood there, valid or not
    uint8_t session_seen             # so did the application's own (CLASS_COOKIE)
    uint8_t rewrite                  # valid, but to be written again: dates, or another name
    uint8_t key_count
    uint32_t first_seen_s            # dates of the cookie; 0: none
    uint32_t last_seen_s
    uint64_t hash
    Address node
    # not cleared: `key_count` says how many there are
    Hash128 keys[FINDING_KEYS_MAX]

ctypedef void (*persist_find_t)(const PersistInput* ask, const PlanClass* cls,
                                Finding* found) noexcept nogil

# Writes the cookie's value for `node`, returns its length; 0: there can't be one now.
# `first_seen_s` 0: the session begins now.
ctypedef uint32_t (*persist_write_t)(const Plan* plan, const PlanClass* cls, const Address* node,
                                     uint32_t first_seen_s, uint32_t wall_s,
                                     char* out) noexcept nogil

ctypedef struct LearnInput:
    const Plan* plan
    const Head* head                 # of the response; NULL where the protocol has none
    const char* buf
    Slice path                       # of the request, without its query; empty: not known
    uint32_t wall_s
    const TlsServerFlight* flight    # the node's handshake, gone through; NULL: none
    Hash128 session_id               # with `flight`: that of the ClientHello, hashed
    uint8_t offers_ticket            # with `flight`: the ClientHello had one, not an empty one

ctypedef struct Learned:
    uint8_t ended                    # the application deleted the session id of this path
    uint8_t key_count
    uint8_t shown                    # bit n: keys[n] need not be new, see learned_show_key
    Hash128 keys[FINDING_KEYS_MAX]   # not cleared

ctypedef void (*persist_learn_t)(const LearnInput* response, const PlanClass* cls,
                                 Learned* learned) noexcept nogil


cdef inline void finding_add_key(Finding* found, Hash128 key) noexcept nogil:
    if found.key_count < FINDING_KEYS_MAX:
        found.keys[found.key_count] = key
        found.key_count += 1
        found.kind = FIND_KEY


cdef inline void learned_add_key(Learned* learned, Hash128 key) noexcept nogil:
    if learned.key_count < FINDING_KEYS_MAX:
        learned.keys[learned.key_count] = key
        learned.key_count += 1


# A key that a Location showed: it may be one that came with the request, in a link that another
# user sent, and then its map is that user's and stays where it is.
cdef inline void learned_show_key(Learned* learned, Hash128 key) noexcept nogil:
    if learned.key_count < FINDING_KEYS_MAX:
        learned.shown |= <uint8_t> (1 << learned.key_count)
        learned_add_key(learned, key)
