# The TLS library: the functions of the OpenSSL that `cryptography` ships, by their addresses.
#
# Contexts are made in Python with pyOpenSSL; the data path calls these pointers, without the GIL
# and without linking anything. tls_library_load fills them once per process, at the Python edge.

from libc.stdint cimport uintptr_t

cdef enum:                           # of <openssl/ssl.h>, the same in all versions since 1.1
    SSL_ERROR_NONE = 0
    SSL_ERROR_SSL = 1
    SSL_ERROR_WANT_READ = 2
    SSL_ERROR_WANT_WRITE = 3
    SSL_ERROR_SYSCALL = 5
    SSL_ERROR_ZERO_RETURN = 6
    SSL_SENT_SHUTDOWN = 1
    SSL_RECEIVED_SHUTDOWN = 2

ctypedef struct TlsLibrary:
    bint loaded
    void* (*SSL_new)(void* ctx) noexcept nogil
    void (*SSL_free)(void* ssl) noexcept nogil
    void (*SSL_set_bio)(void* ssl, void* reading, void* writing) noexcept nogil
    void (*SSL_set_accept_state)(void* ssl) noexcept nogil
    void (*SSL_set_connect_state)(void* ssl) noexcept nogil
    int (*SSL_do_handshake)(void* ssl) noexcept nogil
    int (*SSL_read)(void* ssl, void* into, int room) noexcept nogil
    int (*SSL_write)(void* ssl, const void* data, int count) noexcept nogil
    int (*SSL_pending)(const void* ssl) noexcept nogil
    int (*SSL_shutdown)(void* ssl) noexcept nogil
    int (*SSL_get_shutdown)(const void* ssl) noexcept nogil
    void (*SSL_set_shutdown)(void* ssl, int mode) noexcept nogil
    int (*SSL_get_error)(const void* ssl, int result) noexcept nogil
    long (*SSL_session_reused)(const void* ssl) noexcept nogil
    long (*SSL_get_verify_result)(const void* ssl) noexcept nogil
    void* (*SSL_get0_param)(void* ssl) noexcept nogil
    long (*SSL_set_tlsext_host_name)(void* ssl, const char* name) noexcept nogil
    int (*X509_VERIFY_PARAM_set1_host)(void* param, const char* name, size_t count) noexcept nogil
    int (*X509_VERIFY_PARAM_set1_ip)(void* param, const unsigned char* ip,
                                     size_t count) noexcept nogil
    const char* (*X509_verify_cert_error_string)(long error) noexcept nogil
    int (*SSL_set_session)(void* ssl, void* session) noexcept nogil
    void* (*SSL_get1_session)(void* ssl) noexcept nogil
    void (*SSL_SESSION_free)(void* session) noexcept nogil
    int (*SSL_version)(const void* ssl) noexcept nogil
    void (*SSL_get0_alpn_selected)(const void* ssl, const unsigned char** data,
                                   unsigned int* count) noexcept nogil
    int (*SSL_set_tlsext_status_ocsp_resp)(void* ssl, void* response, int count) noexcept nogil
    void* (*OPENSSL_malloc)(size_t count) noexcept nogil
    void* (*BIO_new)(const void* method) noexcept nogil
    const void* (*BIO_s_mem)() noexcept nogil
    int (*BIO_free)(void* bio) noexcept nogil
    int (*BIO_read)(void* bio, void* into, int room) noexcept nogil
    int (*BIO_write)(void* bio, const void* data, int count) noexcept nogil
    long (*BIO_get_mem_data)(void* bio, char** data) noexcept nogil
    void (*ERR_clear_error)() noexcept nogil
    unsigned long (*ERR_get_error)() noexcept nogil
    const char* (*ERR_reason_error_string)(unsigned long error) noexcept nogil

cdef TlsLibrary tls
