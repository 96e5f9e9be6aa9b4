# The plan: one immutable snapshot of what the configuration says, as a flat blob in a
# sealed memory file. The control plane compiles it, workers map it read-only and switch
# to it between two turns of the loop; requests in progress keep the one they began with.
#
# Everything inside is an offset or an index, so the blob means the same at any address.
# Names and texts are Text {offset, bytes}. What changes at run time (node states, load,
# counters, session maps) is in shared memory, reached through slots and regions.

from libc.stdint cimport int16_t, int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastlb._core.address cimport Address
from fastlb._core.siphash cimport SipKey

cdef enum:
    PLAN_MAGIC = 0x464C4250          # "FLBP"
    PLAN_LAYOUT = 6
    PLAN_KEYS = 4                    # how many of them

cdef enum:                           # PlanKeyUse: index in Plan.keys
    KEY_SESSION = 0                  # hashes of session keys
    KEY_TOKEN_MAC                    # authentication of cookie values
    KEY_TOKEN_STREAM                 # their encryption
    KEY_RESERVATION                  # fingerprints of clients without a session

cdef enum Protocol:
    PROTOCOL_HTTP = 0
    PROTOCOL_HTTPS
    PROTOCOL_TLS
    PROTOCOL_TCP

cdef enum Algorithm:
    BALANCE_ROUND_ROBIN = 0
    BALANCE_WEIGHTED_ROUND_ROBIN
    BALANCE_LEAST_CONNECTIONS
    BALANCE_RANDOM_OF_TWO
    BALANCE_FASTEST_RESPONSE
    BALANCE_HASH
    ALGORITHMS

cdef enum ClassType:
    CLASS_IP = 0
    CLASS_UNIVERSAL
    CLASS_NAMED
    CLASS_TRANSPARENT
    CLASS_COOKIE_INSERT
    CLASS_COOKIE
    CLASS_J2EE
    CLASS_ASP
    CLASS_X_ZEUS
    CLASS_SSL
    CLASS_HASH
    CLASS_TYPES

cdef enum FailureMode:
    FAILURE_NEW_NODE = 0
    FAILURE_REDIRECT
    FAILURE_CLOSE

cdef enum PlanFlags:
    NODE_IS_BACKUP = 1               # PlanNode.flags
    SERVER_PROXY_PROTOCOL = 1        # PlanVirtualServer.flags: trusted peers send a PROXY header
    SERVER_NOT_TLS_IS_TCP = 2        # tls: what is not TLS is relayed all the same
    SERVER_CLIENT_SUBJECT = 4        # https: nodes are told who the client's certificate names
    SERVER_NO_SUBJECT_OF_CLIENTS = 8  # its nodes are told so, here or elsewhere: clients can't
    SERVER_ADDS_FOR = 16             # X-Forwarded-For
    SERVER_ADDS_PROTO = 32           # X-Forwarded-Proto
    SERVER_ADDS_HOST = 64            # X-Forwarded-Host
    SERVER_ADDS_FORWARDED = 128      # Forwarded (RFC 7239)
    SERVER_ADDS_VIA = 256            # Via, in both directions (RFC 9110 7.6.3)
    POOL_DRAIN_LAST_REFUSE = 1       # PlanPool.flags
    POOL_TLS = 2                     # TLS towards the nodes
    POOL_PROXY_V1 = 4                # nodes are sent a PROXY header
    POOL_PROXY_V2 = 8
    POOL_LIMITED = 16                # some node has max_connections
    POOL_WATCHED = 32                # what requests show of its nodes' health counts
    CLASS_DELETE_ON_FAILURE = 1      # PlanClass.flags
    CLASS_EVERY_RESPONSE = 2
    CLASS_HIDE_COOKIE = 4
    CLASS_PROTECT_CACHE = 8
    CLASS_PRESERVE = 16
    CLASS_REISSUE = 32
    CLASS_HAS_CACHE = 64
    CLASS_INSERTS_COOKIE = 128       # fastlb sets a cookie for it
    CLASS_LISTED_ONLY = 256          # a node that it names and the pool lacks counts as no session
    CLASS_LEARNS = 512               # responses name its keys
    CLASS_WRITES_EXPIRES = 1024      # its cookie has an Expires date, computed per response
    CLASS_FOLLOWS_PATH = 2048        # attributes that its cookie takes over from the application's
    CLASS_FOLLOWS_DOMAIN = 4096
    CLASS_FOLLOWS_SECURE = 8192
    CLASS_FOLLOWS_SAME_SITE = 16384
    CLASS_FOLLOWS_AGE = 32768
    CLASS_KEYS_GRANTED = 65536       # only a node's answer makes its maps, a request's key never

cdef enum KeyPartKind:               # where a declared key, or a part of it, is found
    KEY_PART_HEADER = 0
    KEY_PART_COOKIE
    KEY_PART_QUERY
    KEY_PART_PATH
    KEY_PART_HOST
    KEY_PART_SNI
    KEY_PART_SOURCE
    KEY_PART_DESTINATION
    KEY_PART_KINDS

ctypedef struct Text:
    uint32_t offset
    uint32_t bytes

ctypedef struct PlanListener:
    uint32_t id                      # stable across reloads while the address is the same
    uint32_t virtual_server

ctypedef struct PlanNetwork:
    uint8_t ip[16]
    uint32_t bits                    # prefix length over the 16 bytes

ctypedef struct PlanVirtualServer:
    Text name
    uint32_t slot                    # in WorkerStats.virtual_servers
    uint32_t protocol
    uint32_t pool                    # the default one
    uint32_t routes                  # first PlanRoute
    uint32_t route_count
    uint32_t trusted                 # first PlanNetwork of trusted_proxies
    uint32_t trusted_count
    uint32_t decision                # first PlanNetwork of decision_header
    uint32_t decision_count
    uint32_t flags
    uint32_t server_names            # https: first PlanServerName, sorted by name
    uint32_t server_name_count
    uint32_t certificate             # https: the one for all other names
    uint32_t rules                   # first entry of Plan.rule_uses
    uint32_t rule_count              # 0: none, and Python is never asked
    uint32_t error_pages             # first PlanErrorPage
    uint32_t error_page_count
    uint32_t retry_after             # seconds, of 503

ctypedef struct PlanErrorPage:       # instead of fastlb's own page
    uint32_t status
    Text type                        # Content-Type
    Text body

ctypedef struct PlanRule:
    Text name                        # "shop_rules:route"
    uint32_t slot                    # in WorkerStats.rules

cdef enum RuleOnError:
    RULES_CONTINUE = 0               # as if the rule had not run
    RULES_ANSWER_500

ctypedef struct PlanRules:           # [rules]
    uint32_t rules                   # first PlanRule
    uint32_t rule_count
    uint32_t rule_uses               # uint32_t: PlanRule indices, those of each virtual server
    uint32_t on_error                # RuleOnError
    uint32_t timeout                 # of an async rule, milliseconds
    uint32_t watchdog                # a plain rule that takes longer is reported, milliseconds
    uint32_t parked_max              # calls of async rules at one time, of one worker
    uint64_t shared_offset           # region of rule.shared's tables in the segment
    uint64_t shared_bytes
    Text directory                   # of the configuration file: where modules are looked up first

ctypedef struct PlanRoute:
    Text host                        # lower case; empty: any; "*.example.com": any label before
    Text path                        # prefix; empty: any
    Text sni                         # as host, of the ClientHello; empty: any
    Text alpn                        # a name that the client offers; empty: any
    uint32_t pool

ctypedef struct PlanServerName:      # which certificate for which name
    Text name                        # lower case; "*.example.com": exactly one label before
    uint32_t certificate

ctypedef struct PlanPool:
    Text name
    uint32_t slot                    # round-robin position in NodeTable.turns
    uint32_t algorithm
    uint32_t nodes                   # first PlanNode
    uint32_t node_count
    int32_t persistence              # PlanClass index, -1: none
    uint32_t retries
    uint32_t flags
    uint32_t schedule                # offset of uint16_t[schedule_count]: weighted round robin
    uint32_t schedule_count
    uint32_t index                   # offset of uint32_t[index_mask + 1]: nodes by address
    uint32_t index_mask              # 0: there is none, the pool is small
    uint32_t named                   # first PlanNetwork of nodes that may be named unlisted
    uint32_t named_count             # 0: only nodes of the pool
    uint32_t tls_context             # POOL_TLS: index in Snapshot.contexts
    Text tls_server_name             # POOL_TLS: asked for and verified; empty: the request's host
    uint32_t retry_budget            # percent of the requests of the last seconds
    uint32_t slow_start              # ms in which a returning node gets its full share; 0: at once
    uint32_t queue                   # POOL_LIMITED: requests that may wait, of all workers
    uint32_t queue_timeout           # ms
    uint32_t failures                # POOL_WATCHED: in a row, that eject a node; 0: none do
    uint32_t errors                  # percent of answers with 5xx that eject a node; 0: none do
    uint32_t errors_of               # answers in a window, at least, for that to say anything
    uint32_t window                  # seconds
    uint32_t backoff_min             # ms of the first ejection in a row; each next one twice that
    uint32_t backoff_max             # ms

# An entry of a pool's index is a node's number, shifted, and one of these; 0: empty. Each node
# has one under its address and port, each address one more under port 0.
cdef enum PlanIndexKind:
    INDEX_NODE = 1
    INDEX_ONLY                       # the only node of its address
    INDEX_SEVERAL                    # one of several
    INDEX_KIND_BITS = 2
    INDEX_KIND_MASK = 3

ctypedef struct PlanNode:
    Address address
    uint16_t flags
    uint32_t slot                    # in NodeTable.slots and WorkerStats.nodes
    uint32_t weight                  # 0: established sessions only
    uint32_t max_connections         # open ones, of all workers; 0: no bound
    uint64_t hash_seed               # from the address alone, so that order does not matter
    Text name                        # "10.0.0.1:8080"

ctypedef struct PlanKeyPart:
    uint32_t kind                    # KeyPartKind
    uint32_t number                  # path: the segment, 1 is the first
    Text name                        # header (lower case), cookie, or query parameter

ctypedef struct PlanCookieName:
    Text name
    int32_t virtual_server           # the one that writes it; -1: all do

ctypedef struct PlanPassphrase:
    uint8_t cipher_key[64]           # AES-256-SIV
    SipKey mark                      # tells in front whether the cipher text can be ours

ctypedef struct PlanClass:
    Text name
    uint32_t id                      # first 4 bytes of SHA-256 of the name
    uint32_t slot                    # in WorkerStats.classes
    uint32_t type
    int32_t fallback                 # PlanClass index, -1: none
    uint32_t failure_mode
    uint32_t flags
    uint32_t chain_flags             # of the class and all its fallbacks
    Text redirect_url
    # ip
    uint32_t ipv4_bits
    uint32_t ipv6_bits
    # session cache (CLASS_HAS_CACHE)
    uint64_t cache_offset            # of the region in the segment
    uint64_t cache_bytes
    uint32_t expiry_ticks            # since last use; 0: never
    # cookie classes
    uint32_t reserve_ticks           # 0: no reservations
    uint64_t reservations_offset     # session cache of the reservations
    uint64_t reservations_bytes
    uint32_t timeout_s               # idle; 0: none
    uint32_t max_lifetime_s          # absolute; 0: none
    uint32_t cookie_names            # first PlanCookieName
    uint32_t cookie_name_count
    Text cookie_tail                 # all that follows the value: "; Path=/; HttpOnly"
    uint32_t passphrases             # first PlanPassphrase; the first one writes
    uint32_t passphrase_count
    # universal, hash
    uint32_t key_parts               # first PlanKeyPart
    uint32_t key_part_count          # 0: a rule sets the key
    uint32_t learn_parts
    uint32_t learn_part_count
    # cookie, j2ee, asp
    Text session_cookie              # the application's
    Text session_parameter           # j2ee: of the path
    Text route_separators            # j2ee: the id ends before the first of these bytes

ctypedef struct PlanLimits:
    uint32_t max_connections
    uint32_t request_line_bytes
    uint32_t head_bytes
    uint32_t field_count
    uint64_t body_bytes              # 0: no limit
    uint64_t buffer_bytes            # of one worker
    uint32_t handshakes              # TLS handshakes under way, of all workers; 0: no limit
    uint32_t handshakes_per_second   # begun, of all workers; 0: no limit
    uint32_t field_bytes             # one header field's line
    uint32_t empty_lines             # before a request line
    uint32_t chunk_line_bytes        # one chunk-size line with its extensions
    uint32_t trailer_bytes           # the whole trailer section

ctypedef struct PlanTimeouts:        # milliseconds
    uint32_t client_header
    uint32_t client_body
    uint32_t keep_alive
    uint32_t connect
    uint32_t response
    uint32_t tunnel
    uint32_t drain
    uint32_t node_keep_alive
    uint32_t handshake               # PROXY header, ClientHello and handshake, all together

cdef enum:
    TICKET_KEYS_MAX = 3              # the next, the one that encrypts, the one before
    TICKET_NAME_BYTES = 16

# What workers make TLS contexts of (fastlb/tls_contexts.py). Snapshot.contexts has, for each
# certificate, one context per ticket key (index: certificate * ticket_key_count + key; key 0
# encrypts new tickets), and behind them one for each pool that speaks TLS to its nodes.
ctypedef struct PlanTls:
    Text material                    # for Python; empty: no TLS ends or begins here
    uint32_t context_count
    uint32_t certificate_count
    uint32_t ticket_key_count        # at least 1 where there are certificates
    uint8_t ticket_names[TICKET_KEYS_MAX][TICKET_NAME_BYTES]  # first bytes of a ticket

cdef enum LogFormat:
    LOG_OFF = 0
    LOG_JSON
    LOG_COMBINED

ctypedef struct Plan:
    uint32_t magic
    uint32_t layout
    uint64_t bytes                   # of the whole blob
    uint64_t generation
    uint32_t workers                 # that share the limits of the machine
    uint32_t columns                 # of the node table in use, those of leaving workers too
    uint32_t log_format
    uint32_t stats_bytes             # sizeof(WorkerStats), to refuse a plan of another build
    uint32_t listeners
    uint32_t listener_count
    uint32_t virtual_servers
    uint32_t virtual_server_count
    uint32_t pools
    uint32_t pool_count
    uint32_t classes
    uint32_t class_count
    uint32_t nodes
    uint32_t node_count
    uint32_t routes
    uint32_t route_count
    uint32_t networks
    uint32_t cookie_names
    uint32_t key_parts
    uint32_t passphrases
    uint32_t needs_local             # some key has the address that the client connected to
    uint64_t node_table_offset       # region in the segment
    uint64_t epoch_ms                # CLOCK_BOOTTIME at tick 0 of the session caches
    uint32_t server_names
    uint32_t error_pages
    Text manifest                    # for Python: what a new control process takes over by
    PlanLimits limits
    PlanTimeouts timeouts
    PlanTls tls
    PlanRules rules
    SipKey keys[PLAN_KEYS]

cdef inline const char* plan_text(const Plan* plan, Text text) noexcept nogil:
    return <const char*> plan + text.offset


cdef inline const PlanVirtualServer* plan_virtual_server(const Plan* plan,
                                                         uint32_t i) noexcept nogil:
    return <const PlanVirtualServer*> (<const char*> plan + plan.virtual_servers) + i


cdef inline const PlanListener* plan_listener(const Plan* plan, uint32_t i) noexcept nogil:
    return <const PlanListener*> (<const char*> plan + plan.listeners) + i


cdef inline const PlanPool* plan_pool(const Plan* plan, uint32_t i) noexcept nogil:
    return <const PlanPool*> (<const char*> plan + plan.pools) + i


cdef inline const PlanClass* plan_class(const Plan* plan, uint32_t i) noexcept nogil:
    return <const PlanClass*> (<const char*> plan + plan.classes) + i


cdef inline const PlanNode* plan_nodes(const Plan* plan, const PlanPool* pool) noexcept nogil:
    return <const PlanNode*> (<const char*> plan + plan.nodes) + pool.nodes


# Where the index is looked into first; from there on, entry by entry to an empty one.
cdef inline uint32_t plan_index_hash(const Address* a, uint16_t port) noexcept nogil:
    cdef const uint64_t* words = <const uint64_t*> a.ip
    cdef uint64_t x = (words[0] ^ port) * <uint64_t> 0x9E3779B97F4A7C15ULL ^ words[1]
    # Addresses of one network differ in the last bytes only, which are the words' high ones.
    x = (x ^ (x >> 33)) * <uint64_t> 0xD6E8FEB86659FD93ULL
    x = (x ^ (x >> 29)) * <uint64_t> 0x9E3779B97F4A7C15ULL
    return <uint32_t> (x >> 32)


cdef inline const PlanRoute* plan_routes(const Plan* plan) noexcept nogil:
    return <const PlanRoute*> (<const char*> plan + plan.routes)


cdef inline const PlanErrorPage* plan_error_pages(const Plan* plan) noexcept nogil:
    return <const PlanErrorPage*> (<const char*> plan + plan.error_pages)


cdef inline const PlanServerName* plan_server_names(const Plan* plan) noexcept nogil:
    return <const PlanServerName*> (<const char*> plan + plan.server_names)


cdef inline const PlanNetwork* plan_networks(const Plan* plan) noexcept nogil:
    return <const PlanNetwork*> (<const char*> plan + plan.networks)


cdef inline const PlanRule* plan_rules(const Plan* plan) noexcept nogil:
    return <const PlanRule*> (<const char*> plan + plan.rules.rules)


# Indices of a virtual server's rules, in their order.
cdef inline const uint32_t* plan_rule_uses(const Plan* plan,
                                           const PlanVirtualServer* server) noexcept nogil:
    return <const uint32_t*> (<const char*> plan + plan.rules.rule_uses) + server.rules


cdef inline const PlanCookieName* plan_cookie_names(const Plan* plan,
                                                    const PlanClass* cls) noexcept nogil:
    return <const PlanCookieName*> (<const char*> plan + plan.cookie_names) + cls.cookie_names


cdef inline const PlanKeyPart* plan_key_parts(const Plan* plan) noexcept nogil:
    return <const PlanKeyPart*> (<const char*> plan + plan.key_parts)


cdef inline const PlanPassphrase* plan_passphrases(const Plan* plan,
                                                   const PlanClass* cls) noexcept nogil:
    return <const PlanPassphrase*> (<const char*> plan + plan.passphrases) + cls.passphrases


# 0 when the blob is a whole plan of this build, else a negative number.
cdef int plan_check(const Plan* plan, uint64_t bytes) noexcept nogil
cdef bint plan_network_has(const Plan* plan, uint32_t first, uint32_t count,
                           const Address* a) noexcept nogil
