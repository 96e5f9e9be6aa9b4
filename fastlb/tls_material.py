"""What TLS contexts are made of: read by the control process, used by the workers.

It travels inside the plan, which only the workers can read: so a worker needs no right to the key
files, and all workers have the same.
"""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec
from msgspec import Struct, field

View = memoryview | bytes | bytearray  # secrets are looked at where the plan has them


class ServerMaterial(Struct, array_like=True, frozen=True):
    """What all certificates of one virtual server share."""

    name: str
    min_version: str = "1.2"
    ciphers: str = ""  # of TLS 1.2; empty: the library's
    ciphersuites: str = ""
    tickets: bool = True
    client_certificates: str = "off"
    client_ca: tuple[bytes, ...] = ()  # DER


class CertificateMaterial(Struct, array_like=True, frozen=True):
    """One certificate of one virtual server."""

    server: int
    chain: tuple[bytes, ...]  # DER, its own first
    key: bytes  # DER, not encrypted
    ocsp: bytes = b""  # DER; empty: none
    ocsp_until_s: int = 0  # 0: it does not say


class PoolMaterial(Struct, array_like=True, frozen=True):
    """TLS towards the nodes of one pool."""

    verify: bool = True
    authorities: int = -1  # in Material.authorities
    server_name: str = ""  # empty: whoever connects sets the name to be verified
    chain: tuple[bytes, ...] = ()
    key: bytes = b""


class Material(Struct, array_like=True, frozen=True):
    """All contexts of one plan."""

    servers: tuple[ServerMaterial, ...] = ()
    certificates: tuple[CertificateMaterial, ...] = ()
    pools: tuple[PoolMaterial, ...] = ()
    authorities: tuple[tuple[bytes, ...], ...] = ()  # lists that several pools may share
    ticket_keys: list[memoryview] = field(default_factory=list)


class NodeTls(NamedTuple):
    """What a context towards nodes is made of, complete."""

    material: PoolMaterial
    trusted: tuple[bytes, ...]


UNVERIFIED = NodeTls(PoolMaterial(verify=False), ())  # whoever is there


class TlsFiles(NamedTuple):
    """What the plan needs of the files of a configuration."""

    material: Material
    names: dict[str, dict[str, int]]  # by virtual server: certificate by server name
    first: dict[str, int]  # by virtual server: the certificate for all other names
    pools: dict[str, int]  # number of the pool's context behind those of the certificates
    monitors: dict[str, NodeTls]  # of those that have a `tls` of their own

    def of_pool(self, name: str) -> NodeTls | None:
        """TLS towards a pool's nodes; None: they are spoken to in plain text."""
        if name not in self.pools:
            return None
        pool = self.material.pools[self.pools[name]]
        trusted = self.material.authorities[pool.authorities] if pool.authorities >= 0 else ()
        return NodeTls(msgspec.structs.replace(pool, authorities=-1), trusted)


NOTHING = TlsFiles(Material(), {}, {}, {}, {})


def encode(material: Material, ticket_keys: Iterable[bytearray]) -> bytes:
    """The bytes of PlanTls.material."""
    views = [memoryview(key) for key in ticket_keys]
    return msgspec.msgpack.encode(msgspec.structs.replace(material, ticket_keys=views))


def decode(data: View) -> Material:
    """Of these bytes; the ticket keys are views of `data`, not copies."""
    return msgspec.msgpack.decode(data, type=Material)
