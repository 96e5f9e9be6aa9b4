# The key is the client's address, cut to the class's prefix. An IPv4-mapped IPv6 address
# is the IPv4 client, since Address keeps both alike.

from fastlb._core.address cimport Address, address_cut, address_is_unset
from fastlb._core.outcome cimport OUTCOME_NO_KEY
from fastlb._core.persist cimport Finding, PersistInput, finding_add_key
from fastlb._core.plan cimport KEY_SESSION, PlanClass
from fastlb._core.siphash cimport siphash128


cdef void persist_ip_find(const PersistInput* ask, const PlanClass* cls,
                          Finding* found) noexcept nogil:
    cdef Address source = ask.client[0]
    if address_is_unset(&source):
        # Behind a unix socket all clients would be one.
        found.outcome = OUTCOME_NO_KEY
        return
    address_cut(&source, cls.ipv4_bits, cls.ipv6_bits)
    finding_add_key(found, siphash128(&ask.plan.keys[KEY_SESSION], source.ip, sizeof(source.ip)))
