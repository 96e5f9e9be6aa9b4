# One TLS connection over a socket: what stream.pyx does for plain text, with the bytes
# encrypted (RFC 8446, RFC 5246). The library sees memory only: cipher text is received and sent
# here, in one call each, so that a small request and its answer cost no more calls than in the
# clear.
#
# Stream.ready speaks of plain text: READABLE also while the library holds some that was not
# read, WRITABLE only while no cipher text waits for the socket.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from fastlb._core.connection cimport Stream, TlsStream
from fastlb._core.edit cimport iovec

# A connection by `context`, an SSL_CTX that may go away before it does; NULL when there is no
# memory. The caller makes it the stream's.
cdef TlsStream* tls_open(void* context, bint server) noexcept nogil
cdef void tls_close(TlsStream* t) noexcept nogil
# Cipher text that was received before the stream became a TLS one. False: no memory.
cdef bint tls_feed(TlsStream* t, const char* data, uint32_t count) noexcept nogil
# The handshake as far as it goes: > 0 when it is done, and what it wrote last is to be flushed, or
# goes with what is sent next; STREAM_AGAIN; STREAM_END when the peer
# has left; STREAM_FAILED, with the alert sent that says why.
cdef int tls_handshake(TlsStream* t, Stream* s) noexcept nogil
# As stream_recv: > 0 bytes of plain text; STREAM_AGAIN; STREAM_END for close_notify; an end
# without it, and any error of the protocol, is STREAM_FAILED.
cdef int64_t tls_recv(TlsStream* t, Stream* s, char* into, uint32_t room) noexcept nogil
# As stream_send: bytes of plain text that were taken, fewer than all while cipher text waits.
cdef int64_t tls_send(TlsStream* t, Stream* s, const iovec* iov, uint32_t count) noexcept nogil
# Sends what waits: True when nothing does any more.
cdef bint tls_flush(TlsStream* t, Stream* s) noexcept nogil
# Epoll's events: stream_note has noted them in s.ready, but for room to write.
cdef void tls_note(TlsStream* t, Stream* s, uint32_t events) noexcept nogil
# close_notify, and the end of the socket behind it.
cdef void tls_shutdown(TlsStream* t, Stream* s) noexcept nogil
# close_notify, if it can be sent now. The socket is about to be closed.
cdef void tls_farewell(TlsStream* t, Stream* s) noexcept nogil
# The connection rests: memory that a burst has left goes back.
cdef void tls_rest(TlsStream* t) noexcept nogil
# Connections open in this process.
cdef uint64_t tls_count() noexcept nogil
cdef void tls_free_all() noexcept nogil
