# What the TLS library asks a server during a handshake, answered without Python: which protocol
# (ALPN, RFC 7301), and which OCSP response is stapled (RFC 6066 8). Contexts are given these
# functions' addresses; nothing else is known here of contexts.

from libc.stdint cimport int64_t, uint32_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy
from libc.time cimport time, time_t

from fastlb._core.tls_library cimport tls

cdef enum:                           # of <openssl/tls1.h>, SSL_TLSEXT_ERR_...
    ANSWER_OK = 0
    ANSWER_ALERT_FATAL = 2
    ANSWER_NONE = 3

ctypedef struct Stapled:
    int64_t until_s                  # its nextUpdate; 0: it has none
    uint32_t bytes
    char data[1]                     # as many


cdef bint _offers(const unsigned char* names, unsigned int count, const char* name,
                  unsigned int name_bytes, const unsigned char** found) noexcept nogil:
    # The library has checked that the lengths add up; this relies on it for nothing.
    cdef unsigned int at = 0
    while at < count and names[at] <= count - at - 1:
        if names[at] == name_bytes and memcmp(names + at + 1, name, name_bytes) == 0:
            found[0] = names + at + 1
            return True
        at += names[at] + <unsigned int> 1
    return False


# A client that speaks ALPN and none of ours is told so (RFC 7301 3.2): it would take the answer
# of another protocol for its own.
cdef int _select_protocol(void* ssl, const unsigned char** chosen, unsigned char* chosen_bytes,
                          const unsigned char* offered, unsigned int count,
                          void* unused) noexcept nogil:
    if not _offers(offered, count, "http/1.1", 8, chosen) \
            and not _offers(offered, count, "http/1.0", 8, chosen):
        return ANSWER_ALERT_FATAL
    chosen_bytes[0] = 8
    return ANSWER_OK


cdef int _staple(void* ssl, void* context) noexcept nogil:
    cdef const Stapled* one = <const Stapled*> context
    cdef void* copy
    if one == NULL or (one.until_s and <int64_t> time(<time_t*> NULL) >= one.until_s):
        return ANSWER_NONE
    copy = tls.OPENSSL_malloc(one.bytes)
    if copy == NULL:
        return ANSWER_NONE
    memcpy(copy, one.data, one.bytes)
    # From here on the connection owns the copy.
    if not tls.SSL_set_tlsext_status_ocsp_resp(ssl, copy, <int> one.bytes):
        return ANSWER_NONE
    return ANSWER_OK


cdef class Staple:
    """An OCSP response in the memory that the callback reads; keep it as long as its context."""

    cdef Stapled* one

    def __cinit__(self, bytes response, int64_t until_s):
        self.one = <Stapled*> malloc(sizeof(Stapled) + len(response))
        if self.one == NULL:
            raise MemoryError("OCSP response")
        self.one.until_s = until_s
        self.one.bytes = <uint32_t> len(response)
        memcpy(self.one.data, <const char*> response, len(response))

    def __dealloc__(self):
        free(self.one)

    @property
    def address(self) -> int:
        """What SSL_CTX_set_tlsext_status_arg is given."""
        return <uintptr_t> self.one


def select_protocol_address() -> int:
    """For SSL_CTX_set_alpn_select_cb."""
    return <uintptr_t> <void*> _select_protocol


def staple_address() -> int:
    """For SSL_CTX_set_tlsext_status_cb."""
    return <uintptr_t> <void*> _staple
