# The reader's side of the counters: dictionaries for `status` and the metrics.

from libc.string cimport memset

from fastlb._core.outcome cimport CAUSES, OUTCOMES
from fastlb._core.outcome import cause_names, outcome_names

if <int> OUTCOMES > <int> STATS_OUTCOMES or <int> CAUSES > <int> STATS_CAUSES:
    raise ImportError("fastlb._core.stats: more outcomes or causes than counters")

STATS_BYTES = sizeof(WorkerStats)


cdef const WorkerStats* _at(size_t address) except NULL:
    if address == 0:
        raise ValueError("stats: no address of a counter block")
    return <const WorkerStats*> address


cdef int _slot(int slot, int count) except -1:
    if not 0 <= slot < count:
        raise ValueError(f"stats: no slot {slot}")
    return slot


cdef list _blocks(object addresses):
    return [addresses] if isinstance(addresses, int) else list(addresses)


# What stands in the first block at `first`, and likewise in the others, summed word by word.
cdef int _sum(list blocks, const void* first, void* total, size_t size) except -1:
    cdef size_t offset = <size_t> first - <size_t> blocks[0]
    cdef uint64_t* sums = <uint64_t*> total
    cdef const uint64_t* words
    cdef size_t i
    memset(total, 0, size)
    for address in blocks:
        words = <const uint64_t*> (<const char*> _at(address) + offset)
        for i in range(size // sizeof(uint64_t)):
            sums[i] += words[i]
    return 0


def clear_worker(size_t address):
    """Zero the whole counter block at `address` (before the slot's first worker)."""
    memset(<void*> _at(address), 0, sizeof(WorkerStats))


def retire_worker(size_t address):
    """Mark the slot as empty after its worker ended; what counts events stays."""
    cdef WorkerStats* stats = <WorkerStats*> _at(address)
    cdef int i
    stats.pid = 0
    stats.clients = 0
    stats.node_connections = 0
    stats.exchanges = 0
    stats.buffers = 0
    stats.pipes = 0
    stats.tls_streams = 0
    stats.rule_calls = 0
    stats.rule_states = 0
    for i in range(RULES_MAX):
        stats.rules[i].waiting = 0
    for i in range(VIRTUAL_SERVERS_MAX):
        stats.virtual_servers[i].connections = 0
        stats.virtual_servers[i].handshakes_waiting = 0
    for i in range(NODES_MAX):
        stats.nodes[i].idle = 0
        stats.nodes[i].waiting = 0
        stats.pools[i].waiting = 0


def read_worker(size_t address) -> dict:
    """The scalar counters of one worker and its failed exchanges by cause."""
    cdef const WorkerStats* stats = _at(address)
    cdef int i
    requests = 0
    for i in range(VIRTUAL_SERVERS_MAX):
        requests += stats.virtual_servers[i].requests
    return {
        "pid": stats.pid,
        "started_ms": stats.started_ms,
        "generation": stats.generation,
        "connections": stats.clients,
        "requests": requests,
        "turns": stats.turns,
        "gil_acquisitions": stats.gil_acquisitions,
        "accept_pauses": stats.accept_pauses,
        "retries": stats.retries,
        "log_lines_dropped": stats.log_lines_dropped,
        "buffers_refused": stats.buffers_refused,
        "objects": {
            "clients": stats.clients,
            "node_connections": stats.node_connections,
            "exchanges": stats.exchanges,
            "buffers": stats.buffers,
            "pipes": stats.pipes,
            "tls_streams": stats.tls_streams,
            "rule_calls": stats.rule_calls,
            "rule_states": stats.rule_states,
        },
        "causes": {
            name: stats.causes[i] for i, name in enumerate(cause_names()) if stats.causes[i]
        },
        "head_errors": [stats.head_errors[i] for i in range(STATS_HEAD_ERRORS)],
    }


def read_virtual_server(object addresses, int slot) -> dict:
    """Counters of one virtual server, of one worker or summed; `slot` from the plan."""
    cdef VirtualServerStats one
    cdef int checked = _slot(slot, VIRTUAL_SERVERS_MAX)
    cdef list blocks = _blocks(addresses)
    _sum(blocks, &_at(blocks[0]).virtual_servers[checked], &one, sizeof(one))
    return {
        "connections": one.connections,
        "accepted": one.accepted,
        "requests": one.requests,
        "bytes_in": one.bytes_in,
        "bytes_out": one.bytes_out,
        "statuses": [one.statuses[i] for i in range(6)],
        "tls": {
            "handshakes": one.handshakes,
            "resumed": one.handshakes_resumed,
            "tls13": one.handshakes_tls13,
            "failed": one.handshakes_failed,
            "waiting": one.handshakes_waiting,
        },
    }


def read_node(object addresses, int slot) -> dict:
    """Counters of one node slot, of one worker or summed."""
    cdef NodeStats one
    cdef list blocks = _blocks(addresses)
    _sum(blocks, &_at(blocks[0]).nodes[_slot(slot, NODES_MAX)], &one, sizeof(one))
    return {
        "requests": one.requests,
        "sessions": one.sessions,
        "connects": one.connects,
        "connect_failures": one.connect_failures,
        "reuses": one.reuses,
        "idle": one.idle,
        "handshakes": one.handshakes,
        "handshakes_resumed": one.handshakes_resumed,
        "handshake_failures": one.handshake_failures,
        "resets": one.resets,
        "errors": one.errors,
        "ejections": one.ejections,
        "probes": one.probes,
        "waiting": one.waiting,
    }


def read_pool(object addresses, int slot) -> dict:
    """Counters of one pool, of one worker or summed; `slot` from the plan."""
    cdef PoolStats one
    cdef list blocks = _blocks(addresses)
    _sum(blocks, &_at(blocks[0]).pools[_slot(slot, NODES_MAX)], &one, sizeof(one))
    return {
        "retries": one.retries,
        "retries_refused": one.retries_refused,
        "waiting": one.waiting,
        "waited": one.waited,
        "waited_us": one.waited_us,
        "queue_full": one.queue_full,
        "queue_timeouts": one.queue_timeouts,
    }


def read_rule(object addresses, int slot) -> dict:
    """Counters of one rule, of one worker or summed."""
    cdef RuleStats one
    cdef list blocks = _blocks(addresses)
    _sum(blocks, &_at(blocks[0]).rules[_slot(slot, RULES_MAX)], &one, sizeof(one))
    return {
        "calls": one.calls,
        "errors": one.errors,
        "timeouts": one.timeouts,
        "cancelled": one.cancelled,
        "waiting": one.waiting,
        "busy_us": one.busy_us,
        "blocked": one.blocked,
    }


def read_class(object addresses, int slot) -> dict:
    """Counters of one persistence class, of one worker or summed, outcomes by name."""
    cdef ClassStats one
    cdef list blocks = _blocks(addresses)
    _sum(blocks, &_at(blocks[0]).classes[_slot(slot, CLASSES_MAX)], &one, sizeof(one))
    cdef int i
    return {
        "outcomes": {name: one.outcomes[i] for i, name in enumerate(outcome_names())},
        "found_by_fallback": one.found_by_fallback,
        "duplicates": one.duplicates,
        "tls13": one.tls13,
        "foreign_cookies": one.foreign_cookies,
        "ended": one.ended,
        "cookies_set": one.cookies_set,
    }
