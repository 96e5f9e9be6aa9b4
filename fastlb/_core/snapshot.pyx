# Mapping and unmapping of plans (contract in snapshot.pxd). This is the only place after
# start-up that allocates by size of the configuration, and only at a reload.

from libc.stdint cimport int16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from fastlb._core cimport system
from fastlb._core.buffer cimport buffer_pool_limit
from fastlb._core.connection cimport Snapshot, Worker
from fastlb._core.debug cimport BUG_ON
from fastlb._core.hooks cimport (
    hooks_prepare, hooks_rules_build, hooks_rules_release, hooks_tls_build, hooks_tls_release,
)
from fastlb._core.limits cimport VIRTUAL_SERVERS_MAX
from fastlb._core.node cimport NodeTable
from fastlb._core.plan cimport (
    CLASS_HAS_CACHE, Plan, PlanClass, PlanNode, plan_check, plan_class, plan_text,
    plan_virtual_server,
)
from fastlb._core.rule_shared cimport rule_shared_use
from fastlb._core.session_layout cimport session_cache_open
from fastlb._core.session_shard cimport SessionCache
from fastlb._core.timer cimport timer_set


cdef extern from * nogil:
    """
    #include <sys/stat.h>
    static long long fastlb_file_bytes(int fd)
    {
        struct stat about;
        return fstat(fd, &about) < 0 ? -1 : (long long)about.st_size;
    }
    """
    long long fastlb_file_bytes(int fd) noexcept


cdef bint _open_caches(Worker* w, Snapshot* s) noexcept nogil:
    cdef const PlanClass* cls
    cdef uint32_t i
    for i in range(s.plan.class_count):
        cls = plan_class(s.plan, i)
        if cls.flags & CLASS_HAS_CACHE and session_cache_open(
                &s.caches[i], w.segment + cls.cache_offset, cls.cache_bytes) < 0:
            return False
        if cls.reserve_ticks and session_cache_open(
                &s.reservations[i], w.segment + cls.reservations_offset,
                cls.reservations_bytes) < 0:
            return False
    return True


cdef void _prepare_hooks(const Plan* plan) noexcept nogil:
    cdef uint32_t i
    for i in range(plan.class_count):
        if plan_class(plan, i).passphrase_count:
            hooks_prepare()
            return


cdef bint _open_contexts(Snapshot* s) noexcept nogil:
    if s.plan.tls.context_count == 0:
        return True
    s.contexts = hooks_tls_build(plan_text(s.plan, s.plan.tls.material),
                                 s.plan.tls.material.bytes, s.plan.tls.context_count)
    return s.contexts != NULL


cdef void _use_shared(Worker* w, const Plan* plan) noexcept nogil:
    if plan.rules.shared_bytes:
        rule_shared_use(w.segment + plan.rules.shared_offset, plan.rules.shared_bytes)


cdef bint _open_rules(Worker* w, Snapshot* s) noexcept nogil:
    cdef uint32_t i
    if w.snapshot == NULL:
        _use_shared(w, s.plan)       # modules may count as soon as they are imported
    for i in range(s.plan.virtual_server_count):
        if plan_virtual_server(s.plan, i).rule_count:
            s.rules = hooks_rules_build(s.plan)
            return s.rules != NULL
    return True


cdef void _destroy(Snapshot* s) noexcept nogil:
    if s.rules != NULL:
        hooks_rules_release(s.rules)
    if s.contexts != NULL:
        hooks_tls_release(s.contexts)
    if s.plan != NULL:
        system.munmap(<void*> s.plan, s.plan.bytes)
    if s.fd >= 0:
        system.close(s.fd)
    free(s.caches)
    free(s.reservations)
    free(s)


cdef Snapshot* snapshot_map(Worker* w, int fd) noexcept nogil:
    cdef Snapshot* s
    cdef long long size = fastlb_file_bytes(fd)
    cdef void* at
    if size <= 0:
        return NULL
    s = <Snapshot*> calloc(1, sizeof(Snapshot))
    if s == NULL:
        return NULL
    s.fd = -1
    at = system.mmap(NULL, <size_t> size, system.PROT_READ, system.MAP_SHARED, fd, 0)
    if at == system.MAP_FAILED:
        free(s)
        return NULL
    if plan_check(<const Plan*> at, <uint64_t> size) < 0:
        system.munmap(at, <size_t> size)
        free(s)
        return NULL
    s.plan = <const Plan*> at
    s.caches = <SessionCache*> calloc(s.plan.class_count + 1, sizeof(SessionCache))
    s.reservations = <SessionCache*> calloc(s.plan.class_count + 1, sizeof(SessionCache))
    if s.caches == NULL or s.reservations == NULL or not _open_caches(w, s):
        _destroy(s)
        return NULL
    # Rules last: once their modules are changed, nothing may fail any more.
    if not _open_contexts(s) or not _open_rules(w, s):
        _destroy(s)
        return NULL
    _prepare_hooks(s.plan)
    s.fd = fd
    return s


# Requests that began with an older plan go on in the caches of the one in force: what a late
# answer teaches would be lost in a cache that is replaced (another `size`).
cdef void _follow_caches(Snapshot* older, const Snapshot* current) noexcept nogil:
    cdef const PlanClass* old
    cdef const PlanClass* new
    cdef uint32_t i, j
    for i in range(older.plan.class_count):
        old = plan_class(older.plan, i)
        for j in range(current.plan.class_count):
            new = plan_class(current.plan, j)
            if new.slot == old.slot and new.type == old.type:
                if old.flags & CLASS_HAS_CACHE:
                    older.caches[i] = current.caches[j]
                break


# Of the plan in force, for requests of older plans too.
cdef void _note_limits(Worker* w, const Plan* plan) noexcept nogil:
    cdef const PlanNode* nodes = <const PlanNode*> (<const char*> plan + plan.nodes)
    cdef uint32_t i
    memset(w.limits, 0xFF, sizeof(w.limits))
    for i in range(plan.node_count):
        w.limits[nodes[i].slot] = nodes[i].max_connections
        w.limited |= nodes[i].max_connections != 0
    if w.limited:
        timer_set(&w.timers, &w.queue_timer, w.now_ms)
        w.queues_due = True


cdef void snapshot_enter(Worker* w, Snapshot* snapshot) noexcept nogil:
    cdef Snapshot* before = w.snapshot
    cdef const Plan* plan = snapshot.plan
    cdef Snapshot* older = w.snapshots
    cdef int i
    while older != NULL:
        _follow_caches(older, snapshot)
        older = older.next
    snapshot.references = 1
    snapshot.next = w.snapshots
    w.snapshots = snapshot
    w.snapshot = snapshot
    w.nodes = <NodeTable*> (w.segment + plan.node_table_offset)
    buffer_pool_limit(&w.buffers, plan.limits.buffer_bytes)
    w.stats.generation = plan.generation
    _use_shared(w, plan)
    for i in range(VIRTUAL_SERVERS_MAX):
        w.server_index[i] = -1
    for i in range(<int> plan.virtual_server_count):
        w.server_index[plan_virtual_server(plan, i).slot] = <int16_t> i
    _note_limits(w, plan)
    if before != NULL:
        snapshot_release(w, before)


cdef void snapshot_release(Worker* w, Snapshot* snapshot) noexcept nogil:
    cdef Snapshot** link = &w.snapshots
    BUG_ON(snapshot.references == 0)
    snapshot.references -= 1
    if snapshot.references:
        return
    while link[0] != snapshot:
        link = &link[0].next
    link[0] = snapshot.next
    _destroy(snapshot)
