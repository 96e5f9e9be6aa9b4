# Every length is checked against what surrounds it before it is used; what does not add up is
# malformed, never guessed at.

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset

from fastlb._core.siphash cimport (
    Hash128, SipKey, SipState, sip_final128, sip_init128, sip_update, sip_update_u64,
)
from fastlb._core.slice cimport Slice, slice_equal, slice_of

cdef enum:
    RECORD_HEADER_BYTES = 5
    RECORD_BYTES_MAX = 1 << 14       # RFC 8446 5.1
    HANDSHAKE_HEADER_BYTES = 4
    RECORD_HANDSHAKE = 22
    CLIENT_HELLO = 1
    SERVER_HELLO = 2
    NEW_SESSION_TICKET = 4
    TLS13 = 0x0304

cdef enum:                           # ExtensionType (IANA "TLS ExtensionType Values")
    EXT_SERVER_NAME = 0
    EXT_ALPN = 16
    EXT_SESSION_TICKET = 35
    EXT_PRE_SHARED_KEY = 41
    EXT_SUPPORTED_VERSIONS = 43

cdef enum:                           # what is hashed in front of the bytes
    HASH_TICKET = 1
    HASH_SESSION_ID = 2


cdef inline uint32_t _u8(const char* at) noexcept nogil:
    return <uint8_t> at[0]


cdef inline uint32_t _u16(const char* at) noexcept nogil:
    return (<uint32_t> <uint8_t> at[0] << 8) | <uint8_t> at[1]


cdef inline uint32_t _u24(const char* at) noexcept nogil:
    return (_u8(at) << 16) | _u16(at + 1)


# Takes a vector with `width` bytes of length off `rest`; False when it is not whole.
cdef bint _vector(Slice* rest, uint32_t width, Slice* out) noexcept nogil:
    cdef uint32_t count
    if rest.bytes < width:
        return False
    count = _u8(rest.at) if width == 1 else _u16(rest.at)
    if rest.bytes - width < count:
        return False
    out[0] = slice_of(rest.at + width, count)
    rest.at += width + count
    rest.bytes -= width + count
    return True


# --- ClientHello --------------------------------------------------------------------------

# The first record's header, as far as it is there.
cdef int _check_record(const char* at, uint32_t count) noexcept nogil:
    if count >= 1 and _u8(at) != RECORD_HANDSHAKE:
        return TLS_NOT_TLS
    if count >= 2 and _u8(at + 1) != 3:
        return TLS_NOT_TLS
    if count >= RECORD_HEADER_BYTES and not 0 < _u16(at + 3) <= RECORD_BYTES_MAX:
        return TLS_NOT_TLS if _u16(at + 3) == 0 else TLS_TOO_LONG
    return 0


# Walks whole records until the message is in them. > 0: it is; the message's length.
cdef int _walk(TlsClientHello* hello, const char* data, uint32_t count) noexcept nogil:
    cdef uint32_t left, payload, message
    cdef int wrong
    while True:
        left = count - hello.walked
        wrong = _check_record(data + hello.walked, left)
        if wrong < 0:
            return wrong if hello.walked == 0 else TLS_MALFORMED
        if hello.walked == 0 and left > RECORD_HEADER_BYTES \
                and _u8(data + RECORD_HEADER_BYTES) != CLIENT_HELLO:
            return TLS_NOT_TLS
        if left < RECORD_HEADER_BYTES:
            return 0
        payload = _u16(data + hello.walked + 3)
        if left - RECORD_HEADER_BYTES < payload:
            return 0
        hello.walked += RECORD_HEADER_BYTES + payload
        hello.payload += payload
        message = _message_bytes(data, hello.walked)
        if message > TLS_HELLO_BYTES_MAX:
            return TLS_TOO_LONG
        if message and hello.payload >= message:
            # Nothing else may share its last record before the server has answered.
            return <int> message if hello.payload == message else TLS_MALFORMED


# Length of the message with its header, from the records before `walked`; 0: not there yet.
cdef uint32_t _message_bytes(const char* data, uint32_t walked) noexcept nogil:
    cdef char[HANDSHAKE_HEADER_BYTES] header
    cdef uint32_t at = 0, have = 0, payload, part
    while have < HANDSHAKE_HEADER_BYTES:
        if at == walked:
            return 0
        payload = _u16(data + at + 3)
        part = HANDSHAKE_HEADER_BYTES - have
        if part > payload:
            part = payload
        memcpy(header + have, data + at + RECORD_HEADER_BYTES, part)
        have += part
        at += RECORD_HEADER_BYTES + payload
    return HANDSHAKE_HEADER_BYTES + _u24(header + 1)


cdef void _join(const char* data, uint32_t walked, char* joined) noexcept nogil:
    cdef uint32_t at = 0, payload
    while at < walked:
        payload = _u16(data + at + 3)
        memcpy(joined, data + at + RECORD_HEADER_BYTES, payload)
        joined += payload
        at += RECORD_HEADER_BYTES + payload


cdef bint _read_server_name(TlsClientHello* hello, Slice rest) noexcept nogil:
    # RFC 6066 3: a list with at most one name of each type; host_name is the only type.
    cdef Slice names, name
    cdef uint32_t kind, i
    if not _vector(&rest, 2, &names) or rest.bytes or names.bytes == 0:
        return False
    while names.bytes:
        kind = _u8(names.at)
        names.at += 1
        names.bytes -= 1
        if not _vector(&names, 2, &name) or name.bytes == 0:
            return False
        if kind != 0:
            continue
        if hello.sni.bytes or name.bytes > 255:
            return False
        for i in range(name.bytes):
            if not c'!' <= name.at[i] <= c'~':
                return False
        hello.sni = name
    return True


cdef bint _read_alpn(TlsClientHello* hello, Slice rest) noexcept nogil:
    cdef Slice names, name, all_names
    if not _vector(&rest, 2, &names) or rest.bytes or names.bytes == 0:
        return False
    all_names = names
    while names.bytes:
        if not _vector(&names, 1, &name) or name.bytes == 0:
            return False
    hello.alpn = all_names
    return True


cdef bint _read_versions(TlsClientHello* hello, Slice rest) noexcept nogil:
    cdef Slice versions
    cdef uint32_t i
    if not _vector(&rest, 1, &versions) or rest.bytes or versions.bytes == 0 or versions.bytes & 1:
        return False
    for i in range(0, versions.bytes, 2):
        if _u16(versions.at + i) == TLS13:
            hello.offers_tls13 = True
    return True


cdef bint _read_psk(TlsClientHello* hello, Slice rest) noexcept nogil:
    # Identities, each with the age of its ticket, and as many binders.
    cdef Slice identities
    if not _vector(&rest, 2, &identities) or not _vector(&identities, 2, &hello.psk):
        return False
    hello.has_psk = True
    return hello.psk.bytes != 0 and identities.bytes >= 4


# One extension that says something about the session; the others are passed over.
cdef bint _read_extension(TlsClientHello* hello, uint32_t kind, Slice value,
                          uint32_t* seen) noexcept nogil:
    cdef uint32_t bit
    if kind not in (EXT_SERVER_NAME, EXT_ALPN, EXT_SESSION_TICKET, EXT_PRE_SHARED_KEY,
                    EXT_SUPPORTED_VERSIONS):
        return True
    bit = <uint32_t> 1 << (kind & 31)    # another one for each of the five
    if seen[0] & bit:
        return False                 # RFC 8446 4.2: never twice
    seen[0] |= bit
    if kind == EXT_SERVER_NAME:
        return _read_server_name(hello, value)
    if kind == EXT_ALPN:
        return _read_alpn(hello, value)
    if kind == EXT_SUPPORTED_VERSIONS:
        return _read_versions(hello, value)
    if kind == EXT_SESSION_TICKET:
        hello.offers_ticket = True
        hello.ticket = value
        return True
    return _read_psk(hello, value)


cdef bint _read_extensions(TlsClientHello* hello, Slice rest) noexcept nogil:
    cdef Slice extensions, value
    cdef uint32_t kind, seen = 0
    if not _vector(&rest, 2, &extensions) or rest.bytes:
        return False
    while extensions.bytes:
        if extensions.bytes < 2:
            return False
        kind = _u16(extensions.at)
        extensions.at += 2
        extensions.bytes -= 2
        if not _vector(&extensions, 2, &value):
            return False
        if not _read_extension(hello, kind, value, &seen):
            return False
    return True


cdef bint _read_client_hello(TlsClientHello* hello, Slice body) noexcept nogil:
    cdef Slice part
    if body.bytes < 2 + 32:
        return False
    hello.version = <uint16_t> _u16(body.at)
    if hello.version >> 8 != 3:
        return False
    body.at += 2 + 32
    body.bytes -= 2 + 32
    if not _vector(&body, 1, &hello.session_id):
        return False
    if hello.session_id.bytes > TLS_SESSION_ID_BYTES_MAX:
        return False
    if not _vector(&body, 2, &part) or part.bytes == 0 or part.bytes & 1:
        return False                 # cipher suites
    if not _vector(&body, 1, &part) or part.bytes == 0:
        return False                 # compression methods
    return body.bytes == 0 or _read_extensions(hello, body)


cdef int tls_client_hello(TlsClientHello* hello, const char* data, uint32_t count,
                          char* joined) noexcept nogil:
    cdef uint32_t walked, payload
    cdef const char* message
    cdef int found
    found = _walk(hello, data, count)
    if found == 0 and count >= TLS_HELLO_RAW_BYTES_MAX:
        return TLS_TOO_LONG
    if found <= 0:
        return found
    walked = hello.walked
    payload = hello.payload
    if walked == payload + RECORD_HEADER_BYTES:
        message = data + RECORD_HEADER_BYTES
    else:
        _join(data, walked, joined)
        message = joined
    memset(hello, 0, sizeof(TlsClientHello))
    hello.walked = walked
    hello.payload = payload
    if not _read_client_hello(hello, slice_of(message + HANDSHAKE_HEADER_BYTES,
                                              <uint32_t> found - HANDSHAKE_HEADER_BYTES)):
        return TLS_MALFORMED
    return <int> walked


cdef bint tls_alpn_has(Slice alpn, Slice name) noexcept nogil:
    cdef Slice one
    while alpn.bytes:
        if not _vector(&alpn, 1, &one):
            return False
        if slice_equal(one, name):
            return True
    return False


# --- hashes -------------------------------------------------------------------------------

cdef void _hash_begin(SipState* state, const SipKey* key, uint32_t what) noexcept nogil:
    sip_init128(state, key)
    sip_update_u64(state, what)


cdef Hash128 tls_ticket_hash(const SipKey* key, Slice ticket) noexcept nogil:
    cdef SipState state
    _hash_begin(&state, key, HASH_TICKET)
    sip_update(&state, ticket.at, ticket.bytes)
    return sip_final128(&state)


cdef Hash128 tls_session_id_hash(const SipKey* key, Slice session_id) noexcept nogil:
    cdef SipState state
    _hash_begin(&state, key, HASH_SESSION_ID)
    sip_update(&state, session_id.at, session_id.bytes)
    return sip_final128(&state)


# --- the server's flight ------------------------------------------------------------------

# Bytes are gathered in `small` until `want` are there, or passed over, or hashed (`skip`); the
# phase says what they are. Records and calls may end anywhere inside of that.
cdef enum Phase:
    PHASE_MESSAGE = 0                # handshake header: type, length
    PHASE_HELLO                      # version, random, length of the session id
    PHASE_SESSION_ID                 # session id, cipher suite, compression
    PHASE_EXTENSIONS                 # their length
    PHASE_EXTENSION                  # type and length of one
    PHASE_VERSION                    # value of supported_versions
    PHASE_SKIP_EXTENSION
    PHASE_TICKET                     # lifetime and length of a NewSessionTicket
    PHASE_TICKET_BYTES
    PHASE_SKIP_MESSAGE

cdef enum:
    HELLO_BYTES = 2 + 32 + 1


cdef void tls_server_flight_begin(TlsServerFlight* flight) noexcept nogil:
    memset(flight, 0, sizeof(TlsServerFlight))
    flight.want = HANDSHAKE_HEADER_BYTES


# The next `want` bytes of the message are gathered; False when it is not that long.
cdef bint _gather(TlsServerFlight* flight, int phase, uint32_t want) noexcept nogil:
    if flight.message_left < want:
        return False
    flight.message_left -= want
    flight.phase = <uint8_t> phase
    flight.want = <uint8_t> want
    return True


cdef bint _pass(TlsServerFlight* flight, int phase, uint32_t count) noexcept nogil:
    if flight.message_left < count:
        return False
    flight.message_left -= count
    flight.phase = <uint8_t> phase
    flight.skip = count
    return True


cdef bint _next_message(TlsServerFlight* flight) noexcept nogil:
    flight.phase = PHASE_MESSAGE
    flight.want = HANDSHAKE_HEADER_BYTES
    return True


cdef bint _hello_done(TlsServerFlight* flight) noexcept nogil:
    flight.hello_seen = True
    # All that follows in TLS 1.3 is encrypted.
    return not flight.is_tls13 and _next_message(flight)


cdef bint _next_extension(TlsServerFlight* flight) noexcept nogil:
    if flight.message_left == 0:
        return _hello_done(flight)
    return _gather(flight, PHASE_EXTENSION, 4)


cdef bint _begin_message(TlsServerFlight* flight) noexcept nogil:
    cdef uint32_t kind = _u8(flight.small)
    flight.message_left = _u24(flight.small + 1)
    if kind == SERVER_HELLO and not flight.hello_seen:
        return _gather(flight, PHASE_HELLO, HELLO_BYTES)
    if kind == NEW_SESSION_TICKET and flight.hello_seen:
        return _gather(flight, PHASE_TICKET, 6)
    if flight.message_left == 0:
        return _next_message(flight)
    return _pass(flight, PHASE_SKIP_MESSAGE, flight.message_left)


cdef bint _begin_ticket(TlsServerFlight* flight, const SipKey* key) noexcept nogil:
    cdef uint32_t count = _u16(flight.small + 4)
    if count != flight.message_left:
        return False
    if count == 0:
        return _next_message(flight)     # RFC 5077 3.3: no ticket after all
    _hash_begin(&flight.hash, key, HASH_TICKET)
    return _pass(flight, PHASE_TICKET_BYTES, count)


# `small` holds what the phase asked for; False: nothing more to be read.
cdef bint _gathered(TlsServerFlight* flight, const SipKey* key) noexcept nogil:
    cdef const char* at = flight.small
    if flight.phase == PHASE_MESSAGE:
        return _begin_message(flight)
    if flight.phase == PHASE_HELLO:
        flight.version = <uint16_t> _u16(at)
        flight.session_id_bytes = <uint8_t> at[HELLO_BYTES - 1]
        return flight.session_id_bytes <= TLS_SESSION_ID_BYTES_MAX and _gather(
            flight, PHASE_SESSION_ID, flight.session_id_bytes + 3)
    if flight.phase == PHASE_SESSION_ID:
        memcpy(flight.session_id, at, flight.session_id_bytes)
        if flight.message_left == 0:
            return _hello_done(flight)
        return _gather(flight, PHASE_EXTENSIONS, 2)
    if flight.phase == PHASE_EXTENSIONS:
        return _u16(at) == flight.message_left and _next_extension(flight)
    if flight.phase == PHASE_EXTENSION:
        if _u16(at) == EXT_SUPPORTED_VERSIONS and _u16(at + 2) == 2:
            return _gather(flight, PHASE_VERSION, 2)
        if _u16(at + 2) == 0:
            return _next_extension(flight)
        return _pass(flight, PHASE_SKIP_EXTENSION, _u16(at + 2))
    if flight.phase == PHASE_VERSION:
        flight.is_tls13 = _u16(at) == TLS13
        return _next_extension(flight)
    return _begin_ticket(flight, key)


cdef bint _passed(TlsServerFlight* flight) noexcept nogil:
    if flight.phase == PHASE_SKIP_EXTENSION:
        return _next_extension(flight)
    if flight.phase == PHASE_TICKET_BYTES:
        flight.ticket = sip_final128(&flight.hash)
        flight.ticket_seen = True
    return _next_message(flight)


# Handshake bytes, without record headers; False: nothing more to be read.
cdef bint _handshake(TlsServerFlight* flight, const SipKey* key, const char* at,
                     uint32_t count) noexcept nogil:
    cdef uint32_t part
    while count:
        if flight.phase in (PHASE_SKIP_EXTENSION, PHASE_TICKET_BYTES, PHASE_SKIP_MESSAGE):
            part = flight.skip if flight.skip < count else count
            if flight.phase == PHASE_TICKET_BYTES:
                sip_update(&flight.hash, at, part)
            flight.skip -= part
            if flight.skip == 0 and not _passed(flight):
                return False
        else:
            part = flight.want - flight.have
            part = part if part < count else count
            memcpy(flight.small + flight.have, at, part)
            flight.have += <uint8_t> part
            if flight.have == flight.want:
                flight.have = 0
                if not _gathered(flight, key):
                    return False
        at += part
        count -= part
    return True


# `record` holds a whole header; False: what follows is no plain-text handshake.
cdef bint _begin_record(TlsServerFlight* flight) noexcept nogil:
    flight.record_have = 0
    flight.record_left = _u16(flight.record + 3)
    return (_u8(flight.record) == RECORD_HANDSHAKE and _u8(flight.record + 1) == 3
            and 0 < flight.record_left <= RECORD_BYTES_MAX)


cdef int tls_server_flight(TlsServerFlight* flight, const SipKey* key, const char* data,
                           uint32_t count) noexcept nogil:
    cdef uint32_t part
    while count and not flight.over:
        if flight.record_left == 0:
            part = RECORD_HEADER_BYTES - flight.record_have
            part = part if part < count else count
            memcpy(flight.record + flight.record_have, data, part)
            flight.record_have += <uint8_t> part
            if flight.record_have == RECORD_HEADER_BYTES:
                flight.over = not _begin_record(flight)
        else:
            part = flight.record_left if flight.record_left < count else count
            flight.over = not _handshake(flight, key, data, part)
            flight.record_left -= part
        data += part
        count -= part
    return TLS_FLIGHT_OVER if flight.over else TLS_FLIGHT_OPEN
