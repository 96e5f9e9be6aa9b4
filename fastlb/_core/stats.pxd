# Counters of one worker, in shared memory: the worker alone writes, anybody reads.
# Plain 64-bit stores are enough (one writer, no torn reads on 64-bit machines), and
# a counter costs no locked instruction. Sums over workers are the reader's work.

from libc.stdint cimport uint32_t, uint64_t

from fastlb._core.limits cimport CLASSES_MAX, NODES_MAX, RULES_MAX, VIRTUAL_SERVERS_MAX

cdef enum:
    STATS_OUTCOMES = 24              # at least OUTCOMES, with room to grow
    STATS_CAUSES = 40                # at least CAUSES
    STATS_HEAD_ERRORS = 64           # at least the count of HeadError values
    STATS_LATENCY_BUCKETS = 24       # powers of two of microseconds

ctypedef struct VirtualServerStats:
    uint64_t connections             # open now
    uint64_t accepted
    uint64_t requests                # answered or failed
    uint64_t bytes_in                # from clients
    uint64_t bytes_out               # to clients
    uint64_t statuses[6]             # by first digit; [0]: no status was sent
    uint64_t handshakes              # https: done
    uint64_t handshakes_resumed      # of them
    uint64_t handshakes_tls13        # of them
    uint64_t handshakes_failed
    uint64_t handshakes_waiting      # in the queue now

ctypedef struct NodeStats:
    uint64_t requests
    uint64_t sessions                # new sessions given to the node
    uint64_t connects                # connections opened
    uint64_t connect_failures
    uint64_t reuses                  # requests sent on a pooled connection
    uint64_t idle                    # pooled connections now
    uint64_t handshakes              # TLS: done
    uint64_t handshakes_resumed      # of them
    uint64_t handshake_failures
    uint64_t resets                  # connections that ended before a byte of an answer
    uint64_t errors                  # answers with 5xx
    uint64_t ejections               # for what requests showed of its health
    uint64_t probes                  # requests that tried an ejected node
    uint64_t waiting                 # of those, whose session is on this node

ctypedef struct PoolStats:
    uint64_t retries                 # requests sent to another node, or again to the same
    uint64_t retries_refused         # by retry_budget
    uint64_t waiting                 # requests that wait now, for one of its nodes or for any
    uint64_t waited                  # that have waited, for one node or for any
    uint64_t waited_us               # in all
    uint64_t queue_full
    uint64_t queue_timeouts

ctypedef struct ClassStats:
    uint64_t outcomes[STATS_OUTCOMES]
    uint64_t found_by_fallback       # sessions of this class's chain that a fallback found
    uint64_t duplicates              # requests with the class's cookie more than once
    uint64_t tls13                   # passed-through handshakes of TLS 1.3: no id to learn
    uint64_t foreign_cookies         # Set-Cookie of our name from a node, removed
    uint64_t ended                   # sessions that the application ended
    uint64_t cookies_set

ctypedef struct RuleStats:
    uint64_t calls
    uint64_t errors                  # exceptions and wrong results, time-outs not among them
    uint64_t timeouts
    uint64_t cancelled               # async: the client left before its end
    uint64_t waiting                 # async: now
    uint64_t busy_us                 # plain: time in it; async: from its begin to its end
    uint64_t blocked                 # plain: calls longer than [rules] watchdog

ctypedef struct WorkerStats:
    uint64_t pid                     # 0: no worker in this slot
    uint64_t started_ms              # CLOCK_BOOTTIME
    uint64_t generation              # of the plan in force
    uint64_t turns                   # of the event loop
    uint64_t gil_acquisitions        # since start-up
    uint64_t accept_pauses
    uint64_t retries
    uint64_t log_lines_dropped
    uint64_t buffers_refused
    # objects in use now (a leak shows here; demanded to be zero at exit in debug builds)
    uint64_t clients
    uint64_t node_connections
    uint64_t exchanges
    uint64_t buffers
    uint64_t pipes
    uint64_t tls_streams
    uint64_t rule_calls
    uint64_t rule_states
    uint64_t causes[STATS_CAUSES]
    uint64_t head_errors[STATS_HEAD_ERRORS]
    VirtualServerStats virtual_servers[VIRTUAL_SERVERS_MAX]
    NodeStats nodes[NODES_MAX]
    PoolStats pools[NODES_MAX]       # by PlanPool.slot
    ClassStats classes[CLASSES_MAX]
    RuleStats rules[RULES_MAX]
