"""Which addresses a host name has: /etc/hosts first, then DNS, with the time until that may change.

Questions of DNS are dnspython's, whose import costs a start a while: this module is imported where
a configuration has host names.
"""

import asyncio
import ipaddress
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.resolver

from fastlb.host_names import ADDRESSES_MAX
from fastlb.units import IP, InetAddress, read_ip

HOSTS = Path("/etc/hosts")
RESOLV_CONF = Path("/etc/resolv.conf")
ANSWER_S = 5.0  # for all that is asked of DNS about one name
TTL_MIN_S, TTL_MAX_S = 1.0, 3600.0
HALF_TTL_S = 5.0  # while one kind of address could not be asked for
HOSTS_TTL_S = 5.0  # of what is in the file: how often it is looked at


class Unresolved(Exception):
    """A name whose addresses are not known now; the text says why."""


class Found(NamedTuple):
    """The addresses of a name, in order."""

    addresses: tuple[IP, ...]
    ttl_s: float
    more: int = 0  # that are left out


class HostsFile:
    """The names in a file like /etc/hosts (hosts(5)), read again when it has changed."""

    def __init__(self, path: Path = HOSTS) -> None:
        self.path = path
        self._mark: tuple[int, ...] | None = None
        self._names: dict[str, tuple[IP, ...]] = {}

    def look_up(self, name: str) -> tuple[IP, ...]:
        """None of its addresses: it is not in the file."""
        self.is_changed()
        return self._names.get(name, ())

    def is_changed(self) -> bool:
        """Whether it reads otherwise than when it was looked at last."""
        mark = stamp(self.path)
        if mark == self._mark:
            return False
        self._mark = mark
        try:
            text = self.path.read_text(errors="replace")
        except OSError:
            text = ""
        before, self._names = self._names, _hosts(text)
        return before != self._names


def _hosts(text: str) -> dict[str, tuple[IP, ...]]:
    names: dict[str, tuple[IP, ...]] = {}
    for line in text.splitlines():
        address, *known_as = line.partition("#")[0].split() or [""]
        ip = read_ip(address)
        for name in known_as if ip is not None else ():
            name = name.lower().removesuffix(".")
            if ip not in names.get(name, ()):
                names[name] = (*names.get(name, ()), ip)  # type: ignore[arg-type]
    return names


def stamp(path: Path) -> tuple[int, ...] | None:
    """What changes when the file does; None: it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


class Resolver:
    """Asks these servers, or those of /etc/resolv.conf, which is read again when it changes."""

    def __init__(self, servers: Iterable[InetAddress] = (), hosts: HostsFile | None = None) -> None:
        self.servers = tuple(servers)
        self.hosts = hosts or HostsFile()
        self._dns: dns.asyncresolver.Resolver | None = None
        self._mark: tuple[int, ...] | None = None

    async def look_up(self, name: str, before: tuple[IP, ...] = ()) -> Found:
        """`before`: what is known, in case that only one kind of address can be asked for. Raises
        Unresolved."""
        if listed := self.hosts.look_up(name):
            return _found(listed, HOSTS_TTL_S)
        kinds = ((4, "A"), (6, "AAAA"))
        async with asyncio.timeout(ANSWER_S + 1):
            said = await asyncio.gather(*(self._ask(name, kind) for _, kind in kinds))
        addresses, ttls, failed = list[IP](), list[float](), list[str]()
        for (version, _), (answer, why) in zip(kinds, said, strict=True):
            if answer is None:
                failed.append(why)
                addresses += [ip for ip in before if ip.version == version]
                ttls.append(HALF_TTL_S)
            else:
                addresses += answer.addresses
                ttls += [answer.ttl_s] if answer.addresses else []
        if len(failed) == len(kinds):
            raise Unresolved(failed[0])
        if not addresses:
            raise Unresolved(failed[0] if failed else "it has no address")
        return _found(addresses, min(ttls))

    async def _ask(self, name: str, kind: str) -> tuple[Found | None, str]:
        """The answer, or why there is none."""
        try:
            resolver = self._resolver()
            answer = await resolver.resolve(
                dns.name.from_text(name, None), kind, lifetime=ANSWER_S, search=not self.servers
            )
        except dns.resolver.NoAnswer:
            return Found((), 0), ""
        except dns.resolver.NXDOMAIN:
            return None, "there is no such name"
        except (dns.resolver.LifetimeTimeout, TimeoutError):
            return None, "no answer from the DNS servers"
        except dns.resolver.NoNameservers:
            return None, "the DNS servers refuse to answer, or fail"
        except (dns.exception.DNSException, OSError, ValueError) as error:
            return None, str(error) or type(error).__name__
        ips = [ipaddress.ip_address(one.address) for one in answer]
        ttl = answer.chaining_result.minimum_ttl
        return Found(tuple(ips), float(ttl)), ""

    def _resolver(self) -> dns.asyncresolver.Resolver:
        mark = stamp(RESOLV_CONF) if not self.servers else None
        if self._dns is None or mark != self._mark:
            self._dns, self._mark = dns.asyncresolver.Resolver(configure=not self.servers), mark
            self._dns.timeout = ANSWER_S / 3  # for one server, once
            if self.servers:
                self._dns.nameservers = [
                    dns.nameserver.Do53Nameserver(str(one.ip), one.port) for one in self.servers
                ]
        return self._dns


def _found(addresses: Iterable[IP], ttl_s: float) -> Found:
    """In one order however they were answered; without those that nobody can be connected to."""
    usable = {ip for ip in addresses if not ip.is_unspecified and not ip.is_multicast}
    if not usable:
        raise Unresolved("it has no address that can be connected to")
    ordered = sorted(usable, key=lambda ip: (ip.version, ip.packed))
    ttl_s = min(max(ttl_s, TTL_MIN_S), TTL_MAX_S)
    return Found(tuple(ordered[:ADDRESSES_MAX]), ttl_s, max(len(ordered) - ADDRESSES_MAX, 0))
