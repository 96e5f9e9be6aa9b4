# Which pool serves a request, or a connection of passed-through TLS: the virtual server's
# routes, first match wins.

from libc.stdint cimport uint32_t

from fastlb._core.plan cimport Plan, PlanVirtualServer
from fastlb._core.slice cimport Slice

# Index of the pool. `host` without port, in any case; `path` with or without a query.
cdef uint32_t route_pool(const Plan* plan, const PlanVirtualServer* server, Slice host,
                         Slice path) noexcept nogil
# The same for passed-through TLS: routes by what the ClientHello says.
cdef uint32_t route_tls_pool(const Plan* plan, const PlanVirtualServer* server, Slice sni,
                             Slice alpn) noexcept nogil
# A Host value without its port and without the dot that ends a fully qualified name.
cdef Slice route_host(Slice authority) noexcept nogil
