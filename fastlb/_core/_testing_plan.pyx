"""def functions over plan, route and forwarded; for tests only."""

from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from fastlb._core._testing_arena cimport arena_place
from fastlb._core.address cimport Address, address_from_text
from fastlb._core.forwarded cimport forwarded_client, forwarded_trusts
from fastlb._core.head cimport Head, HeadLimits, head_reset, request_head_parse
from fastlb._core.plan cimport (
    PLAN_KEYS, Plan, PlanClass, PlanListener, PlanNode, PlanPool, PlanRoute, PlanVirtualServer,
    Text, plan_check, plan_class, plan_cookie_names, plan_listener, plan_network_has,
    plan_networks, plan_nodes, plan_pool, plan_routes, plan_text, plan_virtual_server,
)
from fastlb._core.resolve cimport resolve_listed
from fastlb._core.route cimport route_host, route_pool, route_tls_pool
from fastlb._core.slice cimport Slice, slice_of
from fastlb._core.system cimport clock_us

cdef extern from "<stdlib.h>" nogil:
    void* aligned_alloc(size_t alignment, size_t size) noexcept


cdef Address _parsed(str ip, int port=0) except *:
    cdef Address a
    memset(&a, 0, sizeof(a))
    text = ip.encode()
    if not address_from_text(&a, text, <uint32_t>len(text)):
        raise ValueError(ip)
    a.port = port
    return a


def check(bytes blob, bytes_said=None):
    """plan_check of a copy whose end is the end of what can be read."""
    cdef size_t count = len(blob)
    cdef char* copy = <char*>malloc(count + 1)
    try:
        memcpy(copy, <const char*>blob, count)
        return plan_check(<Plan*>copy, count if bytes_said is None else bytes_said)
    finally:
        free(copy)


def plan_bytes():
    """The size of the plan's own struct, which a blob begins with."""
    return sizeof(Plan)


cdef class PlanImage:
    """A blob, aligned as a mapping is."""

    def __init__(self, bytes blob):
        self.count = len(blob)
        self.plan = <Plan*>aligned_alloc(64, (self.count + 63) // 64 * 64)
        memcpy(self.plan, <const char*>blob, self.count)
        if plan_check(self.plan, self.count) != 0:
            raise ValueError("not a plan")

    def __dealloc__(self):
        free(self.plan)

    cdef str _text(self, Text text):
        cdef const char* at = plan_text(self.plan, text)
        if text.offset + text.bytes + 1 > self.count or at[text.bytes] != 0:
            raise AssertionError("a text outside of the plan, or without its NUL")
        return at[:text.bytes].decode("utf-8", "surrogateescape")

    # ---- reading it back ----

    def scalars(self):
        cdef Plan* plan = self.plan
        return {
            "bytes": plan.bytes, "generation": plan.generation, "workers": plan.workers,
            "log_format": plan.log_format, "node_table_offset": plan.node_table_offset,
            "epoch_ms": plan.epoch_ms, "limits": plan.limits, "timeouts": plan.timeouts,
            "keys": [(plan.keys[<int>i].k0, plan.keys[<int>i].k1) for i in range(<int>PLAN_KEYS)],
        }

    def offsets(self):
        cdef Plan* plan = self.plan
        return [plan.listeners, plan.virtual_servers, plan.pools, plan.classes, plan.nodes,
                plan.routes, plan.networks]

    def listeners(self):
        cdef const PlanListener* one
        cdef uint32_t i
        rows = []
        for i in range(self.plan.listener_count):
            one = plan_listener(self.plan, i)
            rows.append((one.id, one.virtual_server))
        return rows

    def virtual_servers(self):
        cdef const PlanVirtualServer* one
        cdef uint32_t i
        rows = []
        for i in range(self.plan.virtual_server_count):
            one = plan_virtual_server(self.plan, i)
            rows.append({
                "name": self._text(one.name), "slot": one.slot, "protocol": one.protocol,
                "pool": one.pool, "routes": (one.routes, one.route_count),
                "trusted": (one.trusted, one.trusted_count),
                "decision": (one.decision, one.decision_count),
            })
        return rows

    def routes(self):
        cdef const PlanRoute* one = plan_routes(self.plan)
        cdef uint32_t i
        return [(self._text(one[i].host), self._text(one[i].path), one[i].pool)
                for i in range(self.plan.route_count)]

    def pools(self):
        cdef const PlanPool* one
        cdef const uint16_t* schedule
        cdef uint32_t i, j
        rows = []
        for i in range(self.plan.pool_count):
            one = plan_pool(self.plan, i)
            schedule = <const uint16_t*>(<const char*>self.plan + one.schedule)
            rows.append({
                "name": self._text(one.name), "slot": one.slot, "algorithm": one.algorithm,
                "first_node": one.nodes, "node_count": one.node_count,
                "persistence": one.persistence, "retries": one.retries, "flags": one.flags,
                "schedule": [schedule[j] for j in range(one.schedule_count)],
            })
        return rows

    def nodes(self, uint32_t pool):
        cdef const PlanPool* of = plan_pool(self.plan, pool)
        cdef const PlanNode* one = plan_nodes(self.plan, of)
        cdef uint32_t i
        return [{
            "ip": (<const char*>one[i].address.ip)[:16], "port": one[i].address.port,
            "flags": one[i].flags, "slot": one[i].slot, "weight": one[i].weight,
            "max_connections": one[i].max_connections, "hash_seed": one[i].hash_seed,
            "name": self._text(one[i].name),
        } for i in range(of.node_count)]

    def classes(self):
        cdef const PlanClass* one
        cdef uint32_t i, j
        rows = []
        for i in range(self.plan.class_count):
            one = plan_class(self.plan, i)
            rows.append({
                "name": self._text(one.name), "id": one.id, "slot": one.slot, "type": one.type,
                "fallback": one.fallback, "failure_mode": one.failure_mode, "flags": one.flags,
                "redirect_url": self._text(one.redirect_url), "ipv4_bits": one.ipv4_bits,
                "ipv6_bits": one.ipv6_bits, "cache": (one.cache_offset, one.cache_bytes),
                "expiry_ticks": one.expiry_ticks, "reserve_ticks": one.reserve_ticks,
                "reservations": (one.reservations_offset, one.reservations_bytes),
                "timeout_s": one.timeout_s, "max_lifetime_s": one.max_lifetime_s,
                "cookie_names": [
                    (self._text(plan_cookie_names(self.plan, one)[j].name),
                     plan_cookie_names(self.plan, one)[j].virtual_server)
                    for j in range(one.cookie_name_count)
                ],
                "cookie_tail": self._text(one.cookie_tail),
            })
        return rows

    def networks(self, uint32_t count):
        cdef uint32_t i
        return [((<const char*>plan_networks(self.plan)[i].ip)[:16],
                 plan_networks(self.plan)[i].bits) for i in range(count)]

    # ---- what is asked of it ----

    def network_has(self, uint32_t first, uint32_t count, str ip):
        cdef Address a = _parsed(ip)
        return bool(plan_network_has(self.plan, first, count, &a))

    def resolve(self, str ip, uint32_t port, uint32_t pool=0):
        """Index of the node that a map of this address leads to; -1: none."""
        cdef Address a = _parsed(ip)
        a.port = <uint16_t>port
        return resolve_listed(self.plan, plan_pool(self.plan, pool), &a)

    def resolve_time(self, str ip, uint32_t port, uint32_t rounds):
        """Nanoseconds of one look-up."""
        cdef Address a = _parsed(ip)
        cdef uint32_t _i
        cdef int32_t found = 0
        cdef uint64_t before = clock_us()
        a.port = <uint16_t>port
        for _i in range(rounds):
            found ^= resolve_listed(self.plan, plan_pool(self.plan, 0), &a)
        return (clock_us() - before) * 1000 / rounds, found

    def route(self, uint32_t server, bytes host, bytes path):
        """Index of the pool; the path is followed by memory that cannot be read."""
        cdef Slice host_slice = slice_of(host, <uint32_t>len(host))
        cdef const char* at = arena_place(path, len(path))
        cdef Slice path_slice = slice_of(at, <uint32_t>len(path))
        cdef const PlanVirtualServer* of = plan_virtual_server(self.plan, server)
        return route_pool(self.plan, of, host_slice, path_slice)

    def route_tls(self, uint32_t server, bytes sni, list alpn):
        """Index of the pool of a ClientHello with this server name and these protocols."""
        names = b"".join(bytes([len(one)]) + one for one in alpn)
        cdef const char* name_at = arena_place(sni, len(sni))
        cdef Slice sni_slice = slice_of(name_at, <uint32_t>len(sni))
        cdef Slice alpn_slice = slice_of(<const char*>names, <uint32_t>len(names))
        return route_tls_pool(self.plan, plan_virtual_server(self.plan, server), sni_slice,
                              alpn_slice)

    def trusts(self, uint32_t server, str peer):
        cdef Address a = _parsed(peer)
        cdef const PlanVirtualServer* of = plan_virtual_server(self.plan, server)
        return bool(forwarded_trusts(self.plan, of, &a))

    def client(self, uint32_t server, str peer, bytes data):
        """(16 bytes, port) of the client of a request whose whole head is `data`."""
        cdef Address peer_address = _parsed(peer, 4711)
        cdef Address client
        cdef HeadLimits limits
        cdef const PlanVirtualServer* of = plan_virtual_server(self.plan, server)
        cdef Head* head = <Head*>malloc(sizeof(Head))
        cdef const char* at = data
        cdef int count = <int>len(data)
        limits.request_line_bytes = 8192
        limits.field_bytes = 0
        limits.empty_lines = 4
        limits.head_bytes = 65536
        limits.field_count = 128
        try:
            head_reset(head)
            if request_head_parse(head, at, <uint32_t>count, &limits) != count:
                raise ValueError("not a head")
            forwarded_client(self.plan, of, &peer_address, head, at, &client)
        finally:
            free(head)
        return (<char*>client.ip)[:16], client.port


def host_of(bytes authority):
    cdef const char* at = arena_place(authority, len(authority))
    cdef uint32_t count = <uint32_t>len(authority)
    cdef Slice host = route_host(slice_of(at, count))
    return host.at[:host.bytes]
