"""A node's health and a pool's retry budget, step by step; for tests only."""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from fastlb._core.connection cimport RetryBudget
from fastlb._core.health cimport (
    TRY_LAST_RESORT, TRY_PROBE, TRY_USUAL, health_answered, health_excuse, health_failed,
    health_is_out, health_may_try_early, health_share, health_state, health_try,
)
from fastlb._core.node cimport NodeSlot
from fastlb._core.node import STATE_NAMES, STATES
from fastlb._core.plan cimport POOL_WATCHED, PlanPool
from fastlb._core.retry_budget cimport retry_budget_request, retry_budget_take
from fastlb._core.stats cimport NodeStats

TRIES = {TRY_USUAL: "usual", TRY_PROBE: "probe", TRY_LAST_RESORT: "last resort"}
NUMBERS = {name: number for number, name in TRIES.items()}


cdef class Watched:
    """A node of a pool that is watched, and a clock in milliseconds."""
    cdef PlanPool pool
    cdef NodeSlot slot
    cdef NodeStats stats
    cdef public uint64_t now_ms

    def __init__(self, *, int failures=5, int errors=0, int errors_of=20, int window=10,
                 int backoff_min=1000, int backoff_max=30000, int slow_start=0):
        memset(&self.pool, 0, sizeof(PlanPool))
        memset(&self.slot, 0, sizeof(NodeSlot))
        memset(&self.stats, 0, sizeof(NodeStats))
        self.now_ms = 1000000
        self.slot.state = STATES["up"]
        self.pool.failures = failures
        self.pool.errors = errors
        self.pool.errors_of = errors_of
        self.pool.window = window
        self.pool.backoff_min = backoff_min
        self.pool.backoff_max = backoff_max
        self.pool.slow_start = slow_start
        self.pool.flags = POOL_WATCHED if failures or errors else 0

    def set_state(self, str name):
        self.slot.state = STATES[name]

    def unwatch(self):
        """As after a reload that switches it off."""
        self.pool.flags = 0

    @property
    def state(self):
        return STATE_NAMES[health_state(&self.pool, &self.slot, self.now_ms)]

    @property
    def out(self):
        return bool(health_is_out(&self.pool, &self.slot, self.now_ms))

    @property
    def left_ms(self):
        """Of the ejection; None: it is not ejected, 0: its probe is due."""
        if self.slot.ejected_until_ms == 0:
            return None
        return max(<int64_t> (self.slot.ejected_until_ms - self.now_ms), 0)

    @property
    def ejections(self):
        return self.slot.ejections

    @property
    def returned_at_ms(self):
        return self.slot.returned_at_ms

    @property
    def counted(self):
        return {"ejections": self.stats.ejections, "probes": self.stats.probes,
                "errors": self.stats.errors}

    @property
    def may_try_early(self):
        return bool(health_may_try_early(&self.pool, &self.slot, self.now_ms))

    def try_it(self, uint32_t probe_ms=3000, bint early=False):
        return TRIES[health_try(&self.pool, &self.slot, &self.stats, self.now_ms, probe_ms, early)]

    def failed(self, str tried="usual"):
        cdef int how = NUMBERS[tried]
        health_failed(&self.pool, &self.slot, &self.stats, self.now_ms, how)

    def excuse(self):
        health_excuse(&self.pool, &self.slot, self.now_ms)

    def answered(self, str tried="usual", int status=200):
        cdef int how = NUMBERS[tried]
        health_answered(&self.pool, &self.slot, &self.stats, self.now_ms, how, status)

    def returned(self):
        self.slot.returned_at_ms = self.now_ms

    @property
    def share(self):
        return health_share(&self.pool, &self.slot, self.now_ms)


cdef class Budget:
    """Of one pool in one worker; and a clock in milliseconds."""
    cdef RetryBudget budget
    cdef public uint64_t now_ms

    def __init__(self, uint64_t now_ms=1000000):
        memset(&self.budget, 0, sizeof(RetryBudget))
        self.now_ms = now_ms

    def requests(self, int count=1):
        for _ in range(count):
            retry_budget_request(&self.budget, self.now_ms)

    def take(self, uint32_t percent=20):
        return bool(retry_budget_take(&self.budget, percent, self.now_ms))
