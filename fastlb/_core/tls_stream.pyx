# Records: what is sent is joined into records of at most RECORD_BYTES each; small answers are
# one record and one send. After a full record's worth has gone out without a pause, larger
# pieces follow by themselves, since the caller hands over whole buffers.

from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcpy

from fastlb._core cimport system
from fastlb._core.connection cimport (
    STREAM_EOF, STREAM_ERROR, STREAM_HUP, STREAM_READABLE, STREAM_WRITABLE, Stream,
)
from fastlb._core.edit cimport iovec
from fastlb._core.stream cimport STREAM_AGAIN, STREAM_END, STREAM_FAILED
from fastlb._core.tls_library cimport (
    SSL_ERROR_WANT_READ, SSL_ERROR_ZERO_RETURN, SSL_RECEIVED_SHUTDOWN, SSL_SENT_SHUTDOWN, tls,
)

cdef enum:
    RECORD_BYTES = 16384             # RFC 8446 5.1
    CIPHER_BYTES = RECORD_BYTES + 512
    SEND_BYTES_MAX = 4 * RECORD_BYTES    # of plain text in one call

# One connection is worked on at a time.
cdef char[CIPHER_BYTES] cipher_text
cdef char[RECORD_BYTES] plain_text


cdef bint tls_open(TlsStream* t, void* context, bint server) noexcept nogil:
    t.established = False
    t.ended = False
    t.ssl = tls.SSL_new(context)
    t.incoming = tls.BIO_new(tls.BIO_s_mem())
    t.outgoing = tls.BIO_new(tls.BIO_s_mem())
    if t.ssl == NULL or t.incoming == NULL or t.outgoing == NULL:
        if t.ssl != NULL:
            tls.SSL_free(t.ssl)
        if t.incoming != NULL:
            tls.BIO_free(t.incoming)
        if t.outgoing != NULL:
            tls.BIO_free(t.outgoing)
        t.ssl = NULL
        tls.ERR_clear_error()
        return False
    tls.SSL_set_bio(t.ssl, t.incoming, t.outgoing)
    if server:
        tls.SSL_set_accept_state(t.ssl)
    else:
        tls.SSL_set_connect_state(t.ssl)
    return True


cdef void tls_close(TlsStream* t) noexcept nogil:
    # A session that ends in order, or by the peer's carelessness, stays fit for resumption.
    if t.ssl == NULL:
        return
    if t.established:
        tls.SSL_set_shutdown(t.ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN)
    tls.SSL_free(t.ssl)
    t.ssl = NULL


cdef bint tls_waits(TlsStream* t) noexcept nogil:
    cdef char* data
    return tls.BIO_get_mem_data(t.outgoing, &data) > 0


cdef bint tls_flush(TlsStream* t, Stream* s) noexcept nogil:
    cdef char* data
    cdef long count = tls.BIO_get_mem_data(t.outgoing, &data)
    cdef ssize_t sent
    while count > 0:
        sent = system.send(s.fd, data, <size_t> count, system.MSG_NOSIGNAL)
        if sent < 0:
            if system.errno == system.EINTR:
                continue
            s.ready &= ~STREAM_WRITABLE
            if system.errno != system.EAGAIN:
                s.ready |= STREAM_ERROR
            return False
        if sent < count:
            s.ready &= ~STREAM_WRITABLE
        _consume(t.outgoing, sent)
        if sent < count:
            return False
        count = 0
    return True


cdef void _consume(void* bio, ssize_t count) noexcept nogil:
    cdef int part
    while count > 0:
        part = CIPHER_BYTES if count > CIPHER_BYTES else <int> count
        tls.BIO_read(bio, cipher_text, part)
        count -= part


# Cipher text from the socket into the library: > 0, STREAM_AGAIN, STREAM_END or STREAM_FAILED.
cdef int64_t _fill(TlsStream* t, Stream* s) noexcept nogil:
    cdef ssize_t got
    if s.ready & STREAM_EOF:
        return STREAM_END
    if not s.ready & STREAM_READABLE:
        return STREAM_AGAIN
    while True:
        got = system.recv(s.fd, cipher_text, CIPHER_BYTES, 0)
        if got > 0:
            if got < CIPHER_BYTES and not s.ready & STREAM_HUP:
                s.ready &= ~STREAM_READABLE
            return got if tls.BIO_write(t.incoming, cipher_text, <int> got) == got \
                else STREAM_FAILED
        if got == 0:
            s.ready |= STREAM_EOF
            s.ready &= ~STREAM_READABLE
            return STREAM_END
        if system.errno == system.EAGAIN:
            s.ready &= ~STREAM_READABLE
            return STREAM_AGAIN
        if system.errno != system.EINTR:
            s.ready |= STREAM_ERROR
            s.ready &= ~STREAM_READABLE
            return STREAM_FAILED


cdef int64_t _failed(TlsStream* t, Stream* s) noexcept nogil:
    # An alert may wait to be sent; after it nothing goes either way.
    tls_flush(t, s)
    tls.ERR_clear_error()
    s.ready |= STREAM_ERROR
    s.ready &= ~STREAM_READABLE
    return STREAM_FAILED


cdef int64_t tls_recv(TlsStream* t, Stream* s, char* into, uint32_t room) noexcept nogil:
    cdef int got, error
    cdef int64_t filled
    if t.ended:
        return STREAM_END
    while True:
        got = tls.SSL_read(t.ssl, into, <int> room)
        if got > 0:
            t.established = True
            # What the library holds makes no edge: the caller asks until STREAM_AGAIN.
            s.ready |= STREAM_READABLE
            return got
        error = tls.SSL_get_error(t.ssl, got)
        if error == SSL_ERROR_ZERO_RETURN:
            t.ended = True
            s.ready &= ~STREAM_READABLE
            return STREAM_END
        if error != SSL_ERROR_WANT_READ:
            return _failed(t, s)
        tls_flush(t, s)
        filled = _fill(t, s)
        if filled == STREAM_AGAIN:
            return STREAM_AGAIN
        if filled < 0:
            # The end of the socket without close_notify: the data may have been cut off.
            return _failed(t, s)


cdef uint32_t _gather(const iovec* iov, uint32_t count, uint32_t* vector, size_t* offset,
                      const char** data) noexcept nogil:
    # The next record's plain text: as it stands where one vector has enough, else joined.
    cdef uint32_t have = 0
    cdef size_t part
    if iov[vector[0]].iov_len - offset[0] >= RECORD_BYTES or vector[0] + 1 == count:
        part = iov[vector[0]].iov_len - offset[0]
        part = part if part < RECORD_BYTES else RECORD_BYTES
        data[0] = <const char*> iov[vector[0]].iov_base + offset[0]
        offset[0] += part
        have = <uint32_t> part
    else:
        data[0] = plain_text
        while vector[0] < count and have < RECORD_BYTES:
            part = iov[vector[0]].iov_len - offset[0]
            part = part if part < RECORD_BYTES - have else RECORD_BYTES - have
            memcpy(plain_text + have, <const char*> iov[vector[0]].iov_base + offset[0], part)
            have += <uint32_t> part
            offset[0] += part
            if offset[0] == iov[vector[0]].iov_len and vector[0] + 1 <= count:
                vector[0] += 1
                offset[0] = 0
        return have
    if offset[0] == iov[vector[0]].iov_len:
        vector[0] += 1
        offset[0] = 0
    return have


cdef int64_t tls_send(TlsStream* t, Stream* s, const iovec* iov, uint32_t count) noexcept nogil:
    cdef uint32_t vector = 0, part
    cdef size_t offset = 0
    cdef const char* data
    cdef int64_t taken = 0
    if not tls_flush(t, s):
        return STREAM_FAILED if s.ready & STREAM_ERROR else 0
    while vector < count and taken < SEND_BYTES_MAX:
        part = _gather(iov, count, &vector, &offset, &data)
        if part == 0:
            continue
        if tls.SSL_write(t.ssl, data, <int> part) <= 0:
            # The handshake is not done, which the caller waits for, or the connection is broken.
            return _failed(t, s)
        taken += part
    if not tls_flush(t, s) and s.ready & STREAM_ERROR:
        return STREAM_FAILED
    return taken


cdef void tls_shutdown(TlsStream* t, Stream* s) noexcept nogil:
    if not t.established:
        return
    tls.SSL_shutdown(t.ssl)
    tls.ERR_clear_error()
    tls_flush(t, s)
