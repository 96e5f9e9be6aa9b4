"""The queues of workers that share a node table, with requests that are numbers; for tests only."""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from fastlb._core._testing_plan cimport PlanImage
from fastlb._core.connection cimport ClientConn, Exchange, Snapshot, Worker
from fastlb._core.decide cimport decision_reset
from fastlb._core.decision cimport ACTION_FORWARD, ACTION_WAIT
from fastlb._core.node cimport NodeTable, node_admit
from fastlb._core.plan cimport PlanNode, plan_nodes, plan_pool
from fastlb._core.queue cimport (
    queue_enter, queue_free_all, queue_leave, queue_limit, queue_run, queue_time_over,
)
from fastlb._core.stats cimport WorkerStats
from fastlb._core.timer cimport timer_wheel_init

cdef enum:
    REQUESTS = 512

# What a turn comes to: so many are let in, others come back.
cdef int _room = 0
cdef Exchange* _first = NULL
cdef int[REQUESTS] _turns
cdef int _turn_count = 0


cdef void _turn(Worker* w, Exchange* x) noexcept nogil:
    global _room, _turn_count
    _turns[_turn_count] = <int> (x - _first)
    _turn_count += 1
    if _room == 0:
        queue_enter(w, x)
        return
    _room -= 1
    if x.decision.node >= 0:
        w.nodes.slots[plan_nodes(x.snapshot.plan, x.pool)[x.decision.node].slot].open[w.index] += 1


cdef class Lines:
    """One worker; `other` is one that has the same node table."""
    cdef Worker* w
    cdef Exchange* x
    cdef ClientConn* clients
    cdef Snapshot snapshot
    cdef PlanImage image
    cdef Lines other

    def __init__(self, PlanImage image, uint32_t index=0, Lines other=None):
        cdef const PlanNode* nodes = <const PlanNode*> (<char*> image.plan + image.plan.nodes)
        cdef uint32_t i
        self.image = image
        self.other = other
        self.snapshot.plan = image.plan
        self.w = <Worker*> calloc(1, sizeof(Worker))
        self.w.stats = <WorkerStats*> calloc(1, sizeof(WorkerStats))
        self.w.nodes = other.w.nodes if other is not None else <NodeTable*> calloc(
            1, sizeof(NodeTable))
        self.x = <Exchange*> calloc(REQUESTS, sizeof(Exchange))
        self.clients = <ClientConn*> calloc(REQUESTS, sizeof(ClientConn))
        self.w.index = index
        self.w.snapshot = &self.snapshot
        self.w.limited = True
        for i in range(image.plan.node_count):
            self.w.limits[nodes[i].slot] = nodes[i].max_connections
            self.w.nodes.slots[nodes[i].slot].state = 1
        timer_wheel_init(&self.w.timers, 0)
        self.at(1000)

    def __dealloc__(self):
        queue_free_all(self.w)
        free(self.w.stats)
        if self.other is None:
            free(self.w.nodes)
        free(self.x)
        free(self.clients)
        free(self.w)

    def at(self, uint64_t ms):
        """The clocks say so."""
        self.w.now_us = ms * 1000
        self.w.now_ms = ms
        self.w.boot_ms = ms + 7000000

    def set_limit(self, uint32_t slot, uint32_t limit):
        self.w.limits[slot] = limit

    def set_state(self, uint32_t slot, uint32_t state):
        self.w.nodes.slots[slot].state = state

    def eject(self, uint32_t slot):
        """For good, as far as a test sees."""
        self.w.nodes.slots[slot].ejected_until_ms = self.w.boot_ms + 1000000

    def due(self):
        """Whether the queues are to be looked at again at once."""
        return bool(self.w.queues_due)

    def enter(self, int number, int32_t node=-1, object tried=(), int32_t persistence=0):
        """Waits for a node (index in the pool) or, with -1, for any; whether it may."""
        cdef Exchange* x = &self.x[number]
        if x.client == NULL:
            x.client = &self.clients[number]
            x.snapshot = &self.snapshot
            x.pool = plan_pool(self.image.plan, 0)
            decision_reset(&x.decision)
        x.decision.persistence = persistence
        x.decision.node = node
        x.decision.established = node >= 0 and persistence >= 0
        x.decision.action = ACTION_FORWARD if node >= 0 else ACTION_WAIT
        x.decision.tried_count = <uint32_t> len(tried)
        for i, one in enumerate(tried):
            x.decision.tried[i] = one
        return bool(queue_enter(self.w, x))

    def leave(self, int number):
        queue_leave(self.w, &self.x[number])

    def time_over(self, int number):
        queue_time_over(self.w, &self.x[number])

    def run(self, int room=REQUESTS):
        """Whose turn it was; `room` of them were let in, the next one came back."""
        global _room, _first, _turn_count
        _room = room
        _first = self.x
        _turn_count = 0
        self.w.queues_due = True
        queue_run(self.w, _turn)
        return [_turns[i] for i in range(_turn_count)]

    def waiting(self, uint32_t slot, bint pool=False):
        """Since when the columns say that somebody waits, by this worker's clock; None: nobody."""
        cdef uint32_t since = (self.w.nodes.pools[slot].waiting[self.w.index] if pool
                               else self.w.nodes.slots[slot].waiting[self.w.index])
        return <int64_t> since - 7000000 if since else None

    def admit(self, uint32_t slot, uint32_t limit):
        return bool(node_admit(&self.w.nodes.slots[slot], self.w.index,
                               self.image.plan.columns, limit))

    def set_open(self, uint32_t slot, uint32_t count):
        self.w.nodes.slots[slot].open[self.w.index] = count

    def open(self, uint32_t slot):
        return self.w.nodes.slots[slot].open[self.w.index]

    def limit(self, int32_t node):
        return queue_limit(self.w, &plan_nodes(self.image.plan, plan_pool(
            self.image.plan, 0))[node])

    def counters(self):
        return {
            "waiting": self.w.stats.pools[0].waiting,
            "waited": self.w.stats.pools[0].waited,
            "waited_ms": self.w.stats.pools[0].waited_us // 1000,
            "full": self.w.stats.pools[0].queue_full,
            "timeouts": self.w.stats.pools[0].queue_timeouts,
            "of_nodes": [self.w.stats.nodes[i].waiting for i in range(3)],
        }

    def timer(self, int number):
        """When the request's time is over; 0: it has none."""
        return self.clients[number].timer.deadline_ms
