# What rules see and what they ask for, as plain structs between the data plane and Python.
#
#   RuleTable  the loaded rules of one plan: which run where, in which order
#   RuleCall   one call into Python: rules of one kind in a row that run in one thread (plain
#              functions in the worker's own, async ones in that of the rules' event loop)
#   RuleState  what rules have asked for so far, kept by a connection or an exchange
#
# Ownership: the worker's thread makes a call, hands it over, gets it back and carries it out;
# between `rule_queue_put` and the event that says it is done, the other thread alone may write
# to it, but for `exchange` and `snapshot`, which are the worker's at all times. Python objects
# that are made for a call let go of it before the call is given back.
#
# Texts that rules make stand in the call's arena, as offsets: it may move when it grows.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastlb._core.address cimport Address
from fastlb._core.arena cimport Arena, Span
from fastlb._core.message cimport Head
from fastlb._core.plan cimport Plan, PlanVirtualServer
from fastlb._core.slice cimport Slice

cdef enum RuleKind:
    RULE_CONNECTION = 0
    RULE_REQUEST
    RULE_RESPONSE
    RULE_KINDS

ctypedef struct RuleStep:            # one rule of one virtual server
    void* function                   # Python function; the table holds the reference
    uint32_t rule                    # PlanRule index
    uint32_t slot                    # in WorkerStats.rules
    uint8_t is_async

ctypedef struct RuleList:
    const RuleStep* steps
    uint32_t count

ctypedef struct RuleTable:           # of a Snapshot; NULL there: no virtual server has rules
    RuleList* lists                  # [virtual server's index in the plan * RULE_KINDS + kind]
    RuleStep* steps                  # owner of all of them
    uint32_t step_count
    uint8_t has_async                # so the thread of the event loop is needed
    uint8_t has_plain                # so the watchdog is
    void* modules                    # Python object that keeps what was loaded

cdef enum RuleAction:
    RULE_GOES_ON = 0
    RULE_ANSWERS                     # effects.reply
    RULE_CLOSES
    RULE_FAILS                       # a rule failed, and on_error is "500"

cdef enum RuleSets:                  # bits of RuleEffects.sets and RuleState.sets
    RULE_SETS_POOL = 1
    RULE_SETS_PERSISTENCE = 2
    RULE_SETS_KEY = 4
    RULE_SETS_NODE = 8
    RULE_SETS_CLIENT = 16
    RULE_SETS_HEAD = 32              # effects.head takes the place of the message's
    RULE_SETS_LOG = 64
    RULE_SETS_PROTO = 128            # every X-Forwarded-Proto is a rule's word, not the client's
    RULE_SETS_FORWARDED_HOST = 256   # every X-Forwarded-Host
    RULE_SETS_FORWARDED = 512        # every Forwarded

# What a message is, besides its head. Slices point to memory of the worker while the call runs
# in its thread; rule_call_own copies them into the arena before the call leaves it.
ctypedef struct RuleFacts:
    const Plan* plan
    const PlanVirtualServer* server
    int32_t pool                     # PlanPool index, as routes and earlier rules chose
    int32_t persistence              # PlanClass index that will be asked; -1: none
    Address client                   # whose request it is; all zero with port 0: a Unix socket
    Address peer                     # who is connected to us
    Address local                    # where it connected to; all zero: a Unix socket
    Slice key                        # as earlier rules set it; `at` NULL: not set
    Address named                    # likewise, with RULE_SETS_NODE in `sets`
    uint32_t sets                    # RuleSets bits of earlier calls
    # the request; `head` NULL: connection rules of tcp and tls have none
    Slice request                    # bytes of its head
    const Head* request_head         # parsed; NULL: not yet, it is for whom it needs
    uint8_t request_body             # BodyKind
    uint64_t request_length          # Content-Length, with BODY_LENGTH
    # the response (response rules only): its head as it would be sent
    Slice response
    const Head* response_head
    uint8_t method                   # Method of the request: says how a response is read
    Address node
    # TLS
    Slice sni
    Slice alpn                       # ProtocolNameList of RFC 7301 3.1, without its length
    Slice subject                    # of the client's certificate, RFC 4514
    Slice certificate                # DER
    uint16_t tls_version             # 0x0304 is TLS 1.3; 0: no TLS, or not known yet
    uint8_t tls_ends_here
    # times
    uint64_t started_us              # since 1970
    uint32_t connect_us              # to reach the node; response rules only
    uint32_t response_us             # from the request sent to the first byte of the response

ctypedef struct RuleEffects:         # offsets in RuleCall.arena
    uint8_t action                   # RuleAction
    uint16_t sets                    # RuleSets
    uint16_t status                  # of the reply
    uint32_t decided_by              # PlanRule index of the rule that answered, closed or failed
    int32_t pool                     # PlanPool index
    int32_t persistence              # PlanClass index, -1: none
    Address named                    # port 0: any port
    Address client
    Span key
    Span head                        # the whole head, valid: it has been parsed again
    Span reply_fields                # lines of an own answer, without status line, framing, Date
    Span reply_body
    Span log                         # members of a JSON object: "user":"anna","tier":"2"

cdef enum RuleMessage:               # what a call in the queue to the worker says
    RULE_DONE = 1
    RULE_WANTS_BODY                  # at most `body_max` bytes; goes on after rule_body_ready

ctypedef struct RuleCall:
    RuleCall* next                   # free list, or what rule_queue_take gave
    RuleCall* queue_next             # rule_queue's, as are the two that follow
    RuleCall* queue_previous
    uint8_t queued                   # RuleQueued
    void* exchange                   # Exchange that waits; NULL: nobody does any more
    void* snapshot                   # Snapshot, held: plan and functions stay
    const RuleStep* steps            # the rules to be run, in order
    uint32_t count
    uint8_t kind                     # RuleKind
    uint8_t message                  # RuleMessage, on the way to the worker
    uint8_t cancelled                # on the way from it: nobody waits
    uint8_t body_state               # RuleBodyState
    uint64_t body_max
    const char* body                 # RULE_BODY_READY: decoded; the worker's, until `message`
    uint64_t body_bytes
    RuleFacts facts
    RuleEffects effects
    void* data                       # request.data: dict, a reference; NULL: none
    const void* inherited            # with `data` NULL: the connection's, to begin with a copy of
    uint8_t last                     # no rule of this message follows: nobody asks for `data`
    void* running                    # the object in Python that runs it
    Arena arena
    # the worker's own
    RuleState* connection            # holds `inherited`
    void* body_buffer                # Buffer that `body` points into
    Arena copied                     # what the facts of a call point to that has left the thread

cdef enum RuleBodyState:
    RULE_BODY_UNREAD = 0
    RULE_BODY_READY                  # `body`, whole
    RULE_BODY_TOO_LARGE              # than body_max; it is forwarded all the same
    RULE_BODY_LOST                   # the client left or broke off; the call is cancelled, too

ctypedef struct RuleState:
    RuleState* next                  # free list
    RuleCall* call                   # in the other thread's hands, or parked for it; NULL: none
    uint8_t kind                     # RuleKind of the rules that run
    uint8_t step                     # first one of the list that has not run
    uint16_t sets                    # RuleSets
    uint8_t gathers                  # the body that the call asked for
    int32_t pool                     # PlanPool index, with RULE_SETS_POOL: routes do not choose it
    int32_t persistence              # PlanClass index, -1: none
    int32_t decided_by               # PlanRule index; -1: no rule answered, closed or failed
    uint32_t holders                 # of a connection's: calls that may read its `data`
    uint8_t forgotten                # its connection is gone; the last holder frees it
    uint64_t generation              # of a connection's: of the plan that the indices are of
    Span pool_name                   # of a connection's: to find them in another plan
    Span persistence_name
    Address client                   # of a connection's, with RULE_SETS_CLIENT
    Address named
    Span key
    Span log
    Span target                      # as the client sent it, where a rule changed the head
    Span head                        # of the response, as it will be sent
    void* data                       # request.data between calls, a reference
    Arena arena


cdef inline const RuleList* rule_list(const RuleTable* table, uint32_t server,
                                      int kind) noexcept nogil:
    return &table.lists[server * RULE_KINDS + kind]


# Room in `copied` for all that the facts point to, and the facts point there; so that the call can
# leave the worker's thread. False: no memory.
cdef bint rule_call_own(RuleCall* call) noexcept nogil
