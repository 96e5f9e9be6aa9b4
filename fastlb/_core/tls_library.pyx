# `addresses` come from cffi (fastlb/tls_addresses.py); a name that is missing is an error at
# start-up, never a call through a wild pointer.

from libc.stdint cimport uintptr_t

NAMES = (
    "SSL_new", "SSL_free", "SSL_set_bio", "SSL_set_accept_state", "SSL_set_connect_state",
    "SSL_do_handshake", "SSL_read", "SSL_write", "SSL_pending", "SSL_shutdown", "SSL_get_shutdown",
    "SSL_set_shutdown", "SSL_get_error", "SSL_session_reused", "SSL_get_verify_result",
    "SSL_get0_param", "SSL_set_tlsext_host_name", "X509_VERIFY_PARAM_set1_host",
    "X509_VERIFY_PARAM_set1_ip", "X509_verify_cert_error_string", "SSL_set_session",
    "SSL_get1_session", "SSL_SESSION_free", "SSL_version",
    "SSL_get0_alpn_selected", "SSL_set_tlsext_status_ocsp_resp", "OPENSSL_malloc", "BIO_new",
    "BIO_s_mem", "BIO_free", "BIO_read", "BIO_write", "BIO_get_mem_data", "ERR_clear_error",
    "ERR_get_error", "ERR_reason_error_string",
)


def tls_library_load(addresses: dict):
    """Take the functions' addresses, by name. Raises KeyError for one that is missing."""
    cdef list found = [addresses[name] for name in NAMES]
    cdef void** slot = <void**> &tls.SSL_new
    cdef int i
    if sizeof(TlsLibrary) != (len(NAMES) + 1) * sizeof(void*):
        raise ImportError("fastlb._core.tls_library: NAMES and TlsLibrary differ")
    for i in range(len(found)):
        slot[i] = <void*> <uintptr_t> found[i]
    tls.loaded = True
