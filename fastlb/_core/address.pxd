# IP addresses and ports as the core keeps them: 16 bytes, IPv4 as IPv4-mapped IPv6
# (RFC 4291 2.5.5.2), the port in host order. Equality is a memcmp.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

ctypedef struct Address:
    uint8_t ip[16]
    uint16_t port


cdef inline bint address_same_ip(const Address* a, const Address* b) noexcept nogil:
    return memcmp(a.ip, b.ip, 16) == 0


cdef inline bint address_equal(const Address* a, const Address* b) noexcept nogil:
    return a.port == b.port and memcmp(a.ip, b.ip, 16) == 0


# The peer of a unix socket has no address: all bytes are zero ("::").
cdef inline bint address_is_unset(const Address* a) noexcept nogil:
    cdef uint64_t[2] words           # an Address is aligned for its port only
    memcpy(words, a.ip, 16)
    return (words[0] | words[1]) == 0

cdef enum:
    ADDRESS_TEXT_BYTES_MAX = 56      # "[" + 45 + "]:" + 5, and room for a NUL

cdef bint address_is_ipv4(const Address* a) noexcept nogil
# Writes "192.0.2.1" or "2001:db8::1" (RFC 5952); returns the count of bytes written (no NUL).
cdef uint32_t address_ip_text(const Address* a, char* out) noexcept nogil
# Writes "192.0.2.1:80" or "[2001:db8::1]:80".
cdef uint32_t address_text(const Address* a, char* out) noexcept nogil
# Keeps the first `ipv4_bits` or `ipv6_bits` bits of the address and clears the rest and the port.
cdef void address_cut(Address* a, uint32_t ipv4_bits, uint32_t ipv6_bits) noexcept nogil
# "192.0.2.1" or "2001:db8::1" without port; False when it is neither. Port is left alone.
cdef bint address_from_text(Address* a, const char* text, uint32_t count) noexcept nogil
# From a struct sockaddr_in or sockaddr_in6; False when it is neither.
cdef bint address_from_sockaddr(Address* a, const void* sockaddr) noexcept nogil
# The other way; returns the length of what was written.
cdef uint32_t address_to_sockaddr(const Address* a, void* sockaddr) noexcept nogil
