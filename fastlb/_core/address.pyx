# IP addresses as 16 bytes and as text (RFC 4291, RFC 5952).
# inet_pton and inet_ntop of the C library know the grammars; this module only maps
# IPv4 into ::ffff:0:0/96 and out of it, so that one client is one address.

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memchr, memcmp, memcpy, strlen

cdef extern from * nogil:
    """
    #include <arpa/inet.h>
    #include <netinet/in.h>
    #include <stdint.h>
    #include <string.h>
    #include <sys/socket.h>
    static const uint8_t fastlb_mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

    static int fastlb_sockaddr_read(const void *from, uint8_t *ip, uint16_t *port)
    {
        sa_family_t family = ((const struct sockaddr *)from)->sa_family;
        if (family == AF_INET) {
            const struct sockaddr_in *in = from;
            memcpy(ip, fastlb_mapped, 12);
            memcpy(ip + 12, &in->sin_addr, 4);
            *port = ntohs(in->sin_port);
            return 1;
        }
        if (family == AF_INET6) {
            const struct sockaddr_in6 *in = from;
            memcpy(ip, &in->sin6_addr, 16);
            *port = ntohs(in->sin6_port);
            return 1;
        }
        return 0;
    }

    static uint32_t fastlb_sockaddr_write(void *to, const uint8_t *ip, uint16_t port)
    {
        if (memcmp(ip, fastlb_mapped, 12) == 0) {
            struct sockaddr_in *in = to;
            memset(in, 0, sizeof *in);
            in->sin_family = AF_INET;
            in->sin_port = htons(port);
            memcpy(&in->sin_addr, ip + 12, 4);
            return sizeof *in;
        }
        struct sockaddr_in6 *in = to;
        memset(in, 0, sizeof *in);
        in->sin6_family = AF_INET6;
        in->sin6_port = htons(port);
        memcpy(&in->sin6_addr, ip, 16);
        return sizeof *in;
    }
    """
    const uint8_t fastlb_mapped[12]
    int fastlb_sockaddr_read(const void* sockaddr, uint8_t* ip, uint16_t* port) noexcept
    uint32_t fastlb_sockaddr_write(void* sockaddr, const uint8_t* ip, uint16_t port) noexcept
    int AF_INET
    int AF_INET6
    const char* inet_ntop(int family, const void* source, char* out, uint32_t size) noexcept
    int inet_pton(int family, const char* text, void* out) noexcept


cdef bint address_is_ipv4(const Address* a) noexcept nogil:
    return memcmp(a.ip, fastlb_mapped, 12) == 0


cdef inline uint32_t _decimal(uint32_t value, char* out) noexcept nogil:
    cdef uint32_t at = 0
    cdef uint32_t divisor = 10000
    while divisor > 1 and value < divisor:
        divisor //= 10
    while divisor:
        out[at] = <char> (c'0' + value // divisor % 10)
        at += 1
        divisor //= 10
    return at


cdef uint32_t address_ip_text(const Address* a, char* out) noexcept nogil:
    cdef char text[ADDRESS_TEXT_BYTES_MAX]
    cdef uint32_t at = 0
    cdef int i
    if not address_is_ipv4(a):
        inet_ntop(AF_INET6, a.ip, text, sizeof(text))
        at = <uint32_t> strlen(text)
        memcpy(out, text, at)
        return at
    # By hand: inet_ntop goes through sprintf, and this stands in every forwarded request.
    at = _decimal(a.ip[12], out)
    for i in range(13, 16):
        out[at] = c'.'
        at += 1 + _decimal(a.ip[i], out + at + 1)
    return at


cdef uint32_t address_text(const Address* a, char* out) noexcept nogil:
    cdef uint32_t at = 0
    if address_is_ipv4(a):
        at = address_ip_text(a, out)
    else:
        out[0] = c'['
        at = 1 + address_ip_text(a, out + 1)
        out[at] = c']'
        at += 1
    out[at] = c':'
    at += 1
    return at + _decimal(a.port, out + at)


cdef void address_cut(Address* a, uint32_t ipv4_bits, uint32_t ipv6_bits) noexcept nogil:
    cdef uint32_t bits = 96 + ipv4_bits if address_is_ipv4(a) else ipv6_bits
    cdef uint32_t i
    a.port = 0
    for i in range(16):
        if bits >= 8:
            bits -= 8
        else:
            a.ip[i] &= <uint8_t> (0xFF00 >> bits)
            bits = 0


cdef bint address_from_text(Address* a, const char* text, uint32_t count) noexcept nogil:
    cdef char copy[ADDRESS_TEXT_BYTES_MAX]
    # A NUL would end the text for inet_pton, and what follows it would go unseen.
    if count == 0 or count >= sizeof(copy) or memchr(text, 0, count) != NULL:
        return False
    memcpy(copy, text, count)
    copy[count] = 0
    if inet_pton(AF_INET, copy, &a.ip[12]) == 1:
        memcpy(a.ip, fastlb_mapped, 12)
        return True
    return inet_pton(AF_INET6, copy, a.ip) == 1


cdef bint address_from_sockaddr(Address* a, const void* sockaddr) noexcept nogil:
    return fastlb_sockaddr_read(sockaddr, a.ip, &a.port) == 1


cdef uint32_t address_to_sockaddr(const Address* a, void* sockaddr) noexcept nogil:
    return fastlb_sockaddr_write(sockaddr, a.ip, a.port)
