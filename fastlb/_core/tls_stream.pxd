# One TLS connection over a socket: what stream.pyx does for plain text, with the bytes
# encrypted (RFC 8446). The library sees memory only: cipher text is received and sent here, in
# one call each, so that a small request and its answer cost no more calls than in the clear.

from libc.stdint cimport int64_t, uint32_t

from fastlb._core.connection cimport Stream, TlsStream
from fastlb._core.edit cimport iovec

# False when there is no memory. `context` is an SSL_CTX; it may go away before the stream does.
cdef bint tls_open(TlsStream* t, void* context, bint server) noexcept nogil
cdef void tls_close(TlsStream* t) noexcept nogil
# As stream_recv: > 0 bytes of plain text; STREAM_AGAIN; STREAM_END for close_notify; an end
# without it, and any error of the protocol, is STREAM_FAILED. Does the handshake as it goes.
cdef int64_t tls_recv(TlsStream* t, Stream* s, char* into, uint32_t room) noexcept nogil
# As stream_send: bytes of plain text that were taken; 0 while cipher text waits for the socket.
cdef int64_t tls_send(TlsStream* t, Stream* s, const iovec* iov, uint32_t count) noexcept nogil
# Sends what waits: True when nothing does any more. To be called when the socket is writable.
cdef bint tls_flush(TlsStream* t, Stream* s) noexcept nogil
# Whether cipher text waits for the socket.
cdef bint tls_waits(TlsStream* t) noexcept nogil
# close_notify, behind all that was sent.
cdef void tls_shutdown(TlsStream* t, Stream* s) noexcept nogil
