# Who the client is behind proxies in front of us: X-Forwarded-For of `trusted_proxies`.

from fastlb._core.address cimport Address
from fastlb._core.head cimport Head
from fastlb._core.plan cimport Plan, PlanVirtualServer

# Whether the peer is one of the virtual server's trusted proxies.
cdef bint forwarded_trusts(const Plan* plan, const PlanVirtualServer* server,
                           const Address* peer) noexcept nogil
# The last hop of X-Forwarded-For that is not trusted itself; the peer when there is none.
cdef void forwarded_client(const Plan* plan, const PlanVirtualServer* server,
                           const Address* peer, const Head* head, const char* buf,
                           Address* client) noexcept nogil
