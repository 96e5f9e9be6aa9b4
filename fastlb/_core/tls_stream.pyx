# TLS over memory BIOs (contract in tls_stream.pxd; why not descriptors: docs/internals/tls.md).
#
# Records: what is sent is joined into records; small answers are one record and one send. The
# first bytes after a pause go out in records of a few segments each, so that a browser can begin
# before 16 KiB have arrived; what follows in full ones, which cost less.
#
# The library's error queue is emptied before each call that looks at it: what another user of
# the library has left there would be taken for this connection's failure.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from fastlb._core cimport system
from fastlb._core.connection cimport (
    STREAM_EOF, STREAM_ERROR, STREAM_HUP, STREAM_READABLE, STREAM_RESET, STREAM_WRITABLE, Stream,
    TlsStream,
)
from fastlb._core.debug cimport BUG_ON, likely
from fastlb._core.edit cimport iovec
from fastlb._core.stream cimport STREAM_AGAIN, STREAM_END, STREAM_FAILED
from fastlb._core.tls_library cimport (
    SSL_ERROR_WANT_READ, SSL_ERROR_ZERO_RETURN, SSL_RECEIVED_SHUTDOWN, SSL_SENT_SHUTDOWN, tls,
)

cdef enum:
    RECORD_BYTES = 16384             # RFC 8446 5.1
    RECORD_OVERHEAD_BYTES = 256 + 5  # at most, RFC 8446 5.2
    FIRST_RECORD_BYTES = 4096        # with its overhead, three segments of an Ethernet
    FIRST_BYTES = 64 * 1024          # that go out in such records
    PAUSE_MS = 1000                  # after which a burst begins again
    CIPHER_BYTES = RECORD_BYTES + RECORD_OVERHEAD_BYTES
    CIPHER_BYTES_MAX = 4 * CIPHER_BYTES  # received in one call
    WAITING_BYTES_MAX = 4 * CIPHER_BYTES  # of cipher text before it is sent
    HANDSHAKE_BYTES_MAX = 128 * 1024  # received; a client's chain of certificates is within it
    # Received without a byte of plain text in it: more than one record, and no flood of empty
    # records or of key updates.
    FRUITLESS_BYTES_MAX = 2 * CIPHER_BYTES
    UNREAD_BYTES_MAX = 128 * 1024    # of our alerts, which the peer makes us send and does not take
    KEPT_BYTES = 6 * 1024            # of memory in a BIO, while a connection rests

cdef enum:                           # TlsStream.closing
    CLOSING = 1                      # close_notify waits for the socket
    CLOSED                           # the socket's end was sent, too

# One connection is worked on at a time.
cdef char[CIPHER_BYTES_MAX] cipher_text
cdef char[RECORD_BYTES] plain_text

cdef TlsStream* free_streams = NULL
cdef uint64_t open_streams = 0


# --- open and close -----------------------------------------------------------------------

cdef bint _make(TlsStream* t, void* context) noexcept nogil:
    t.ssl = tls.SSL_new(context)
    t.incoming = tls.BIO_new(tls.BIO_s_mem())
    t.outgoing = tls.BIO_new(tls.BIO_s_mem())
    if t.ssl != NULL and t.incoming != NULL and t.outgoing != NULL:
        tls.SSL_set_bio(t.ssl, t.incoming, t.outgoing)
        return True
    if t.ssl != NULL:
        tls.SSL_free(t.ssl)
    if t.incoming != NULL:
        tls.BIO_free(t.incoming)
    if t.outgoing != NULL:
        tls.BIO_free(t.outgoing)
    tls.ERR_clear_error()
    return False


cdef TlsStream* tls_open(void* context, bint server) noexcept nogil:
    global free_streams, open_streams
    cdef TlsStream* t = free_streams
    if t != NULL:
        free_streams = t.next
        memset(t, 0, sizeof(TlsStream))
    else:
        t = <TlsStream*> calloc(1, sizeof(TlsStream))
        if t == NULL:
            return NULL
    if not _make(t, context):
        t.next = free_streams
        free_streams = t
        return NULL
    if server:
        tls.SSL_set_accept_state(t.ssl)
    else:
        tls.SSL_set_connect_state(t.ssl)
    open_streams += 1
    return t


cdef void tls_close(TlsStream* t) noexcept nogil:
    global free_streams, open_streams
    BUG_ON(t.ssl == NULL)
    if t.established:
        # A session that ends in order, or by the peer's carelessness, stays fit for resumption.
        tls.SSL_set_shutdown(t.ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN)
    tls.SSL_free(t.ssl)
    t.ssl = NULL
    free(t.subject)
    free(t.certificate)
    t.next = free_streams
    free_streams = t
    open_streams -= 1


cdef uint64_t tls_count() noexcept nogil:
    return open_streams


cdef void tls_free_all() noexcept nogil:
    global free_streams
    cdef TlsStream* t
    while free_streams != NULL:
        t = free_streams
        free_streams = t.next
        free(t)


cdef void tls_rest(TlsStream* t) noexcept nogil:
    # A BIO keeps what it once needed, so a large one gives way to a new one.
    cdef void* fresh
    cdef char* data
    if t.outgoing_peak > KEPT_BYTES and tls.BIO_get_mem_data(t.outgoing, &data) == 0:
        fresh = tls.BIO_new(tls.BIO_s_mem())
        if fresh != NULL:
            t.outgoing = fresh
            t.outgoing_peak = 0
            tls.SSL_set_bio(t.ssl, t.incoming, fresh)
    if t.incoming_peak > KEPT_BYTES and tls.BIO_get_mem_data(t.incoming, &data) == 0:
        fresh = tls.BIO_new(tls.BIO_s_mem())
        if fresh != NULL:
            t.incoming = fresh
            t.incoming_peak = 0
            tls.SSL_set_bio(t.ssl, fresh, t.outgoing)


# --- the socket ---------------------------------------------------------------------------

cdef void _write_failed(Stream* s) noexcept nogil:
    # As with plain text: EPIPE is no reset, the peer had ended in order before.
    s.ready &= ~STREAM_WRITABLE
    if system.errno != system.EAGAIN:
        s.ready |= STREAM_ERROR if system.errno == system.EPIPE else STREAM_ERROR | STREAM_RESET


cdef void _consume(void* bio, ssize_t count) noexcept nogil:
    cdef int part
    while count > 0:
        part = CIPHER_BYTES_MAX if count > CIPHER_BYTES_MAX else <int> count
        tls.BIO_read(bio, cipher_text, part)
        count -= part


cdef bint tls_flush(TlsStream* t, Stream* s) noexcept nogil:
    cdef char* data
    cdef long count = tls.BIO_get_mem_data(t.outgoing, &data)
    cdef ssize_t sent = 0
    if count > t.outgoing_peak:
        t.outgoing_peak = <uint32_t> count
    if count > 0:
        sent = system.send(s.fd, data, <size_t> count, system.MSG_NOSIGNAL)
        while sent < 0 and system.errno == system.EINTR:
            sent = system.send(s.fd, data, <size_t> count, system.MSG_NOSIGNAL)
        if sent < 0:
            _write_failed(s)
            sent = 0
        elif sent < count:
            s.ready &= ~STREAM_WRITABLE
        _consume(t.outgoing, sent)
    t.waiting = <uint32_t> (count - sent)
    if t.waiting:
        return False
    if t.closing == CLOSING:
        t.closing = CLOSED
        system.shutdown(s.fd, system.SHUT_WR)
    return True


cdef void tls_note(TlsStream* t, Stream* s, uint32_t events) noexcept nogil:
    if events & ~<uint32_t> system.EPOLLOUT:
        t.drained = False
    if events & system.EPOLLOUT and (t.waiting == 0 or tls_flush(t, s)):
        s.ready |= STREAM_WRITABLE


cdef bint tls_feed(TlsStream* t, const char* data, uint32_t count) noexcept nogil:
    if count > t.incoming_peak:
        t.incoming_peak = count
    t.holds = True
    return count == 0 or tls.BIO_write(t.incoming, data, <int> count) == <int> count


# Cipher text from the socket into the library: > 0, STREAM_AGAIN, STREAM_END or STREAM_FAILED.
cdef int64_t _fill(TlsStream* t, Stream* s, uint32_t room) noexcept nogil:
    cdef size_t most = CIPHER_BYTES if room <= RECORD_BYTES else CIPHER_BYTES_MAX
    cdef ssize_t got
    if s.ready & STREAM_EOF:
        return STREAM_END
    got = system.recv(s.fd, cipher_text, most, 0)
    while got < 0 and system.errno == system.EINTR:
        got = system.recv(s.fd, cipher_text, most, 0)
    if likely(got > 0):
        t.drained = <size_t> got < most and not s.ready & STREAM_HUP
        t.fruitless += <uint32_t> got
        return got if tls_feed(t, cipher_text, <uint32_t> got) else STREAM_FAILED
    s.ready &= ~STREAM_READABLE
    t.drained = True
    if got == 0:
        s.ready |= STREAM_EOF
        return STREAM_END
    if system.errno == system.EAGAIN:
        return STREAM_AGAIN
    s.ready |= STREAM_ERROR
    return STREAM_FAILED


cdef inline void _set_readable(TlsStream* t, Stream* s) noexcept nogil:
    # What the library holds makes no edge: the caller reads on while this is set.
    if t.holds or not t.drained:
        s.ready |= STREAM_READABLE
    else:
        s.ready &= ~STREAM_READABLE


cdef int _failed(TlsStream* t, Stream* s) noexcept nogil:
    # An alert may wait to be sent; after it nothing goes either way.
    if not t.established:
        t.error = tls.ERR_get_error()
    tls_flush(t, s)
    tls.ERR_clear_error()
    if t.established:
        s.ready |= STREAM_ERROR
    s.ready &= ~STREAM_READABLE
    return STREAM_FAILED


# --- handshake ----------------------------------------------------------------------------

cdef int _established(TlsStream* t, Stream* s) noexcept nogil:
    cdef char* data
    t.established = True
    t.version = <uint16_t> tls.SSL_version(t.ssl)
    t.fruitless = 0
    t.holds = tls.BIO_get_mem_data(t.incoming, &data) > 0
    _set_readable(t, s)
    return 1


cdef int tls_handshake(TlsStream* t, Stream* s) noexcept nogil:
    cdef int result
    cdef int64_t filled
    if not t.holds:
        filled = _fill(t, s, RECORD_BYTES) if s.ready & STREAM_READABLE else 0
        if filled < 0:
            return <int> filled
    while True:
        tls.ERR_clear_error()
        result = tls.SSL_do_handshake(t.ssl)
        if result == 1:
            return _established(t, s)
        if tls.SSL_get_error(t.ssl, result) != SSL_ERROR_WANT_READ:
            return _failed(t, s)
        t.holds = False
        tls_flush(t, s)
        if t.fruitless > HANDSHAKE_BYTES_MAX:
            return _failed(t, s)
        if t.drained or not s.ready & STREAM_READABLE:
            s.ready &= ~STREAM_READABLE
            return STREAM_AGAIN
        filled = _fill(t, s, RECORD_BYTES)
        if filled < 0:
            return <int> filled


# --- reading ------------------------------------------------------------------------------

# From what the library has: > 0, STREAM_AGAIN when it needs more, STREAM_END or STREAM_FAILED.
cdef int64_t _read(TlsStream* t, Stream* s, char* into, uint32_t room) noexcept nogil:
    cdef uint32_t have = 0
    cdef int got = 1, error
    cdef char* data
    while have < room:
        got = tls.SSL_read(t.ssl, into + have, <int> (room - have))
        if got <= 0:
            break
        have += <uint32_t> got
        if tls.SSL_pending(t.ssl) == 0 and tls.BIO_get_mem_data(t.incoming, &data) <= 0:
            t.holds = False
            break
    if have:
        t.fruitless = 0
        if got <= 0 and tls.SSL_get_error(t.ssl, got) == SSL_ERROR_WANT_READ:
            t.holds = False          # else the next call tells of the end, or of the error
        _set_readable(t, s)
        return have
    error = tls.SSL_get_error(t.ssl, got)
    if error == SSL_ERROR_WANT_READ:
        t.holds = False
        return STREAM_AGAIN
    s.ready &= ~STREAM_READABLE
    if error == SSL_ERROR_ZERO_RETURN:
        t.ended = True
        return STREAM_END
    return _failed(t, s)


# Sends what the library has answered to what was read: to updates of keys, to renegotiations.
# False when there is more of it than a peer may leave unread, whatever data came in between.
cdef inline bint _answers_fit(TlsStream* t, Stream* s) noexcept nogil:
    cdef char* data
    if likely(tls.BIO_get_mem_data(t.outgoing, &data) <= 0):
        return True
    if s.ready & STREAM_WRITABLE or t.waiting == 0:
        tls_flush(t, s)
    return tls.BIO_get_mem_data(t.outgoing, &data) <= UNREAD_BYTES_MAX


cdef int64_t tls_recv(TlsStream* t, Stream* s, char* into, uint32_t room) noexcept nogil:
    cdef int64_t got
    BUG_ON(not t.established)
    if t.ended:
        s.ready &= ~STREAM_READABLE
        return STREAM_END
    tls.ERR_clear_error()
    while True:
        if t.holds:
            got = _read(t, s, into, room)
            if got != STREAM_AGAIN:
                return got
            if not _answers_fit(t, s) or t.fruitless > FRUITLESS_BYTES_MAX:
                return _failed(t, s)
            if t.drained:
                s.ready &= ~STREAM_READABLE
                return STREAM_AGAIN
        elif not _answers_fit(t, s):
            return _failed(t, s)
        got = _fill(t, s, room)
        if got == STREAM_AGAIN:
            return STREAM_AGAIN
        if got < 0:
            # The end of the socket without close_notify: the data may have been cut off.
            return _failed(t, s)


# --- writing ------------------------------------------------------------------------------

ctypedef struct Source:              # what is still to be taken of a caller's vectors
    const iovec* iov
    uint32_t count
    size_t offset                    # in the first of them


# The next record's plain text: as it stands where one vector has enough, else joined.
cdef uint32_t _gather(Source* from_, uint32_t most, const char** data) noexcept nogil:
    cdef uint32_t have = 0
    cdef size_t part = from_.iov.iov_len - from_.offset
    if part >= most or from_.count == 1:
        data[0] = <const char*> from_.iov.iov_base + from_.offset
        part = part if part < most else most
        from_.offset += part
        have = <uint32_t> part
    else:
        data[0] = plain_text
        while from_.count and have < most:
            part = from_.iov.iov_len - from_.offset
            part = part if part < most - have else most - have
            memcpy(plain_text + have, <const char*> from_.iov.iov_base + from_.offset, part)
            have += <uint32_t> part
            from_.offset += part
            _next_vector(from_)
    _next_vector(from_)
    return have


cdef inline void _next_vector(Source* from_) noexcept nogil:
    while from_.count and from_.offset == from_.iov.iov_len:
        from_.iov += 1
        from_.count -= 1
        from_.offset = 0


cdef inline uint32_t _record_bytes(TlsStream* t) noexcept nogil:
    return FIRST_RECORD_BYTES if t.burst < FIRST_BYTES else RECORD_BYTES


cdef int64_t tls_send(TlsStream* t, Stream* s, const iovec* iov, uint32_t count) noexcept nogil:
    cdef Source source
    cdef const char* data
    cdef uint32_t part
    cdef uint64_t now_ms = system.coarse_ms()
    cdef int64_t taken = 0
    source.iov = iov
    source.count = count
    source.offset = 0
    if not s.ready & STREAM_WRITABLE and t.waiting:
        return STREAM_FAILED if s.ready & STREAM_ERROR else 0
    if now_ms - t.sent_ms > PAUSE_MS:
        t.burst = 0
    t.sent_ms = now_ms
    tls.ERR_clear_error()
    _next_vector(&source)
    while source.count:
        if t.waiting >= WAITING_BYTES_MAX and not tls_flush(t, s):
            break
        part = _gather(&source, _record_bytes(t), &data)
        if tls.SSL_write(t.ssl, data, <int> part) <= 0:
            return _failed(t, s)
        t.burst += part if t.burst < FIRST_BYTES else 0
        t.waiting += part
        taken += part
    tls_flush(t, s)
    return STREAM_FAILED if s.ready & STREAM_ERROR else taken


# --- the end ------------------------------------------------------------------------------

cdef void tls_shutdown(TlsStream* t, Stream* s) noexcept nogil:
    if t.closing:
        return
    if t.established:
        tls.SSL_shutdown(t.ssl)
        tls.ERR_clear_error()
    t.closing = CLOSING
    tls_flush(t, s)


cdef void tls_farewell(TlsStream* t, Stream* s) noexcept nogil:
    if t.established and not t.closing and t.waiting == 0 \
            and not s.ready & (STREAM_ERROR | STREAM_EOF):
        tls_shutdown(t, s)
