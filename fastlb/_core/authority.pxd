# host [ ":" port ]: the value of Host, the authority of an absolute-form or CONNECT target.

from libc.stdint cimport uint32_t

from fastlb._core.slice cimport Slice

# uri-host [ ":" port ] of RFC 3986 3.2.2, 3.2.3, not empty and without userinfo; the port is at
# most 65535, and may be empty unless `needs_port` (CONNECT, RFC 9112 3.2.3).
cdef bint authority_valid(const char* text, uint32_t count, bint needs_port) noexcept nogil
# The host of a valid one, without its port; of an IPv6 address with its brackets.
cdef Slice authority_host(Slice authority) noexcept nogil
