"""def functions over tls_hello and proxy_protocol; for tests only."""

from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastlb._core._testing_arena cimport arena_place
from fastlb._core.address cimport (
    ADDRESS_TEXT_BYTES_MAX, Address, address_from_text, address_text,
)
from fastlb._core cimport system
from fastlb._core.connection cimport (
    STREAM_ERROR, STREAM_READABLE, STREAM_WRITABLE, Stream, TlsStream,
)
from fastlb._core.edit cimport iovec
from fastlb._core.proxy_protocol cimport (
    PROXY_ABSENT, PROXY_MALFORMED, PROXY_TOO_LONG, PROXY_WRITE_BYTES_MAX, ProxyHeader,
    proxy_header_read, proxy_v1_write, proxy_v2_write,
)
from fastlb._core.siphash cimport Hash128, SipKey
from fastlb._core.slice cimport Slice, slice_of
from fastlb._core.stream cimport STREAM_AGAIN, STREAM_END, STREAM_FAILED, stream_note
from fastlb._core.tls_hello cimport (
    TLS_FLIGHT_OVER, TLS_HELLO_BYTES_MAX, TLS_MALFORMED, TLS_NOT_TLS, TLS_TOO_LONG,
    TlsClientHello, TlsServerFlight, tls_alpn_has, tls_client_hello, tls_server_flight,
    tls_server_flight_begin, tls_session_id_hash, tls_ticket_hash,
)
from fastlb._core.tls_stream cimport (
    tls_close, tls_count, tls_feed, tls_flush, tls_handshake, tls_open,
    tls_recv, tls_rest, tls_send, tls_shutdown,
)

RESULTS: dict = {STREAM_AGAIN: "again", STREAM_END: "end", STREAM_FAILED: "failed"}
ERRORS: dict = {TLS_NOT_TLS: "not-tls", TLS_MALFORMED: "malformed", TLS_TOO_LONG: "too-long"}


cdef SipKey _key() noexcept:
    cdef SipKey key
    key.k0 = 0x0706050403020100
    key.k1 = 0x0F0E0D0C0B0A0908
    return key


cdef bytes _slice(Slice s):
    return s.at[:s.bytes] if s.bytes else b""


def client_hello(bytes data, object cuts=None):
    """What a ClientHello says, None while more is needed, or the name of an error.

    The bytes arrive in pieces that end at `cuts`, and are followed by memory that can't be read.
    """
    cdef TlsClientHello hello
    cdef const char* at
    cdef char* joined = <char*>malloc(<size_t>TLS_HELLO_BYTES_MAX)
    cdef int result = 0
    memset(&hello, 0, sizeof(hello))
    try:
        for end in list(cuts or []) + [len(data)]:
            at = arena_place(data[:end], end)
            result = tls_client_hello(&hello, at, end, joined)
            if result:
                break
        if result < 0:
            return ERRORS.get(result)
        if result == 0:
            return None
        return {
            "records": result, "version": hello.version, "session_id": _slice(hello.session_id),
            "ticket": _slice(hello.ticket), "sni": _slice(hello.sni), "alpn": _slice(hello.alpn),
            "offers_ticket": bool(hello.offers_ticket), "offers_tls13": bool(hello.offers_tls13),
            "has_psk": bool(hello.has_psk), "psk": _slice(hello.psk),
        }
    finally:
        free(joined)


def alpn_has(bytes names, bytes name):
    return bool(tls_alpn_has(slice_of(names, <uint32_t>len(names)),
                             slice_of(name, <uint32_t>len(name))))


def server_flight(list pieces):
    """What was read of a server's side that came in these pieces."""
    cdef TlsServerFlight flight
    cdef SipKey key = _key()
    cdef const char* at
    cdef int over = 0
    cdef bytes piece
    tls_server_flight_begin(&flight)
    for piece in pieces:
        at = arena_place(piece, len(piece))
        over = tls_server_flight(&flight, &key, at, <uint32_t>len(piece))
    return {
        "over": over == TLS_FLIGHT_OVER, "hello": bool(flight.hello_seen),
        "tls13": bool(flight.is_tls13), "version": flight.version if flight.hello_seen else None,
        "session_id": flight.session_id[:flight.session_id_bytes] if flight.hello_seen else None,
        "ticket": (<char*>&flight.ticket)[:16] if flight.ticket_seen else None,
    }


def ticket_hash(bytes ticket):
    cdef SipKey key = _key()
    cdef Hash128 hash = tls_ticket_hash(&key, slice_of(ticket, <uint32_t>len(ticket)))
    return (<char*>&hash)[:16]


def session_id_hash(bytes session_id):
    cdef SipKey key = _key()
    cdef Hash128 hash = tls_session_id_hash(&key, slice_of(session_id, <uint32_t>len(session_id)))
    return (<char*>&hash)[:16]


# ---- PROXY protocol ----


PROXY_ERRORS: dict = {
    PROXY_ABSENT: "absent", PROXY_MALFORMED: "malformed", PROXY_TOO_LONG: "too-long",
}


cdef str _address(const Address* a):
    cdef char out[ADDRESS_TEXT_BYTES_MAX]
    return out[:address_text(a, out)].decode()


cdef Address _parsed(object pair) except *:
    cdef Address a
    memset(&a, 0, sizeof(a))
    if pair is not None:
        text = pair[0].encode()
        if not address_from_text(&a, text, <uint32_t>len(text)):
            raise ValueError(pair)
        a.port = pair[1]
    return a


def proxy_read(bytes data):
    """What a PROXY header says, None while more is needed, or the name of an error."""
    cdef ProxyHeader header
    cdef int result = proxy_header_read(&header, arena_place(data, len(data)),
                                        <uint32_t>len(data))
    if result < 0:
        return PROXY_ERRORS.get(result)
    if result == 0:
        return None
    return {
        "bytes": result, "version": header.version,
        "source": _address(&header.source) if header.has_addresses else None,
        "destination": _address(&header.destination) if header.has_addresses else None,
        "authority": _slice(header.authority), "alpn": _slice(header.alpn),
    }


def proxy_write(int version, object source, object destination, bytes authority=b"",
                bytes alpn=b""):
    cdef char out[PROXY_WRITE_BYTES_MAX]
    cdef Address a = _parsed(source)
    cdef Address b = _parsed(destination)
    if version == 1:
        return out[:proxy_v1_write(out, &a, &b)]
    return out[:proxy_v2_write(out, &a, &b, slice_of(authority, <uint32_t>len(authority)),
                               slice_of(alpn, <uint32_t>len(alpn)))]


# ---- a TLS stream over a socket ----


cdef class TlsEnd:
    """The core's side of a TLS connection over a connected, non-blocking socket."""

    cdef TlsStream* t
    cdef Stream s

    def __init__(self, int fd, size_t context, bint server=True):
        memset(&self.s, 0, sizeof(self.s))
        self.s.fd = fd
        self.s.ready = STREAM_READABLE | STREAM_WRITABLE
        self.t = tls_open(<void*>context, server)
        if self.t == NULL:
            raise MemoryError("no TLS stream")
        self.s.tls = self.t

    def __dealloc__(self):
        if self.t != NULL:
            tls_close(self.t)

    def note(self, bint readable, bint writable):
        """What epoll would say."""
        stream_note(&self.s, system.EPOLLIN * readable | system.EPOLLOUT * writable)

    def feed(self, bytes data):
        """Cipher text that came before."""
        return bool(tls_feed(self.t, data, <uint32_t>len(data)))

    def handshake(self):
        """True when it is done, else "again", "end", "failed"."""
        cdef int result = tls_handshake(self.t, &self.s)
        if result > 0:
            tls_flush(self.t, &self.s)
        return True if result > 0 else RESULTS[result]

    def rest(self):
        tls_rest(self.t)

    def recv(self, int room=65536):
        """Bytes, or "again", "end", "failed"."""
        cdef char* into = <char*>malloc(room)
        try:
            got = tls_recv(self.t, &self.s, into, room)
            if got > 0:
                return into[:got]
            return RESULTS[got]
        finally:
            free(into)

    def send(self, list pieces):
        """Bytes taken."""
        cdef iovec[64] iov
        cdef int i
        for i in range(len(pieces)):
            iov[i].iov_base = <char*>(<bytes>pieces[i])
            iov[i].iov_len = len(pieces[i])
        cdef uint32_t count = <uint32_t>len(pieces)
        return tls_send(self.t, &self.s, iov, count)

    def flush(self):
        return bool(tls_flush(self.t, &self.s))

    def waits(self):
        return self.t.waiting

    def shutdown(self):
        tls_shutdown(self.t, &self.s)

    @property
    def state(self):
        return {"established": bool(self.t.established), "ended": bool(self.t.ended),
                "error": bool(self.s.ready & STREAM_ERROR), "version": self.t.version,
                "readable": bool(self.s.ready & STREAM_READABLE),
                "writable": bool(self.s.ready & STREAM_WRITABLE),
                "kept": max(self.t.incoming_peak, self.t.outgoing_peak)}


def tls_streams():
    """TLS connections that are open in this process."""
    return tls_count()
