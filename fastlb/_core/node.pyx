# The control plane's view of the node table.

from libc.string cimport memset

if sizeof(NodeSlot) != 64 + 3 * 4 * WORKERS_MAX:
    raise ImportError("fastlb._core.node: NodeSlot has holes")

NODE_TABLE_BYTES = sizeof(NodeTable)
STATES = {
    "up": NODE_UP, "draining": NODE_DRAINING, "down": NODE_DOWN, "disabled": NODE_DISABLED,
}
STATE_NAMES = {number: name for name, number in STATES.items()} | {NODE_FREE: "free"}


cdef NodeSlot* _slot(size_t table, int slot) except NULL:
    if table == 0 or not 0 <= slot < NODES_MAX:
        raise ValueError(f"node table: no slot {slot}")
    return &(<NodeTable*> table).slots[slot]


def open_slot(size_t table, int slot, str state):
    """Take a free slot into use; its load columns and estimates start at zero.

    Not so its open connections: workers may still have idle ones to the node that had it before.
    """
    cdef NodeSlot* one = _slot(table, slot)
    memset(one, 0, <size_t> (<char*> &one.open - <char*> one))
    one.state = STATES[state]


def free_slot(size_t table, int slot):
    """Give a slot back; only when no worker's plan refers to it."""
    _slot(table, slot).state = NODE_FREE


def set_state(size_t table, int slot, str state):
    """Write the state ("up", "draining", "down", "disabled") that workers see at once."""
    _slot(table, slot).state = STATES[state]


def ejected_until(size_t table, int slot) -> int:
    """Until when requests keep away from the node, ms of CLOCK_BOOTTIME; 0: they do not."""
    return _slot(table, slot).ejected_until_ms


def get_state(size_t table, int slot) -> str:
    """The state's name; "free" for a slot that no node has."""
    return STATE_NAMES[_slot(table, slot).state]


def set_returned(size_t table, int slot, uint64_t ms):
    """The node is usable again, by what others than requests found: what requests showed before is
    forgotten, and its slow start begins. `ms`: CLOCK_BOOTTIME."""
    cdef NodeSlot* one = _slot(table, slot)
    one.failures = 0
    one.ejections = 0
    one.returned_at_ms = ms
    one.ejected_until_ms = 0


def clear_worker_column(size_t table, int worker):
    """Forget what a worker that died was doing: its requests died with it."""
    cdef NodeTable* all_ = <NodeTable*> table
    cdef NodeSlot* one
    cdef int i
    if not 0 <= worker < WORKERS_MAX:
        raise ValueError(f"node table: no worker {worker}")
    for i in range(NODES_MAX):
        one = _slot(table, i)
        one.active[worker] = 0
        one.open[worker] = 0
        one.waiting[worker] = 0
        all_.pools[i].waiting[worker] = 0


def read_slot(size_t table, int slot, int workers) -> dict:
    """State, requests in progress, response average (µs), and what requests showed of its health;
    times are in ms of CLOCK_BOOTTIME, 0: never."""
    cdef NodeSlot* one = _slot(table, slot)
    if not 0 <= workers <= WORKERS_MAX:
        raise ValueError(f"node table: no {workers} worker columns")
    return {
        "state": STATE_NAMES[one.state],
        "connections": node_load(one, workers),
        "open": node_open(one, workers),
        "response_us": one.response_us,
        "used_at_ms": one.used_at_ms,
        "failures": one.failures,
        "ejections": one.ejections,
        "ejected_until_ms": one.ejected_until_ms,
        "returned_at_ms": one.returned_at_ms,
    }
