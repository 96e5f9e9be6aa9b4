# The PROXY protocol, versions 1 and 2 ("The PROXY protocol", W. Tarreau, haproxy.org): what a
# proxy in front tells of the client, ahead of the connection's own bytes. Reading and writing;
# whom to believe is the caller's.

from libc.stdint cimport uint8_t, uint32_t

from fastlb._core.address cimport Address
from fastlb._core.slice cimport Slice

cdef enum:
    PROXY_V1_BYTES_MAX = 107         # with its CRLF
    PROXY_V2_HEADER_BYTES = 16
    PROXY_V2_BYTES_MAX = 4096        # header and all that follows it
    PROXY_WRITE_BYTES_MAX = 600      # room that proxy_v1_write and proxy_v2_write need

cdef enum ProxyError:
    PROXY_ABSENT = -1                # begins as no PROXY header
    PROXY_MALFORMED = -2
    PROXY_TOO_LONG = -3

ctypedef struct ProxyHeader:         # slices point into the bytes that were read
    uint8_t version                  # 1 or 2
    uint8_t has_addresses            # else UNKNOWN, LOCAL, or a family without IP addresses
    Address source                   # the client
    Address destination              # where it connected to
    Slice authority                  # PP2_TYPE_AUTHORITY, the server name; empty: none
    Slice alpn                       # PP2_TYPE_ALPN; empty: none

# > 0: the header's bytes; 0: more is needed; else a ProxyError.
cdef int proxy_header_read(ProxyHeader* header, const char* data, uint32_t count) noexcept nogil
# Write a header for the connection from `source` to `destination`; return its length. Addresses
# of two families, or none (a unix socket), become UNKNOWN in version 1 and LOCAL in version 2.
cdef uint32_t proxy_v1_write(char* out, const Address* source,
                             const Address* destination) noexcept nogil
# `authority` and `alpn` (one name) are left out when empty; at most 255 bytes of each.
cdef uint32_t proxy_v2_write(char* out, const Address* source, const Address* destination,
                             Slice authority, Slice alpn) noexcept nogil
