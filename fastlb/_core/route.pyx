# Routes (`routes` in docs/configuration.md). A host, or a server name, is exact or "*.name", which
# matches every name below; case does not count (RFC 9110 4.2.3), nor does the dot of a fully
# qualified name (RFC 1034 3.1). A path is a prefix, compared byte for byte. So is the name of a
# protocol (RFC 7301 6), which may be any of those that the client offers.

from libc.stdint cimport uint32_t
from libc.string cimport memcmp

from fastlb._core.authority cimport authority_host
from fastlb._core.plan cimport Plan, PlanRoute, PlanVirtualServer, plan_routes, plan_text
from fastlb._core.slice cimport Slice, slice_equal_fold, slice_of
from fastlb._core.tls_hello cimport tls_alpn_has


cdef Slice route_host(Slice authority) noexcept nogil:
    cdef Slice host = authority_host(authority)
    if host.bytes > 1 and host.at[host.bytes - 1] == c'.':
        host.bytes -= 1
    return host


cdef bint _host_matches(const char* pattern, uint32_t count, Slice host) noexcept nogil:
    cdef Slice tail
    if count >= 2 and pattern[0] == c'*':
        if host.bytes < count:
            return False
        tail.at = host.at + (host.bytes - (count - 1))
        tail.bytes = count - 1
        return slice_equal_fold(tail, pattern + 1, count - 1)
    return slice_equal_fold(host, pattern, count)


cdef uint32_t route_pool(const Plan* plan, const PlanVirtualServer* server, Slice host,
                         Slice path) noexcept nogil:
    cdef const PlanRoute* route = plan_routes(plan) + server.routes
    cdef uint32_t i
    if path.bytes == 0 or path.at[0] == c'?':
        path = slice_of("/", 1)      # of an absolute target (RFC 9110 4.2.3)
    for i in range(server.route_count):
        if route[i].host.bytes and not _host_matches(plan_text(plan, route[i].host),
                                                     route[i].host.bytes, host):
            continue
        if route[i].path.bytes > path.bytes or memcmp(
                path.at, plan_text(plan, route[i].path), route[i].path.bytes) != 0:
            continue
        return route[i].pool
    return server.pool


cdef uint32_t route_tls_pool(const Plan* plan, const PlanVirtualServer* server, Slice sni,
                             Slice alpn) noexcept nogil:
    cdef const PlanRoute* route = plan_routes(plan) + server.routes
    cdef uint32_t i
    if sni.bytes and sni.at[sni.bytes - 1] == c'.':
        sni.bytes -= 1
    for i in range(server.route_count):
        if route[i].host.bytes or route[i].path.bytes:
            continue                 # there is no request to look at
        if route[i].sni.bytes and not _host_matches(plan_text(plan, route[i].sni),
                                                    route[i].sni.bytes, sni):
            continue
        if route[i].alpn.bytes and not tls_alpn_has(
                alpn, slice_of(plan_text(plan, route[i].alpn), route[i].alpn.bytes)):
            continue
        return route[i].pool
    return server.pool
