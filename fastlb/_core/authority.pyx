"""Checks host and port as they stand in a request; resolves and rewrites nothing.

    uri-host    = IP-literal / IPv4address / reg-name                  RFC 3986 3.2.2
    IP-literal  = "[" ( IPv6address / IPvFuture ) "]"
    reg-name    = 1*( unreserved / pct-encoded / sub-delims )          not empty: RFC 9110 4.2.1
    port        = *DIGIT                                               at most 65535

IPv4address is a reg-name by its bytes, so it needs no code of its own. Zone identifiers
(RFC 6874) are refused: they mean something on one host only.
"""

from libc.stdint cimport uint32_t

from fastlb._core.scan cimport BYTE_HEX, BYTE_REG_NAME, byte_is
from fastlb._core.slice cimport Slice


cdef bint _port_valid(const char* text, uint32_t count, bint needed) noexcept nogil:
    cdef uint32_t port = 0
    cdef uint32_t i
    for i in range(count):
        if not c'0' <= text[i] <= c'9':
            return False
        port = port * 10 + <uint32_t>(text[i] - c'0')
        if port > 65535:
            return False
    return count > 0 or not needed


# dec-octet "." dec-octet "." dec-octet "." dec-octet, the tail of some IPv6 addresses
cdef bint _ipv4_valid(const char* text, uint32_t count) noexcept nogil:
    cdef uint32_t octet = 0
    cdef uint32_t digits = 0
    cdef uint32_t dots = 0
    cdef uint32_t i
    for i in range(count):
        if text[i] == c'.' and digits > 0:
            dots += 1
            octet = 0
            digits = 0
        elif c'0' <= text[i] <= c'9' and not (digits > 0 and octet == 0):
            octet = octet * 10 + <uint32_t>(text[i] - c'0')
            digits += 1
            if octet > 255:
                return False
        else:
            return False
    return dots == 3 and digits > 0


# Up to eight groups of 1*4HEXDIG; "::" once stands for at least one group that is left out.
cdef bint _ipv6_valid(const char* text, uint32_t count) noexcept nogil:
    cdef uint32_t groups = 0
    cdef uint32_t i = 0
    cdef uint32_t group
    cdef bint elided = False
    if count >= 2 and text[0] == c':' and text[1] == c':':
        elided = True
        i = 2
    while i < count:
        group = i
        while i < count and byte_is(text[i], BYTE_HEX):
            i += 1
        if i < count and text[i] == c'.':
            groups += 2
            return _ipv4_valid(text + group, count - group) and (
                groups < 8 if elided else groups == 8
            )
        if i == group or i - group > 4:
            return False
        groups += 1
        if i == count:
            break
        if text[i] != c':' or i + 1 == count:
            return False
        i += 1
        if text[i] == c':':
            if elided:
                return False
            elided = True
            i += 1
    return groups < 8 if elided else groups == 8


# "v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" )
cdef bint _ipvfuture_valid(const char* text, uint32_t count) noexcept nogil:
    cdef uint32_t i = 1
    cdef uint32_t address
    while i < count and byte_is(text[i], BYTE_HEX):
        i += 1
    if i == 1 or i == count or text[i] != c'.':
        return False
    i += 1
    address = i
    while i < count and (byte_is(text[i], BYTE_REG_NAME) or text[i] == c':'):
        i += 1
    return i == count and i > address


cdef bint _literal_valid(const char* text, uint32_t count) noexcept nogil:
    if count > 0 and (text[0] | 0x20) == c'v':
        return _ipvfuture_valid(text, count)
    return _ipv6_valid(text, count)


cdef bint authority_valid(const char* text, uint32_t count, bint needs_port) noexcept nogil:
    cdef uint32_t i = 0
    if count > 0 and text[0] == c'[':
        while i < count and text[i] != c']':
            i += 1
        if i == count or not _literal_valid(text + 1, i - 1):
            return False
        i += 1
    else:
        while i < count:
            if byte_is(text[i], BYTE_REG_NAME):
                i += 1
            elif (
                text[i] == c'%' and count - i > 2
                and byte_is(text[i + 1], BYTE_HEX) and byte_is(text[i + 2], BYTE_HEX)
            ):
                i += 3
            else:
                break
        if i == 0:
            return False
    if i == count:
        return not needs_port
    return text[i] == c':' and _port_valid(text + i + 1, count - i - 1, needs_port)


cdef Slice authority_host(Slice authority) noexcept nogil:
    cdef uint32_t i = authority.bytes
    while i > 0 and c'0' <= authority.at[i - 1] <= c'9':
        i -= 1
    if i > 0 and authority.at[i - 1] == c':':
        authority.bytes = i - 1
    return authority
