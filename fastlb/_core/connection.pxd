# The structs of a request's way through a worker. No functions: the modules that act on
# them (accept, client, exchange, upstream, relay, tunnel, worker) cimport this one.
#
# Ownership: the worker owns every object through its free lists. A client connection owns
# its exchange, an exchange owns the node connection that it uses; an idle node connection
# belongs to the pool of its node. What is closed during a turn stays in memory until the
# turn ends, because later events of the same turn may still point to it.

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastlb._core.address cimport Address
from fastlb._core.body cimport BodyReader
from fastlb._core.buffer cimport Buffer, BufferPool
from fastlb._core.decision cimport Decision
from fastlb._core.edit cimport HeadEdit, iovec
from fastlb._core.head cimport Head
from fastlb._core.limits cimport NODES_MAX, VIRTUAL_SERVERS_MAX
from fastlb._core.node cimport NodeTable
from fastlb._core.plan cimport Plan, PlanPool, PlanVirtualServer
from fastlb._core.rule_call cimport RuleCall, RuleState, RuleTable
from fastlb._core.session_shard cimport SessionCache
from fastlb._core.siphash cimport Hash128
from fastlb._core.stats cimport WorkerStats
from fastlb._core.timer cimport Timer, TimerWheel
from fastlb._core.tls_hello cimport TlsServerFlight

cdef enum StreamReady:               # Stream.ready: what the kernel said and we have not used up
    STREAM_READABLE = 1
    STREAM_WRITABLE = 2
    STREAM_HUP = 4                   # the peer has finished sending (EPOLLRDHUP)
    STREAM_EOF = 8                   # and we have read all of it
    STREAM_ERROR = 16                # reset, or another error: nothing more goes either way
    STREAM_RESET = 32                # a write met a reset: the end that a read sees is none
    STREAM_URGENT = 64               # urgent data came: reads stop short of it with more behind
    STREAM_MUTED = 128               # what comes wakes nobody: there is enough that cannot go on

ctypedef struct TlsStream:           # one TLS connection (tls_stream.pyx)
    void* ssl                        # SSL of the TLS library; owner of both BIOs
    void* incoming                   # memory BIO: received, not yet decrypted
    void* outgoing                   # memory BIO: encrypted, not yet sent
    TlsStream* next                  # free list
    uint64_t sent_ms                 # when something was sent last
    uint32_t burst                   # plain text sent since the last pause: sizes of records
    uint32_t waiting                 # cipher text that waits for the socket
    uint32_t fruitless               # cipher text received since the last plain text
    uint32_t incoming_peak           # most that a BIO has held: memory that it keeps
    uint32_t outgoing_peak
    uint16_t version                 # of the protocol, once established: 0x0304 is TLS 1.3
    uint8_t established              # the handshake is done
    uint8_t ended                    # close_notify received
    uint8_t closing                  # ours is sent, or waits, and the socket's end behind it
    uint8_t holds                    # the library or `incoming` may have more to be read
    uint8_t drained                  # the last recv emptied the socket, and no event since
    char* subject                    # of the client's certificate, which was verified; NULL: none
    uint32_t subject_bytes
    uint32_t certificate_bytes
    char* certificate                # itself, DER; NULL: none, or there were no rules to see it
    uint8_t asked                    # of a client: for its certificate, whether it has one or not
    uint8_t kept                     # towards a node: its session is kept already
    const void* context              # towards a node: SSL_CTX that it is by
    uint64_t generation              # towards a node: of the plan that it is by
    unsigned long error              # of the library: why the handshake failed; 0: unknown
    uint8_t sni_bytes                # of `sni`; 0: none
    char sni[255]                    # server name that the client asked for, or we of a node

ctypedef struct Stream:              # first member of whatever epoll reports
    void (*on_events)(Worker* w, Stream* s, uint32_t events) noexcept nogil
    TlsStream* tls                   # NULL: plain text
    int fd                           # -1: closed
    uint8_t ready                    # StreamReady bits

cdef enum TimerKind:
    TIMER_CLIENT = 0
    TIMER_NODE
    TIMER_ACCEPT
    TIMER_DRAIN
    TIMER_HANDSHAKES
    TIMER_QUEUES
    TIMER_ADOPTION

ctypedef struct Listener:
    Stream stream
    uint32_t id                      # PlanListener.id
    uint32_t socket                  # which one: several sockets may listen at one address
    uint32_t virtual_server          # index in the current plan
    uint32_t left                    # while stopping: so many more are accepted at most
    Listener* next

ctypedef struct Pipe:                # for splice
    int in_fd                        # read end
    int out_fd                       # write end
    uint32_t bytes                   # in the pipe now
    Pipe* next_free

# Bytes of one message on their way. What is to be sent: the pipe's bytes, or first
# `head` (the rest of an edited head that did not fit into one writev), then `run`.
ctypedef struct Flow:
    Buffer* head
    Buffer* data                     # where the source is read into
    Buffer* kept                     # the buffer of a head in use, once `data` became another one
    uint32_t run                     # offset in `data` of bytes to be sent
    uint32_t run_bytes
    uint32_t keep                    # first bytes of `data` that must stay (a head in use)
    Pipe* pipe
    uint64_t bytes                   # sent to the target, heads included
    uint64_t data_bytes_max          # of the body; 0: no limit
    BodyReader body
    uint8_t decode                   # chunked is decoded for an HTTP/1.0 client
    uint8_t large                    # the last read filled a small buffer: take large ones
    uint8_t last                     # what ends with the connection, and the last of it is here
    uint8_t stalls                   # calls in a row that moved nothing: the target was full
    uint8_t ended                    # tunnels: the source's end was passed on; else: target broken
    # Shown all that was received before it is sent on, while it is set; nothing is spliced then.
    void (*inspect)(Worker* w, Exchange* x, const char* data, uint32_t count) noexcept nogil
    Exchange* inspected              # `x` of it

cdef enum ClientState:
    CLIENT_IDLE = 0                  # between requests: no buffer, no exchange
    CLIENT_OPENING                   # PROXY header, ClientHello, handshake: see `opening`
    CLIENT_HEAD                      # part of a head has arrived
    CLIENT_EXCHANGE                  # a request is being served
    CLIENT_PASSAGE                   # tcp, or passed-through TLS: an exchange without messages
    CLIENT_LINGER                    # answered and half closed; waits for the peer to take it
    CLIENT_CLOSED

cdef enum OpeningStage:              # what a connection in CLIENT_OPENING waits for
    OPENING_PROXY_HEADER = 0
    OPENING_HELLO
    OPENING_QUEUE                    # its turn: handshakes are limited
    OPENING_HANDSHAKE

ctypedef struct ClientConn:
    Stream stream
    Timer timer
    Buffer* buffer                   # received, not yet served; NULL when nothing is pending
    Head* head                       # state of an unfinished parse; NULL otherwise
    Exchange* exchange
    ClientConn* next                 # free list, list of the dead, or list of the posted
    ClientConn* all_next             # all open client connections of the worker
    ClientConn* all_prev
    Address peer                     # unset for unix sockets; or as a PROXY header says
    Address local                    # where it connected to; all zero for unix sockets
    uint8_t nameless                 # a PROXY header named no client: a request can't do it either
    uint8_t local_known              # `local` was asked for: most plans never do
    uint8_t state                    # ClientState
    uint8_t opening                  # OpeningStage, in CLIENT_OPENING
    uint8_t posted
    uint8_t is_unix                  # whatever a PROXY header says of the peer
    uint16_t virtual_server_slot     # in WorkerStats, stable over reloads
    uint32_t listener_id
    uint32_t requests                # served on this connection
    uint64_t cut_until_ms            # in CLIENT_LINGER, not 0: reset once the peer has all, or then
    ClientConn* queue_next           # in OPENING_QUEUE
    ClientConn* queue_prev
    uint32_t hello_walked            # of a ClientHello that has not arrived whole:
    uint32_t hello_payload           # TlsClientHello's progress
    RuleState* rules                 # what connection rules asked for; NULL: nothing

ctypedef struct NodeSession:         # TLS session with a node, for the next connection
    void* session                    # SSL_SESSION; NULL: none
    uint64_t generation              # of the plan that it was made by
    uint32_t name_bytes
    char name[255]                   # whom the node has proven to be

cdef enum NodeConnState:
    NODE_CONN_CONNECTING = 0
    NODE_CONN_BUSY
    NODE_CONN_IDLE
    NODE_CONN_CLOSED

ctypedef struct NodeConn:
    Stream stream
    Timer timer
    Exchange* exchange               # NULL while idle
    NodeConn* next                   # idle list of the node, free list, or list of the dead
    NodeConn* prev
    uint32_t slot                    # in the node table
    uint32_t requests                # begun on this connection
    uint8_t state                    # NodeConnState
    Address address                  # of the node: its slot may be another one's after a reload

ctypedef struct Snapshot:            # a plan as this process sees it
    const Plan* plan
    SessionCache* caches             # one per class
    SessionCache* reservations       # one per class
    void** contexts                  # SSL_CTX of the TLS library: see PlanTls; NULL: none
    RuleTable* rules                 # NULL: no virtual server has any
    int fd                           # of the plan, for a new control process
    uint64_t references              # exchanges that began with it, and 1 while it is current
    Snapshot* next                   # all snapshots still in memory

ctypedef struct ExchangeQueue:       # requests that wait for a node, or any of a pool (queue.pyx)
    Exchange* first                  # the oldest
    Exchange* last
    Exchange* resume                 # where to go on to look; NULL: at the first
    ExchangeQueue* next              # all queues of the worker that are not empty
    ExchangeQueue* prev
    uint32_t count
    uint32_t slot                    # of the node or the pool
    bint of_pool
    uint64_t yields_ms               # since when there is room that is another worker's; 0: none

ctypedef struct RetryBudget:         # of one pool, of the last seconds (retry_budget.pyx)
    uint32_t requests
    uint32_t retries
    uint32_t window                  # number of the window that both are of

cdef enum DoneHow:                   # how a client connection goes on after an exchange
    DONE_KEEP = 0                    # may carry another request
    DONE_CLOSE                       # closes, as the client asked; lingers if it has sent more
    DONE_LINGER                      # lingers: more of the client's bytes may be on their way
    DONE_RESET                       # its answer is not whole, and must not look so
    DONE_CUT                         # likewise, but what was sent of it still arrives

cdef enum ExchangeStage:
    STAGE_RULES = 0                  # not decided yet; waits for rules, where there are any
    STAGE_QUEUE                      # waits for a node that is not full
    STAGE_CONNECT                    # waits for the node's connection
    STAGE_SEND                       # the head is not yet sent whole
    STAGE_AWAIT                      # waits for the response's head
    STAGE_RESPONSE_RULES             # has it, and waits for rules
    STAGE_RESPONSE                   # the response is being relayed
    STAGE_TUNNEL

ctypedef struct Exchange:
    ClientConn* client
    NodeConn* node                   # NULL before and between tries
    Snapshot* snapshot               # holds a reference
    const PlanVirtualServer* server
    const PlanPool* pool
    RuleState* rules                 # what rules have asked for; NULL: nothing
    Exchange* next                   # free list
    Flow up                          # client to node
    Flow down                        # node to client
    Address client_address           # whose request it is: peer, or as a trusted proxy says
    uint32_t slot                    # node table slot whose load this exchange counts in
    uint32_t retries                 # other nodes tried
    Exchange* queue_next             # in STAGE_QUEUE
    Exchange* queue_prev
    ExchangeQueue* queue             # NULL: in none
    uint64_t queued_us               # when it came into it, less `waited_us` of before; 0: never
    uint64_t waited_us               # in queues, in all
    uint8_t in_turn                  # it has waited, or has had a connection: it waits for nobody
    uint8_t resets                   # connections of this request that ended without an answer
    uint8_t probes                   # it tries an ejected node
    uint16_t suspect                 # 1 + slot of the node that reset it, or SUSPECT_MANY; 0: none
    # the request, as far as it is needed after its head was sent
    uint32_t head_start              # offsets in up.kept, else up.data
    uint32_t head_end
    uint32_t method_at
    uint32_t method_bytes
    uint32_t target
    uint32_t target_bytes
    uint32_t host
    uint32_t host_bytes
    uint32_t referer
    uint32_t referer_bytes
    uint32_t user_agent
    uint32_t user_agent_bytes
    uint8_t method                   # Method
    uint8_t version_minor
    uint8_t stage                    # ExchangeStage
    uint8_t counted                  # in the node's load
    uint8_t fresh                    # the node connection was opened for this exchange
    uint8_t client_persists          # the client connection may carry another request
    uint8_t client_closes            # it said that this is its last request
    uint8_t node_persists
    uint8_t upgrade                  # the request asks for one
    uint8_t refused                  # no valid request: there is no head to speak of
    uint8_t passage                  # tcp or passed-through TLS: no request, no response
    uint8_t sni_bytes                # of `sni`; 0: none
    uint8_t alpn_bytes               # of `alpn`; 0: none
    uint8_t offers_ticket            # the client's hello has a ticket that is not empty
    uint8_t flight_seen              # `flight` is valid
    uint8_t asked                    # passages: the node had bytes as soon as it was connected
    uint8_t interims                 # 1xx responses passed on
    uint8_t expect_continue
    uint8_t continued                # 100 was sent by us: the node is not asked for it
    uint8_t has_hello                # passages: up.data begins with the ClientHello
    uint8_t bad_body                 # what came of it with the response's head is wrong
    uint8_t body_sent                # bytes of the body have left the first buffer
    uint8_t response_started         # a byte of the response was received
    uint8_t cause                    # Cause
    uint8_t head_error               # with CAUSE_BAD_REQUEST and CAUSE_BAD_RESPONSE: -HeadError
    uint16_t status
    uint8_t misnamed                 # the node is not whom the client's Host names
    uint16_t verify_error            # of a handshake that failed: X509_V_ERR_*; 0: not that
    unsigned long tls_error          # and what the library says of it, which may be nothing: 0
    uint64_t started_us
    uint64_t tried_us                # this try began
    uint64_t connected_us
    uint64_t sent_us                 # the request's head went out
    uint64_t sent_before             # up.bytes when this try began
    uint64_t first_byte_us           # 0: no byte of a response
    Decision decision                # it clears itself; nothing behind it is cleared
    char sni[256]                    # server name of the client's hello
    char alpn[32]                    # the first protocol that it offers
    Hash128 session_id               # its session id, as tls_session_id_hash
    TlsServerFlight flight           # passages: what the node's handshake has shown so far

cdef enum:
    SCRATCH_BYTES = 24 * 1024       # cookies of a chain of FALLBACK_DEPTH_MAX classes, and more
    JOIN_BYTES = 4096                # messages up to this size are joined before they are sent
    WORKER_IOVECS = 160              # EDIT_IOVECS_MAX and a run of the body
    EVENTS_MAX = 256

ctypedef struct Handshakes:          # with clients (handshake.pyx)
    ClientConn* first                # the queue of those that have not begun
    ClientConn* last
    uint32_t running
    bint due                         # some may begin as soon as requests have had their turn
    uint64_t turn                    # WorkerStats.turns that `spent_us` is of
    uint64_t spent_us
    uint64_t tokens                  # limits.handshakes_per_second; a million are one handshake
    uint64_t tokens_at_us
    Timer timer                      # until the next token

ctypedef struct AccessLog:
    int fd                           # -1: off
    uint32_t used
    uint32_t limit                   # where the client's texts in the line in work have to end
    uint32_t batch                   # written when this much has gathered, or the turn ends
    bint is_socket                   # syslog: one datagram per line
    char* text                       # ACCESS_LOG_BYTES

ctypedef struct Worker:
    int epoll_fd
    Stream channel                   # from the control process
    Stream signals
    Stream adoption                  # listening socket for a new control process; fd -1: none
    uint32_t index                   # column in the node table
    bint stopping                    # no new connections; the running ones end
    bint idle_stay                   # while stopping: idle clients are not closed before its end
    bint finished                    # leave the loop
    # clocks, read once per turn
    uint64_t now_us                  # CLOCK_MONOTONIC
    uint64_t now_ms
    uint64_t boot_ms                 # CLOCK_BOOTTIME, refreshed every 10 ms
    uint32_t wall_s                  # CLOCK_REALTIME, refreshed with it
    uint64_t wall_us
    uint32_t now_ticks
    uint64_t clocks_due_ms
    # shared memory
    int segment_fd                   # for a new control process
    char* segment
    NodeTable* nodes
    WorkerStats* stats
    # configuration
    Snapshot* snapshot
    Snapshot* snapshots
    uint64_t released                # oldest generation in use, as the control process was told
    int16_t server_index[VIRTUAL_SERVERS_MAX]    # of a virtual server's slot in the plan; -1: gone
    Listener* listeners
    Listener* dead_listeners         # closed in this turn
    bint accept_paused
    uint64_t descriptors_max         # the process's limit when the plan in force was taken
    Timer accept_timer
    Timer drain_timer
    Handshakes handshakes
    ExchangeQueue* queues            # that are not empty
    ExchangeQueue* node_queues[NODES_MAX]  # by slot, sessions'; NULL: never needed
    ExchangeQueue* pool_queues[NODES_MAX]  # by PlanPool.slot, of new sessions
    Timer queue_timer                # to look whether others lack our idle connections
    Timer adoption_timer             # to heed the adoption socket again
    uint64_t queues_looked_ms        # when the queues were looked at last
    bint queues_due                  # there is room that was not there then
    bint limited                     # some plan had nodes with max_connections
    uint32_t limits[NODES_MAX]       # max_connections by slot, of the plan in force; or NO_LIMIT
    RetryBudget budgets[NODES_MAX]   # by PlanPool.slot
    # memory
    TimerWheel timers
    BufferPool buffers
    ClientConn* free_clients
    NodeConn* free_node_conns
    Exchange* free_exchanges
    Head* free_heads
    Pipe* free_pipes
    uint32_t free_pipe_count
    ClientConn* clients              # all open ones
    ClientConn* dead_clients
    NodeConn* dead_node_conns
    ClientConn* posted               # have bytes of a next request; served at the end of the turn
    NodeConn* idle[NODES_MAX]        # pooled node connections by slot, last used first
    uint32_t idle_count[NODES_MAX]
    NodeSession* node_sessions[NODES_MAX]  # by slot; NULL: none yet
    # upward calls, set at start: exchange and tunnel are below the client's module
    void (*request_done)(Worker* w, ClientConn* c, int how) noexcept nogil
    void (*rules_done)(Worker* w, Exchange* x) noexcept nogil   # a call for it came back
    # rules
    Stream rules                     # eventfd: calls have come back; fd -1: no async rules yet
    RuleCall* free_rule_calls
    RuleState* free_rule_states
    uint32_t rules_parked            # calls that the event loop has; also those nobody waits for
    # scratch of the message in work
    Head request
    Exchange* request_of             # whose request `request` holds now; NULL: nobody's
    Head response
    HeadEdit edit
    iovec iov[WORKER_IOVECS]
    char joined[JOIN_BYTES]
    char scratch[SCRATCH_BYTES]
    uint32_t scratch_used
    char peer_text[64]               # ", " and the peer's address
    uint64_t random
    int connect_errno                # why upstream_connect gave nothing
    AccessLog log


# Serves the connection again at the end of the turn, after all others had theirs.
cdef inline void post_client(Worker* w, ClientConn* c) noexcept nogil:
    if not c.posted:
        c.posted = True
        c.next = w.posted
        w.posted = c
