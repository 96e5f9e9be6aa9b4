# TLS towards nodes (contract in node_tls.pxd).
#
# The name that is asked for (RFC 6066 3) is the one that is verified: the pool's, else the host
# that the request is for, else the node's address. A connection, and a session, serve the same
# name only: what a node has proven for one says nothing of another.

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy

from fastlb._core.address cimport (
    Address, address_from_text, address_ip_text, address_is_ipv4,
)
from fastlb._core.connection cimport Exchange, NodeConn, NodeSession, TlsStream, Worker
from fastlb._core.limits cimport NODES_MAX
from fastlb._core.plan cimport POOL_TLS, PlanNode, plan_nodes, plan_text
from fastlb._core.request cimport request_head_at
from fastlb._core.route cimport route_host
from fastlb._core.slice cimport Slice, ascii_lower, slice_equal, slice_of
from fastlb._core.stats cimport NodeStats
from fastlb._core.stream cimport STREAM_AGAIN
from fastlb._core.tls_library cimport tls
from fastlb._core.tls_stream cimport tls_flush, tls_handshake, tls_open

cdef enum:                           # of <openssl/sslerr.h> and <openssl/x509_vfy.h>
    REASON_MASK = 0xFFFF             # of an error's number; those of SSL end below
    SSL_R_CERTIFICATE_VERIFY_FAILED = 134
    SSL_R_TLSV1_UNRECOGNIZED_NAME = 1112
    X509_V_ERR_HOSTNAME_MISMATCH = 62
    X509_V_ERR_IP_ADDRESS_MISMATCH = 64

cdef enum:
    IPV4_AT = 12                     # in Address.ip
    ADDRESS_BYTES = 16

cdef uint64_t kept_sessions = 0


cdef const void* node_tls_context(const Exchange* x) noexcept nogil:
    if not x.pool.flags & POOL_TLS or x.snapshot.contexts == NULL:
        return NULL
    return x.snapshot.contexts[x.pool.tls_context]


# The host that the request is for, as a certificate would name it; empty: none could.
cdef Slice _host(const Exchange* x) noexcept nogil:
    cdef Slice name = route_host(
        slice_of(request_head_at(x) + (x.host - x.head_start), x.host_bytes))
    cdef uint32_t i
    if name.bytes > 2 and name.at[0] == c'[' and name.at[name.bytes - 1] == c']':
        return slice_of(name.at + 1, name.bytes - 2)
    for i in range(name.bytes):
        if not (c'a' <= ascii_lower(name.at[i]) <= c'z' or c'0' <= name.at[i] <= c'9'
                or name.at[i] in (c'.', c'-', c'_')):
            return slice_of("", 0)
    return name


cdef Slice node_tls_name(const Exchange* x, const Address* node, char* room) noexcept nogil:
    cdef Slice name = slice_of("", 0)
    cdef uint32_t i
    if x.pool.tls_server_name.bytes:
        name = slice_of(plan_text(x.snapshot.plan, x.pool.tls_server_name),
                        x.pool.tls_server_name.bytes)
    elif not x.passage and x.host_bytes:
        name = _host(x)
    if name.bytes >= NODE_NAME_BYTES:
        name.bytes = 0
    for i in range(name.bytes):
        room[i] = ascii_lower(name.at[i])
    if name.bytes == 0:
        name.bytes = address_ip_text(node, room)
    room[name.bytes] = 0
    return slice_of(room, name.bytes)


# --- who it has to be ---------------------------------------------------------------------

cdef bint _demand(void* ssl, Slice name) noexcept nogil:
    # `name` ends with a NUL.
    cdef void* param = tls.SSL_get0_param(ssl)
    cdef Address address
    if address_from_text(&address, name.at, name.bytes):
        if address_is_ipv4(&address):
            return tls.X509_VERIFY_PARAM_set1_ip(param, address.ip + IPV4_AT,
                                                 ADDRESS_BYTES - IPV4_AT) == 1
        return tls.X509_VERIFY_PARAM_set1_ip(param, address.ip, ADDRESS_BYTES) == 1
    # What no certificate can name is not asked for either.
    return (tls.X509_VERIFY_PARAM_set1_host(param, name.at, name.bytes) == 1
            and tls.SSL_set_tlsext_host_name(ssl, name.at) == 1)


# Whether the client had its say in the name, by its Host or by leaving it out.
cdef inline bint _is_clients(const Exchange* x) noexcept nogil:
    return not x.passage and x.pool.tls_server_name.bytes == 0


cdef bint _knows(const NodeSession* known, const Exchange* x, Slice name) noexcept nogil:
    # A plan of its own: another one may demand more of a node.
    return (known != NULL and known.session != NULL
            and known.generation == x.snapshot.plan.generation
            and known.name_bytes == name.bytes
            and memcmp(known.name, name.at, name.bytes) == 0)


cdef bint node_tls_open(Worker* w, Exchange* x) noexcept nogil:
    cdef char[NODE_NAME_BYTES] room
    cdef void* context = <void*> node_tls_context(x)
    cdef NodeSession* known = w.node_sessions[x.node.slot]
    cdef TlsStream* t
    cdef Slice name
    if context == NULL:
        return False
    t = tls_open(context, False)
    if t == NULL:
        return False
    x.node.stream.tls = t
    t.context = context
    t.generation = x.snapshot.plan.generation
    name = node_tls_name(x, &x.node.address, room)
    if not _demand(t.ssl, name):
        # The library is stricter than HTTP: by its address, as without a name.
        tls.ERR_clear_error()
        name.bytes = address_ip_text(&x.node.address, room)
        room[name.bytes] = 0
        if not _is_clients(x) or not _demand(t.ssl, name):
            tls.ERR_clear_error()
            return False
    t.sni_bytes = <unsigned char> name.bytes
    memcpy(t.sni, name.at, name.bytes)
    if _knows(known, x, name):
        tls.SSL_set_session(t.ssl, known.session)
    return True


# --- the handshake ------------------------------------------------------------------------

# The client chose the name, so it tells nothing of the node that it has none for it.
cdef bint _is_misnamed(const Exchange* x, const TlsStream* t) noexcept nogil:
    if not _is_clients(x):
        return False
    if t.error & REASON_MASK == SSL_R_CERTIFICATE_VERIFY_FAILED:
        return x.verify_error in (X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH)
    return t.error & REASON_MASK == SSL_R_TLSV1_UNRECOGNIZED_NAME


cdef int node_tls_shake(Worker* w, Exchange* x) noexcept nogil:
    cdef NodeStats* stats = &w.stats.nodes[x.node.slot]
    cdef NodeSession* known = w.node_sessions[x.node.slot]
    cdef TlsStream* t = x.node.stream.tls
    cdef int result = tls_handshake(t, &x.node.stream)
    if result == STREAM_AGAIN:
        return 0
    if result < 0:
        x.verify_error = <unsigned short> tls.SSL_get_verify_result(t.ssl)
        x.tls_error = t.error
        x.misnamed = _is_misnamed(x, t)
        if x.misnamed:
            return -1
        stats.handshake_failures += 1
        if _knows(known, x, slice_of(t.sni, t.sni_bytes)):
            _forget(known)           # it may have been the session
        return -1
    stats.handshakes += 1
    if tls.SSL_session_reused(t.ssl):
        stats.handshakes_resumed += 1
    if x.passage and not x.up.run_bytes:
        # Nothing follows at once that it could go out with.
        tls_flush(t, &x.node.stream)
    return 1


cdef bint node_tls_doubtful(const Worker* w, const Exchange* x) noexcept nogil:
    # Servers refuse a name that they do not have by any alert, by a reset, with a certificate of
    # whomever, or not at all.
    cdef const TlsStream* t = x.node.stream.tls
    cdef const PlanNode* nodes = plan_nodes(x.snapshot.plan, x.pool)
    cdef const NodeSession* known
    cdef uint32_t i
    if t == NULL or not _is_clients(x):
        return False
    for i in range(x.pool.node_count):
        known = w.node_sessions[nodes[i].slot]
        if known != NULL and known.generation == t.generation \
                and slice_equal(slice_of(known.name, known.name_bytes),
                                slice_of(t.sni, t.sni_bytes)):
            return False             # what one of them has proven, nobody has made up
    return True


# --- sessions -----------------------------------------------------------------------------

cdef void _forget(NodeSession* known) noexcept nogil:
    global kept_sessions
    if known != NULL and known.session != NULL:
        tls.SSL_SESSION_free(known.session)
        known.session = NULL
        kept_sessions -= 1


cdef void node_tls_keep(Worker* w, NodeConn* n) noexcept nogil:
    global kept_sessions
    # Not before data has come: the tickets of TLS 1.3 come with it.
    cdef TlsStream* t = n.stream.tls
    cdef NodeSession* known = w.node_sessions[n.slot]
    if not t.established or t.kept:
        return
    if known == NULL:
        known = <NodeSession*> calloc(1, sizeof(NodeSession))
        if known == NULL:
            return
        w.node_sessions[n.slot] = known
    t.kept = True
    _forget(known)
    known.session = tls.SSL_get1_session(t.ssl)
    if known.session == NULL:
        return
    kept_sessions += 1
    known.generation = t.generation
    known.name_bytes = t.sni_bytes
    memcpy(known.name, t.sni, t.sni_bytes)


cdef void node_tls_forget_all(Worker* w) noexcept nogil:
    cdef uint32_t slot
    for slot in range(<uint32_t> NODES_MAX):
        _forget(w.node_sessions[slot])
        free(w.node_sessions[slot])
        w.node_sessions[slot] = NULL


cdef uint64_t node_tls_count() noexcept nogil:
    return kept_sessions
