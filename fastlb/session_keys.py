"""From a session's key, as the client has it, to the hash under which its map is kept.

The same as the core does on the way of a request (persist_ip, key and the other methods of
_core): a keyed hash of the value; of several parts, each with its length in front.
"""

import ipaddress
import re

from fastlb import errors
from fastlb._core.siphash import keyed_hash
from fastlb.config import AspClass, CacheClass, IpClass, J2eeClass, SslClass, UniversalClass
from fastlb.errors import Refused

KEY_SESSION = 0  # of PlanKeyUse in _core/plan.pxd
CLASSIC_ASP = re.compile(rb"(ASPSESSIONID[A-Z]{8})=(.+)", re.DOTALL)
SESSION_ID_BYTES_MAX = 32  # RFC 5246 7.4.1.2; any ticket is longer
TICKET, SESSION_ID = (kind.to_bytes(8, "little") for kind in (1, 2))  # of _core/tls_hello.pyx
MAPPED = bytes(10) + b"\xff\xff"  # in front of an IPv4 address (RFC 4291 2.5.5.2)


def key_hash(keys: list[bytes], name: str, cls: CacheClass, parts: list[bytes]) -> bytes:
    """The hash of one key of a class. Raises Refused when it can be no key of it."""
    wanted = _parts_of(cls)
    if len(parts) != len(wanted):
        reason = f"a key has {len(wanted)} parts ({', '.join(wanted)}), not {len(parts)}"
        if len(wanted) == 1:
            reason = f"a key is one value ({wanted[0]}), not {len(parts)}"
        raise Refused(errors.BAD_SESSION_KEY, name=name, reason=reason)
    if not all(parts):
        raise Refused(errors.BAD_SESSION_KEY, name=name, reason="an empty value is no key")
    return keyed_hash(keys[KEY_SESSION], _hashed(name, cls, wanted, parts))


def _parts_of(cls: CacheClass) -> list[str]:
    """What a key of the class consists of, in words."""
    if isinstance(cls, UniversalClass):
        return [str(part) for part in cls.key or cls.learn] or ["the key that a rule sets"]
    known = {"ip": "a client's address", "ssl": "a TLS session id or ticket in hexadecimal digits"}
    return [known.get(cls.type, "a session id")]


def _hashed(name: str, cls: CacheClass, wanted: list[str], parts: list[bytes]) -> bytes:
    """The bytes that are hashed."""
    values = [_part(name, what, part) for what, part in zip(wanted, parts, strict=True)]
    if len(values) > 1:
        return b"".join(len(value).to_bytes(8, "little") + value for value in values)
    (value,) = values
    match cls:
        case IpClass():
            return _ip_bytes(name, value, cls.ipv4_prefix, cls.ipv6_prefix)
        case J2eeClass():
            return _without_route(value, cls.route_separators.encode())
        case AspClass() if classic := CLASSIC_ASP.fullmatch(value):
            return b"\0" + classic[1] + classic[2]
        case SslClass():
            return _tls_session(name, value)
        case _:
            return value


def _part(name: str, what: str, part: bytes) -> bytes:
    """One part as the core reads it in a request."""
    match what:
        case "source":
            return _ip_bytes(name, part)
        case "host" | "sni":
            return part.lower().removesuffix(b".")
        case _:
            return part


def _ip_bytes(name: str, text: bytes, ipv4_prefix: int = 32, ipv6_prefix: int = 128) -> bytes:
    try:
        ip = ipaddress.ip_address(text.decode())
        if isinstance(ip, ipaddress.IPv6Address) and ip.scope_id is not None:
            raise ValueError
    except ValueError:
        reason = f'"{text.decode(errors="replace")}" is no IP address'
        raise Refused(errors.BAD_SESSION_KEY, name=name, reason=reason) from None
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    prefix = ipv4_prefix if ip.version == 4 else ipv6_prefix
    packed = ipaddress.ip_network((ip, prefix), strict=False).network_address.packed
    return MAPPED + packed if ip.version == 4 else packed


def _without_route(value: bytes, separators: bytes) -> bytes:
    ends = [at for at in (value.find(bytes([one])) for one in separators) if at >= 0]
    return value[: min(ends, default=len(value))]


def _tls_session(name: str, value: bytes) -> bytes:
    try:
        session = bytes.fromhex(value.decode().replace(":", ""))
    except ValueError:
        reason = "a TLS session id or ticket is written in hexadecimal digits"
        raise Refused(errors.BAD_SESSION_KEY, name=name, reason=reason) from None
    return (SESSION_ID if len(session) <= SESSION_ID_BYTES_MAX else TICKET) + session
