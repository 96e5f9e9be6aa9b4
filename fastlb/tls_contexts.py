"""TLS contexts, in a worker: of the plan's material, with pyOpenSSL.

What is set here is what no client can change later. No Python function is ever a callback: the
protocol and the stapled response are chosen by the core's own functions (_core/tls_callbacks).

A context whose material did not change is kept over a reload, so its sessions are, too, and a
reload costs what has changed. A session is resumed only under the same certificate, virtual server
and demands on clients: the session id context is a hash of them.
"""

import hashlib
import ipaddress
import os
import time
from collections import deque
from contextlib import suppress
from functools import lru_cache
from typing import Any

import msgspec
from cryptography.hazmat.bindings._rust import _openssl
from OpenSSL import SSL, crypto

from fastlb import tls_addresses
from fastlb._core.tls_callbacks import Staple, select_protocol_address, staple_address
from fastlb.ticket_keys import KEY_BYTES, LIFETIME_S
from fastlb.tls_material import (
    CertificateMaterial,
    Material,
    PoolMaterial,
    ServerMaterial,
    View,
    decode,
)
from fastlb.tls_tickets import Layout, NotShared, share_key, shared_layout, write_key

ffi: Any = _openssl.ffi
lib: Any = _openssl.lib

# Of <openssl/ssl.h> and <openssl/x509_vfy.h>, where cffi does not have them.
OP_PRIORITIZE_CHACHA = 1 << 21  # where the client prefers it: it has no AES in hardware
MODE_NO_AUTO_CHAIN = 8  # what is sent is what the file has, not what client_ca would add
HOST_FLAGS = lib.X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS

# One list is one choice: whatever of it the client sent a share for is used, without another
# round trip for a better one.
GROUPS = (b"X25519MLKEM768:X25519:P-256:P-384", b"X25519:P-256:P-384")
VERIFY_DEPTH = 8
SESSION_IDS_MAX = 64  # certificates up to which sessions are kept by id: each may keep 20,480
RETIRED_S = 2 * 3600.0  # longer than the longest handshake may take
VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
MODES = SSL.MODE_RELEASE_BUFFERS | MODE_NO_AUTO_CHAIN
OPTIONS = SSL.OP_NO_COMPRESSION | lib.SSL_OP_NO_RENEGOTIATION
SERVER_OPTIONS = OPTIONS | SSL.OP_CIPHER_SERVER_PREFERENCE | OP_PRIORITIZE_CHACHA


class One:
    """A context that some plans of this worker use."""

    def __init__(self, mark: bytes, context: SSL.Context) -> None:
        self.mark = mark
        self.context = context
        self.address = tls_addresses.pointer_of(context)
        self.uses = 0
        self.key_at: Layout | None = None  # a shared ticket key was written there
        self.kept: list[object] = []  # that the library has addresses of


class Built:
    """The contexts of one plan, in PlanTls's order; each counts as used until `release`."""

    def __init__(self, ones: list[One]) -> None:
        self.ones = ones
        self.addresses = [one.address for one in ones]
        for one in ones:
            one.uses += 1

    def release(self) -> None:
        """The plan is gone."""
        for one in self.ones:
            one.uses -= 1
            if not one.uses:
                _retire(one)
        self.ones = []


_known: dict[bytes, One] = {}
_retired: deque[tuple[float, One]] = deque()


def build(data: View) -> Built:
    """The contexts of this material; raises whatever makes one of them impossible."""
    _bury()
    material = decode(data)
    made: list[One] = []
    try:
        ones = _server_contexts(material, made) + _pool_contexts(material, made)
    except BaseException:
        for one in made:
            _retire(one)
        raise
    return Built(ones)


def _retire(one: One) -> None:
    """Nobody begins with it any more; who did may still be in its handshake."""
    _known.pop(one.mark, None)
    if one.key_at is not None:
        # The library frees the key without clearing it. Not to zeros: a ticket that is granted
        # all the same must be worth nothing.
        with suppress(NotShared):
            write_key(one.address, one.key_at, os.urandom(KEY_BYTES))
    _retired.append((time.monotonic(), one))


def _bury() -> None:
    while _retired and time.monotonic() - _retired[0][0] > RETIRED_S:
        _retired.popleft()


def _keep(one: One, made: list[One]) -> One:
    _known[one.mark] = one
    made.append(one)
    return one


def _mark(*content: object) -> bytes:
    return hashlib.sha256(msgspec.msgpack.encode(content)).digest()


# --- towards clients ----------------------------------------------------------------------


def _server_contexts(material: Material, made: list[One]) -> list[One]:
    """For each certificate one per ticket key."""
    out: list[One] = []
    shares = any(material.servers[one.server].tickets for one in material.certificates)
    layout = shared_layout() if shares else None
    ids = len(material.certificates) <= SESSION_IDS_MAX
    for certificate in material.certificates:
        server = material.servers[certificate.server]
        certificate = msgspec.structs.replace(certificate, server=0)  # its number is no content
        content = _mark(server, certificate, ids)
        if layout is None or not server.tickets:
            # Its own keys, or none: one context is as good as several.
            one = _known.get(content) or _server_one(content, server, certificate, ids, made)
            out += [one] * len(material.ticket_keys)
            continue
        for key in material.ticket_keys:
            mark = _mark(content, key)
            found = _known.get(mark)
            if found is None:
                found = _server_one(mark, server, certificate, ids, made)
                found.key_at = layout if share_key(found.address, layout, key) else None
            out.append(found)
    return out


def _server_one(
    mark: bytes, server: ServerMaterial, certificate: CertificateMaterial, ids: bool,
    made: list[One],
) -> One:  # fmt: skip
    one = One(mark, SSL.Context(SSL.TLS_SERVER_METHOD))
    context = one.context
    context.set_min_proto_version(VERSIONS[server.min_version])
    _common(context)
    context.set_options(SERVER_OPTIONS | (0 if server.tickets else SSL.OP_NO_TICKET))
    if server.ciphers:
        context.set_cipher_list(server.ciphers.encode())
    if server.ciphersuites:
        context.set_tls13_ciphersuites(server.ciphersuites.encode())
    _identity(context, certificate.chain, certificate.key)
    by_id = ids or not server.tickets
    context.set_session_cache_mode(SSL.SESS_CACHE_SERVER if by_id else SSL.SESS_CACHE_OFF)
    context.set_timeout(int(LIFETIME_S))
    asked = (server.name, server.client_certificates, server.client_ca, certificate.chain)
    context.set_session_id(_mark(*asked))
    _client_certificates(context, server)
    _callbacks(one, certificate)
    return _keep(one, made)


def try_server(server: ServerMaterial, certificate: CertificateMaterial) -> None:
    """Raises what would make this context impossible."""
    _known.pop(_server_one(b"", server, certificate, True, []).mark)


def _client_certificates(context: SSL.Context, server: ServerMaterial) -> None:
    if server.client_certificates == "off":
        return
    required = server.client_certificates == "required"
    context.set_verify(SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if required else 0))
    context.set_verify_depth(VERIFY_DEPTH)
    _trust(context, server.client_ca)
    for one in server.client_ca:
        _succeeded(lib.SSL_CTX_add_client_CA(context._context, _certificate(one)._x509))


def _callbacks(one: One, certificate: CertificateMaterial) -> None:
    context = one.context._context
    select = ffi.typeof(lib.SSL_CTX_set_alpn_select_cb).args[1]
    lib.SSL_CTX_set_alpn_select_cb(context, ffi.cast(select, select_protocol_address()), ffi.NULL)
    if certificate.ocsp:
        staple = Staple(certificate.ocsp, certificate.ocsp_until_s)
        one.kept.append(staple)
        kind = ffi.typeof(lib.SSL_CTX_set_tlsext_status_cb).args[1]
        lib.SSL_CTX_set_tlsext_status_cb(context, ffi.cast(kind, staple_address()))
        lib.SSL_CTX_set_tlsext_status_arg(context, ffi.cast("void *", staple.address))


# --- towards nodes ------------------------------------------------------------------------


def _pool_contexts(material: Material, made: list[One]) -> list[One]:
    out = []
    for pool in material.pools:
        trusted = material.authorities[pool.authorities] if pool.authorities >= 0 else ()
        mark = _mark(msgspec.structs.replace(pool, authorities=0), trusted)
        out.append(_known.get(mark) or _pool_one(mark, pool, trusted, made))
    return out


def _pool_one(mark: bytes, pool: PoolMaterial, trusted: tuple[bytes, ...], made: list[One]) -> One:
    return _keep(One(mark, pool_context(pool, trusted)), made)


def pool_context(pool: PoolMaterial, trusted: tuple[bytes, ...]) -> SSL.Context:
    """For connections to nodes."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    _common(context)
    context.set_options(OPTIONS)
    # Whoever connects keeps the sessions, by node: the library would mix those of all nodes.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_verify(SSL.VERIFY_PEER if pool.verify else SSL.VERIFY_NONE)
    _trust(context, trusted)
    param = lib.SSL_CTX_get0_param(context._context)
    lib.X509_VERIFY_PARAM_set_hostflags(param, HOST_FLAGS)
    if pool.server_name:
        demand_name(param, pool.server_name)
    if pool.chain:
        _identity(context, pool.chain, pool.key)
    return context


def demand_name(param: Any, name: str) -> None:
    """A certificate must be for this host or address."""
    try:
        ip = ipaddress.ip_address(name).packed
    except ValueError:
        text = name.encode()
        _succeeded(lib.X509_VERIFY_PARAM_set1_host(param, text, len(text)))
    else:
        _succeeded(lib.X509_VERIFY_PARAM_set1_ip(param, ip, len(ip)))


def try_pool(pool: PoolMaterial, trusted: tuple[bytes, ...]) -> None:
    """Raises what would make this context impossible."""
    _known.pop(_pool_one(b"", pool, trusted, []).mark)


# --- both ---------------------------------------------------------------------------------


def _common(context: SSL.Context) -> None:
    context.set_mode(MODES)
    for groups in GROUPS:
        if lib.SSL_CTX_set1_curves_list(context._context, groups) == 1:
            break
        lib.ERR_clear_error()
    else:
        raise ValueError("the TLS library knows none of the usual groups")


def _identity(context: SSL.Context, chain: tuple[bytes, ...], key: bytes) -> None:
    own, *issuers = map(_certificate, chain)
    _succeeded(lib.SSL_CTX_use_certificate(context._context, own._x509))
    for issuer in issuers:
        _succeeded(lib.X509_up_ref(issuer._x509))  # for the context, which does not do it itself
        _succeeded(lib.SSL_CTX_add_extra_chain_cert(context._context, issuer._x509))
    private = crypto.load_privatekey(crypto.FILETYPE_ASN1, key)
    _succeeded(lib.SSL_CTX_use_PrivateKey(context._context, private._pkey))
    _succeeded(lib.SSL_CTX_check_private_key(context._context))


def _trust(context: SSL.Context, authorities: tuple[bytes, ...]) -> None:
    store = lib.SSL_CTX_get_cert_store(context._context)
    for one in authorities:
        _succeeded(lib.X509_STORE_add_cert(store, _certificate(one)._x509))


@lru_cache(maxsize=256)  # most chains of a configuration have the same issuers
def _certificate(der: bytes) -> Any:
    return crypto.load_certificate(crypto.FILETYPE_ASN1, der)


def _succeeded(result: int) -> None:
    if result != 1:
        raise SSL.Error(reasons())


def reasons() -> str:
    """What the library says of the call that failed last."""
    found = []
    while code := lib.ERR_get_error():
        text = lib.ERR_reason_error_string(code)
        if text != ffi.NULL:
            found.append(ffi.string(text).decode("ascii", "replace"))
    return ", ".join(dict.fromkeys(found)) or "the library does not say why"


def peer_certificate(ssl: int) -> bytes:
    """The peer's certificate on the SSL at this address, DER; empty when it showed none."""
    found = lib.SSL_get_peer_certificate(ffi.cast("SSL *", ssl))
    if found == ffi.NULL:
        return b""
    certificate = crypto.X509._from_raw_x509_ptr(found)
    return crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)


def peer_subject(ssl: int) -> bytes:
    """The subject of the peer's certificate on the SSL at this address (RFC 4514); empty when it
    showed none."""
    found = lib.SSL_get_peer_certificate(ffi.cast("SSL *", ssl))
    if found == ffi.NULL:
        return b""
    certificate = crypto.X509._from_raw_x509_ptr(found)
    text = certificate.to_cryptography().subject.rfc4514_string()
    # It goes into a field of a request, where a line end in a name must not be one.
    return b"".join(
        bytes((byte,)) if 0x20 <= byte < 0x7F else b"\\%02X" % byte for byte in text.encode()
    )
