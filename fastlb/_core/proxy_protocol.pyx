#   v1   "PROXY" SP ("TCP4" | "TCP6") SP source SP destination SP port SP port CRLF
#        "PROXY UNKNOWN" anything CRLF
#   v2   signature (12), version and command, family, length (2), addresses, TLVs
#
# A header that cannot be what it says is malformed, never skipped: behind it the bytes of a
# stranger would be taken for the client's.

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

from fastlb._core.address cimport (
    Address, address_from_text, address_ip_text, address_is_ipv4, address_is_unset,
)
from fastlb._core.slice cimport Slice, slice_of

cdef const char* SIGNATURE = "\r\n\r\n\0\r\nQUIT\n"

cdef enum:
    SIGNATURE_BYTES = 12
    COMMAND_LOCAL = 0x20
    COMMAND_PROXY = 0x21
    FAMILY_UNSPEC = 0
    FAMILY_INET = 1
    FAMILY_INET6 = 2
    FAMILY_UNIX = 3
    TRANSPORT_STREAM = 1
    TLV_ALPN = 0x01
    TLV_AUTHORITY = 0x02
    TLV_CRC32C = 0x03
    TEXT_BYTES_MAX = 255
    CRC32C_POLYNOMIAL = 0x82F63B78   # reflected (RFC 3720 appendix B.4)


# --- version 1 ----------------------------------------------------------------------------

# Takes what stands before the next space off `rest`; False when there is none.
cdef bint _word(Slice* rest, Slice* word) noexcept nogil:
    cdef uint32_t i
    for i in range(rest.bytes):
        if rest.at[i] == c' ':
            word[0] = slice_of(rest.at, i)
            rest.at += i + 1
            rest.bytes -= i + 1
            return i > 0
    return False


cdef bint _port(Slice text, uint16_t* port) noexcept nogil:
    # Decimal, without a leading zero (the specification's words), 0 to 65535.
    cdef uint32_t i, value = 0
    if not 0 < text.bytes <= 5 or (text.bytes > 1 and text.at[0] == c'0'):
        return False
    for i in range(text.bytes):
        if not c'0' <= text.at[i] <= c'9':
            return False
        value = value * 10 + <uint32_t> (text.at[i] - c'0')
    port[0] = <uint16_t> value
    return value <= 65535


cdef bint _family_address(Address* out, Slice text, bint ipv6) noexcept nogil:
    cdef uint32_t i
    cdef bint colon = False
    for i in range(text.bytes):
        colon |= text.at[i] == c':'
    return colon == ipv6 and address_from_text(out, text.at, text.bytes)


cdef bint _read_v1_line(ProxyHeader* header, Slice rest) noexcept nogil:
    # What stands between "PROXY " and CRLF.
    cdef Slice family, source, destination, source_port
    cdef bint ipv6
    if rest.bytes >= 7 and memcmp(rest.at, "UNKNOWN", 7) == 0:
        return rest.bytes == 7 or rest.at[7] == c' '
    if not _word(&rest, &family) or family.bytes != 4 or memcmp(family.at, "TCP", 3) != 0:
        return False
    ipv6 = family.at[3] == c'6'
    if not ipv6 and family.at[3] != c'4':
        return False
    if not _word(&rest, &source) or not _word(&rest, &destination) \
            or not _word(&rest, &source_port):
        return False
    header.has_addresses = True
    return (_family_address(&header.source, source, ipv6)
            and _family_address(&header.destination, destination, ipv6)
            and _port(source_port, &header.source.port) and _port(rest, &header.destination.port))


cdef int _read_v1(ProxyHeader* header, const char* data, uint32_t count) noexcept nogil:
    cdef uint32_t i, end = count if count < PROXY_V1_BYTES_MAX else PROXY_V1_BYTES_MAX
    for i in range(6, end):
        if data[i] == c'\n' or data[i] == 0:
            return PROXY_MALFORMED
        if data[i] != c'\r':
            continue
        if i + 1 == end:
            break
        if data[i + 1] != c'\n':
            return PROXY_MALFORMED
        header.version = 1
        if not _read_v1_line(header, slice_of(data + 6, i - 6)):
            return PROXY_MALFORMED
        return <int> i + 2
    return PROXY_TOO_LONG if count >= PROXY_V1_BYTES_MAX else 0


# --- version 2 ----------------------------------------------------------------------------

cdef inline uint32_t _u16(const char* at) noexcept nogil:
    return (<uint32_t> <uint8_t> at[0] << 8) | <uint8_t> at[1]


cdef inline void _put_u16(char* at, uint32_t value) noexcept nogil:
    at[0] = <char> (value >> 8)
    at[1] = <char> value


cdef inline void _put_ipv4(Address* out, const char* at) noexcept nogil:
    memset(out.ip, 0, 10)
    memset(out.ip + 10, 0xFF, 2)
    memcpy(out.ip + 12, at, 4)


# CRC-32C of the header with its own four bytes, at `crc`, taken as zeros.
cdef uint32_t _crc32c(const char* data, uint32_t count, uint32_t crc) noexcept nogil:
    cdef uint32_t i, _bit
    cdef uint32_t total = 0xFFFFFFFF
    for i in range(count):
        if not crc <= i < crc + 4:
            total ^= <uint8_t> data[i]
        for _bit in range(8):
            total = (total >> 1) ^ (<uint32_t> CRC32C_POLYNOMIAL * (total & 1))
    return total ^ <uint32_t> 0xFFFFFFFF


cdef bint _crc_fits(const char* data, uint32_t total, uint32_t at) noexcept nogil:
    cdef uint32_t said = (_u16(data + at) << 16) | _u16(data + at + 2)
    return _crc32c(data, total, at) == said


cdef bint _read_tlvs(ProxyHeader* header, const char* data, uint32_t at,
                     uint32_t total) noexcept nogil:
    cdef uint32_t kind, count
    while at < total:
        if total - at < 3:
            return False
        kind = <uint8_t> data[at]
        count = _u16(data + at + 1)
        at += 3
        if total - at < count:
            return False
        if kind == TLV_ALPN:
            header.alpn = slice_of(data + at, count)
        elif kind == TLV_AUTHORITY:
            header.authority = slice_of(data + at, count)
        elif kind == TLV_CRC32C and (count != 4 or not _crc_fits(data, total, at)):
            return False
        at += count
    return True


cdef bint _read_v2_body(ProxyHeader* header, const char* data, uint32_t total) noexcept nogil:
    cdef uint32_t family = <uint8_t> data[13] >> 4
    cdef uint32_t transport = <uint8_t> data[13] & 15
    cdef const char* at = data + PROXY_V2_HEADER_BYTES
    cdef uint32_t length = total - PROXY_V2_HEADER_BYTES
    cdef uint32_t addresses = 0
    if family > FAMILY_UNIX or transport > 2:
        return False
    if family == FAMILY_INET:
        addresses = 12
    elif family == FAMILY_INET6:
        addresses = 36
    elif family == FAMILY_UNIX:
        addresses = 216
    if length < addresses:
        return False
    if <uint8_t> data[12] == COMMAND_LOCAL or family == FAMILY_UNSPEC:
        # The addresses, and for LOCAL all that follows, mean nothing.
        return <uint8_t> data[12] == COMMAND_LOCAL or _read_tlvs(
            header, data, PROXY_V2_HEADER_BYTES, total)
    if family == FAMILY_INET and transport == TRANSPORT_STREAM:
        _put_ipv4(&header.source, at)
        _put_ipv4(&header.destination, at + 4)
        header.source.port = <uint16_t> _u16(at + 8)
        header.destination.port = <uint16_t> _u16(at + 10)
        header.has_addresses = True
    elif family == FAMILY_INET6 and transport == TRANSPORT_STREAM:
        memcpy(header.source.ip, at, 16)
        memcpy(header.destination.ip, at + 16, 16)
        header.source.port = <uint16_t> _u16(at + 32)
        header.destination.port = <uint16_t> _u16(at + 34)
        header.has_addresses = True
    return _read_tlvs(header, data, PROXY_V2_HEADER_BYTES + addresses, total)


cdef int _read_v2(ProxyHeader* header, const char* data, uint32_t count) noexcept nogil:
    cdef uint32_t total
    if count >= 13 and <uint8_t> data[12] not in (COMMAND_LOCAL, COMMAND_PROXY):
        return PROXY_MALFORMED
    if count < PROXY_V2_HEADER_BYTES:
        return 0
    total = PROXY_V2_HEADER_BYTES + _u16(data + 14)
    if total > PROXY_V2_BYTES_MAX:
        return PROXY_TOO_LONG
    if count < total:
        return 0
    header.version = 2
    return <int> total if _read_v2_body(header, data, total) else PROXY_MALFORMED


cdef int proxy_header_read(ProxyHeader* header, const char* data, uint32_t count) noexcept nogil:
    cdef uint32_t known
    memset(header, 0, sizeof(ProxyHeader))
    if count == 0:
        return 0
    if data[0] == c'P':
        known = count if count < 6 else 6
        if memcmp(data, "PROXY ", known) != 0:
            return PROXY_ABSENT
        return _read_v1(header, data, count) if count > 6 else 0
    known = count if count < SIGNATURE_BYTES else SIGNATURE_BYTES
    if memcmp(data, SIGNATURE, known) != 0:
        return PROXY_ABSENT
    return _read_v2(header, data, count) if count > SIGNATURE_BYTES else 0


# --- writing ------------------------------------------------------------------------------

cdef inline bint _are_told(const Address* source, const Address* destination) noexcept nogil:
    return (not address_is_unset(source) and not address_is_unset(destination)
            and address_is_ipv4(source) == address_is_ipv4(destination))


cdef char* _text(char* out, const char* text, uint32_t count) noexcept nogil:
    memcpy(out, text, count)
    return out + count


cdef char* _number(char* out, uint32_t value) noexcept nogil:
    cdef char[5] digits
    cdef int i = 0
    while True:
        digits[i] = <char> (c'0' + value % 10)
        value //= 10
        i += 1
        if value == 0:
            break
    while i:
        i -= 1
        out[0] = digits[i]
        out += 1
    return out


cdef uint32_t proxy_v1_write(char* out, const Address* source,
                             const Address* destination) noexcept nogil:
    cdef char* at = out
    if not _are_told(source, destination):
        return <uint32_t> (_text(out, "PROXY UNKNOWN\r\n", 15) - out)
    at = _text(at, "PROXY TCP4 " if address_is_ipv4(source) else "PROXY TCP6 ", 11)
    at += address_ip_text(source, at)
    at = _text(at, " ", 1)
    at += address_ip_text(destination, at)
    at = _text(at, " ", 1)
    at = _number(at, source.port)
    at = _text(at, " ", 1)
    at = _number(at, destination.port)
    return <uint32_t> (_text(at, "\r\n", 2) - out)


cdef char* _tlv(char* out, uint32_t kind, Slice value) noexcept nogil:
    cdef uint32_t count = value.bytes if value.bytes < TEXT_BYTES_MAX else TEXT_BYTES_MAX
    if value.bytes == 0:
        return out
    out[0] = <char> kind
    _put_u16(out + 1, count)
    return _text(out + 3, value.at, count)


cdef uint32_t proxy_v2_write(char* out, const Address* source, const Address* destination,
                             Slice authority, Slice alpn) noexcept nogil:
    cdef char* at = out + PROXY_V2_HEADER_BYTES
    cdef bint told = _are_told(source, destination)
    cdef bint ipv4 = address_is_ipv4(source)
    cdef uint32_t first = 12 if ipv4 else 0, count = 4 if ipv4 else 16
    memcpy(out, SIGNATURE, SIGNATURE_BYTES)
    out[12] = <char> (COMMAND_PROXY if told else COMMAND_LOCAL)
    out[13] = 0
    if told:
        out[13] = <char> ((FAMILY_INET if ipv4 else FAMILY_INET6) << 4 | TRANSPORT_STREAM)
        at = _text(at, <const char*> source.ip + first, count)
        at = _text(at, <const char*> destination.ip + first, count)
        _put_u16(at, source.port)
        _put_u16(at + 2, destination.port)
        at = _tlv(_tlv(at + 4, TLV_ALPN, alpn), TLV_AUTHORITY, authority)
    _put_u16(out + 14, <uint32_t> (at - out) - PROXY_V2_HEADER_BYTES)
    return <uint32_t> (at - out)
