# The plain-text part of TLS handshakes (RFC 8446 4.1.2, 4.2, 5.1; RFC 5246 7.4.1; RFC 5077;
# RFC 6066 3; RFC 7301): what can be read of a session without opening it.
#
# Two readers. The ClientHello is looked at whole, in the bytes that were received, since it
# decides where the connection goes. The server's flight passes by: it is read as it comes, in
# any pieces, and no byte of it is held. Neither knows connections or session maps.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from fastlb._core.siphash cimport Hash128, SipKey, SipState
from fastlb._core.slice cimport Slice

cdef enum:
    TLS_HELLO_BYTES_MAX = 16384      # of the ClientHello message
    TLS_HELLO_RAW_BYTES_MAX = 20480  # with the headers of its records
    TLS_SESSION_ID_BYTES_MAX = 32
    TLS_CHANGE_CIPHER_SPEC = 20      # content type of a record

cdef enum TlsError:
    TLS_NOT_TLS = -1                 # does not begin as a TLS handshake
    TLS_MALFORMED = -2
    TLS_TOO_LONG = -3                # over one of the bounds above

ctypedef struct TlsClientHello:      # slices point into `data`, or into `joined`
    # progress over several calls; zero at the first
    uint32_t walked                  # offset of the first record that is not whole yet
    uint32_t payload                 # handshake bytes in the records before it
    # the message; valid once tls_client_hello returned > 0
    uint16_t version                 # client_version; 0x0303 for TLS 1.2 and 1.3
    Slice session_id                 # empty: none
    Slice ticket                     # of the session_ticket extension; empty: none
    Slice sni                        # host name as written; empty: none
    Slice alpn                       # the list of names, each with a byte of length before it
    uint8_t offers_ticket            # the session_ticket extension is there
    uint8_t offers_tls13             # supported_versions has 0x0304
    uint8_t has_psk                  # resumes a TLS 1.3 session, by an identity that changes
    Slice psk                        # the first identity: a ticket (RFC 8446 4.6.1)

# The `count` bytes at `data` begin with the connection's first one. > 0: the bytes of the
# records that carry the message; 0: more is needed; else a TlsError. A message in several
# records is put together in `joined`, TLS_HELLO_BYTES_MAX of room.
cdef int tls_client_hello(TlsClientHello* hello, const char* data, uint32_t count,
                          char* joined) noexcept nogil
# Whether one of the names in an ALPN list is `name`.
cdef bint tls_alpn_has(Slice alpn, Slice name) noexcept nogil

ctypedef struct TlsServerFlight:
    # what was found
    uint8_t hello_seen               # version and session id are valid
    uint8_t is_tls13
    uint8_t ticket_seen              # `ticket` is the hash of one that the server granted
    uint8_t session_id_bytes
    uint16_t version                 # server_version
    char session_id[TLS_SESSION_ID_BYTES_MAX]
    Hash128 ticket
    # private: what is being read
    uint8_t over
    uint8_t record_have              # bytes of the record header in `record`
    uint8_t phase
    uint8_t have                     # bytes in `small`
    uint8_t want                     # bytes to gather there
    uint32_t record_left             # of the record's payload
    uint32_t message_left            # of the handshake message, beyond what is gathered or skipped
    uint32_t skip                    # bytes to pass over, or of a ticket to hash
    char record[5]
    char small[40]
    SipState hash

cdef enum TlsFlightResult:
    TLS_FLIGHT_OPEN = 0              # feed the next bytes
    TLS_FLIGHT_OVER = 1              # nothing more to be read: encrypted from here on, or an error

cdef void tls_server_flight_begin(TlsServerFlight* flight) noexcept nogil
# Reads the next bytes of the server's side. `key` hashes a ticket; see tls_ticket_hash.
cdef int tls_server_flight(TlsServerFlight* flight, const SipKey* key, const char* data,
                           uint32_t count) noexcept nogil
# Whether the server's part went through to its ChangeCipherSpec, sent only to a client that knows
# the session's keys (or, where a session is resumed, about to be checked): what it granted counts.
cdef inline bint tls_flight_granted(const TlsServerFlight* flight) noexcept nogil:
    return (flight.over and flight.hello_seen and not flight.is_tls13
            and flight.record[0] == TLS_CHANGE_CIPHER_SPEC)


# The key of a ticket and of a session id: kept apart, so that neither can be taken for the other.
cdef Hash128 tls_ticket_hash(const SipKey* key, Slice ticket) noexcept nogil
cdef Hash128 tls_session_id_hash(const SipKey* key, Slice session_id) noexcept nogil
