# Which pool serves a request: the virtual server's routes by host and path, first match wins.

from libc.stdint cimport uint32_t

from fastlb._core.plan cimport Plan, PlanVirtualServer
from fastlb._core.slice cimport Slice

# Index of the pool. `host` without port, in any case; `path` with or without a query.
cdef uint32_t route_pool(const Plan* plan, const PlanVirtualServer* server, Slice host,
                         Slice path) noexcept nogil
# A Host value without its port and without the dot that ends a fully qualified name.
cdef Slice route_host(Slice authority) noexcept nogil
