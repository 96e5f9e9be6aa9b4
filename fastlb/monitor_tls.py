"""TLS of monitors: the same contexts as towards nodes otherwise, moved by asyncio."""

import ipaddress
from functools import lru_cache
from typing import Any

from cryptography.hazmat.bindings._rust import _openssl
from OpenSSL import SSL

from fastlb import tls_contexts
from fastlb.monitor_link import Failed, PlainLink
from fastlb.tls_material import NodeTls

lib: Any = _openssl.lib
ffi: Any = _openssl.ffi

READ_BYTES = 16 << 10
RECORDS_MAX = 64  # of a handshake, each way: a node that never ends one


@lru_cache(maxsize=256)
def context_of(tls: NodeTls) -> SSL.Context:
    """One for all checks of the same kind."""
    return tls_contexts.pool_context(tls.material, tls.trusted)


class TlsLink:
    """TLS over another link; certificates are verified as for requests."""

    def __init__(self, below: PlainLink, tls: NodeTls, name: str) -> None:
        self.below = below
        self.tls = SSL.Connection(context_of(tls), None)
        self.tls.set_connect_state()
        name = tls.material.server_name or _host_of(name)
        if not _is_ip(name):
            self.tls.set_tlsext_host_name(name.encode())
        if tls.material.verify and not tls.material.server_name:
            tls_contexts.demand_name(lib.SSL_get0_param(self.tls._ssl), name)

    async def handshake(self) -> None:
        """Raises Failed."""
        for _ in range(RECORDS_MAX):
            try:
                self.tls.do_handshake()
            except SSL.WantReadError:
                await self._flush()
                await self._fill("the connection ended in the TLS handshake")
            except SSL.Error as error:
                await self._flush()  # the alert
                raise Failed(f"TLS: {self._said(error)}") from None
            else:
                await self._flush()
                return
        raise Failed("TLS: a handshake without end")

    async def send(self, data: bytes) -> None:
        try:
            self.tls.sendall(data)
        except SSL.Error as error:
            raise Failed(f"TLS: {self._said(error)}") from None
        await self._flush()

    async def receive(self) -> bytes:
        while True:
            try:
                return self.tls.recv(READ_BYTES)
            except SSL.WantReadError:
                await self._flush()
                if not await self._fill(""):
                    return b""
            except SSL.ZeroReturnError:
                return b""
            except SSL.Error as error:
                raise Failed(f"TLS: {self._said(error)}") from None

    def close(self) -> None:
        self.below.close()

    async def _flush(self) -> None:
        while True:
            try:
                data = self.tls.bio_read(READ_BYTES)
            except SSL.WantReadError:
                return
            await self.below.send(data)

    async def _fill(self, at_end: str) -> bool:
        data = await self.below.receive()
        if data:
            self.tls.bio_write(data)
        elif at_end:
            raise Failed(at_end)
        return bool(data)

    def _said(self, error: SSL.Error) -> str:
        """OpenSSL's reasons; of a certificate that is refused, why."""
        verdict = lib.SSL_get_verify_result(self.tls._ssl)
        if verdict:
            return str(ffi.string(lib.X509_verify_cert_error_string(verdict)).decode())
        reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
        return ", ".join(str(one[-1]) for one in reasons) or "the handshake failed"


def _host_of(text: str) -> str:
    """A host without its port: `[::1]:80`, `app:80`, `app`."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text if text.count(":") > 1 else text.partition(":")[0]


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
