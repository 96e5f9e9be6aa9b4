# Persistence by the cookie NSC_<id of the virtual server> (`type = "cookie-insert"`).
#
# Without a passphrase the value is the node's address and port as the NetScaler appliance
# writes them, in hexadecimal digits: anybody can read and make one, so it is obeyed only where
# it names a node of the pool (CLASS_LISTED_ONLY).
#
#   value = 4 bytes (ff ff ff ff) || IP 4 or 16, xor 03 08 1e 11, repeated
#           || 12 bytes (45 52 5d 5f 4f 58 45 5e 44 5a 4a 42) || port 2, xor 36 30
#
# The form with 16 bytes, for IPv6, is ours. The bytes in parentheses differ between appliances
# and say nothing: any are taken. With passphrases the value is sealed.pxd's.

from libc.stdint cimport uint32_t

from fastlb._core.address cimport Address
from fastlb._core.persist cimport Finding, PersistInput
from fastlb._core.plan cimport Plan, PlanClass

cdef void persist_cookie_insert_find(const PersistInput* ask, const PlanClass* cls,
                                     Finding* found) noexcept nogil
cdef uint32_t persist_cookie_insert_write(const Plan* plan, const PlanClass* cls,
                                          const Address* node, uint32_t first_seen_s,
                                          uint32_t wall_s, char* out) noexcept nogil
