"""What the protocol of a virtual server asks of it, and of the pools and classes behind it.

What it has to have, what it makes no use of, and what can never be found in its connections:
tcp shows addresses alone, passed-through TLS its ClientHello too, http and https requests.
"""

from collections.abc import Iterator
from typing import Any

from fastlb import config, errors
from fastlb.config import Config, VirtualServer
from fastlb.decode import Report
from fastlb.units import UnixAddress
from fastlb.uses import asks_for_certificates, pools_of, uses_of

Path = tuple[str | int, ...]
Tables = dict[str, Any]

HTTP = ("http", "https")
ROUTED_BY = {  # the conditions that a route may have
    "http": ("host", "path"),
    "https": ("host", "path"),
    "tls": ("sni", "alpn"),
    "tcp": (),
}
FOUND_WITH = {  # the parts of a key that a protocol has
    "http": ("header", "cookie", "query", "path", "host", "source", "destination"),
    "https": ("header", "cookie", "query", "path", "host", "sni", "source", "destination"),
    "tls": ("sni", "source", "destination"),
    "tcp": ("source", "destination"),
}


def check_protocols(cfg: Config, document: Tables, report: Report) -> None:
    """Reports every breach; `document` tells what was written from what is a default."""
    for name, server in cfg.virtual_servers.items():
        path = ("virtual_servers", name)
        written = _table(document, *path)
        _protocol_keys(server, written, path, report)
        _routes(server, written.get("routes"), path, report)
        _tls(server, _table(written, "tls"), (*path, "tls"), report)
    _class_protocols(cfg, report)
    _key_parts(cfg, report)
    _redirects(cfg, report)
    _tls_classes(cfg, report)
    _pools_tls(cfg, document, report)
    _shared_pools(cfg, report)
    _forged_certificates(cfg, report)


def _table(document: Tables, *names: str) -> Tables:
    table: Tables = document
    for name in names:
        found = table.get(name)
        table = found if isinstance(found, dict) else {}
    return table


def _protocol_keys(server: VirtualServer, written: Tables, path: Path, report: Report) -> None:
    protocol = server.protocol
    if protocol == "https" and "tls" not in written:
        report(errors.HTTPS_WITHOUT_TLS, (*path, "protocol"))
    if protocol and protocol != "https" and server.tls is not None:
        report(errors.TLS_NOT_ENDED, (*path, "tls"), protocol=protocol, meaning=MEANING[protocol])
    if protocol != "tls" and server.not_tls != "close":
        report(errors.ONLY_WITH_PROTOCOL, (*path, "not_tls"), expected='"tls"')
    unix = all(isinstance(address, UnixAddress) for address in server.listen)
    if server.proxy_protocol and not server.trusted_proxies and not unix:
        report(errors.PROXY_WITHOUT_TRUST, (*path, "proxy_protocol"))
    if protocol in ("tls", "tcp"):
        if server.decision_header:
            report(errors.ONLY_WITH_PROTOCOL, (*path, "decision_header"), expected=HTTP_WORDS)
        if server.error_pages:
            report(errors.ONLY_WITH_PROTOCOL, (*path, "error_pages"), expected=HTTP_WORDS)
        if server.trusted_proxies and not server.proxy_protocol:
            place = (*path, "trusted_proxies")
            report(errors.TRUST_WITHOUT_PROXY, place, protocol=protocol)


HTTP_WORDS = '"http" and "https"'
MEANING = {
    "http": "speaks plain text",
    "tls": "passes TLS through to the nodes, which have the certificates",
    "tcp": "passes bytes through as they are",
}


CONDITIONS = ("host", "path", "sni", "alpn")


def _routes(server: VirtualServer, written: Any, path: Path, report: Report) -> None:
    known = ROUTED_BY.get(server.protocol)
    if known is None:
        return  # the protocol is wrong, and that has been said
    raw = enumerate(written if isinstance(written, list) else ())
    tables = [(index, one) for index, one in raw if isinstance(one, dict)]
    for (index, table), route in zip(tables, server.routes, strict=False):
        place = (*path, "routes", index)
        given = [key for key in CONDITIONS if getattr(route, key)]
        if not given and not table.keys() & CONDITIONS:
            report(errors.ROUTE_WITHOUT_CONDITION, place)
        for key in given:
            if key not in known:
                expected = f"expected {' or '.join(known)}" if known else "it has no routes"
                values = {"key": key, "protocol": server.protocol, "expected": expected}
                report(errors.ROUTE_NEVER_MATCHES, (*place, key), **values)


def _tls(server: VirtualServer, written: Tables, path: Path, report: Report) -> None:
    """How TLS ends here; files are looked at by whoever reads them."""
    tls = server.tls
    if tls is None:
        return
    if written.get("certificates") == []:
        report(errors.NO_CERTIFICATE, (*path, "certificates"))
    if tls.min_version == "1.3" and "ciphers" in written:
        report(errors.CIPHERS_UNUSED, (*path, "ciphers"))
    if tls.client_certificates != "off" and "client_ca" not in written:
        place = (*path, "client_certificates")
        report(errors.CLIENT_CERTIFICATES_WITHOUT_CA, place, found=tls.client_certificates)
    if tls.client_certificates == "off" and "client_ca" in written:
        report(errors.CLIENT_CA_UNUSED, (*path, "client_ca"))


def _class_protocols(cfg: Config, report: Report) -> None:
    for name, server, pool in uses_of(cfg):
        cls, protocol = cfg.persistence[name], cfg.virtual_servers[server].protocol
        if not protocol or not cls.type or protocol in cls.protocols:
            continue
        path = ("persistence", name, "type")
        if cls.type == "ssl" and protocol == "https":
            report(errors.SSL_WHERE_TLS_ENDS, path, name=server, pool=pool)
            continue
        report(
            errors.TYPE_FOR_PROTOCOL,
            path,
            type=cls.type,
            protocol=protocol,
            name=server,
            pool=pool,
            expected=", ".join(cls.protocols),
        )


def _key_parts(cfg: Config, report: Report) -> None:
    """Declared keys, and where a protocol never has them."""
    for name, server in dict.fromkeys((name, server) for name, server, _ in uses_of(cfg)):
        protocol = cfg.virtual_servers[server].protocol
        known = FOUND_WITH.get(protocol)
        for key, part in _parts_of(cfg.persistence[name]):
            if known is None or part.kind in known:
                continue
            found = {"found": part, "protocol": protocol, "name": server}
            if cfg.virtual_servers[server].rules:  # which may set a key of their own
                report(errors.KEY_NEVER_FOUND, ("persistence", name, key), **found)
            else:
                expected = "no learn" if key == "learn" else EXPECTED_PARTS[protocol]
                path = ("persistence", name, key)
                report(errors.KEY_FOR_PROTOCOL, path, **found, expected=expected)


EXPECTED_PARTS = {
    "http": 'a part of a request or "source"',
    "https": 'a part of a request, "sni" or "source"',
    "tls": '"sni" or "source"',
    "tcp": '"source"',
}


def _parts_of(cls: config.PersistenceClass) -> Iterator[tuple[str, Any]]:
    for key in ("key", "on", "learn"):
        for part in getattr(cls, key, ()):
            yield key, part


def _redirects(cfg: Config, report: Report) -> None:
    for name, server, _ in uses_of(cfg):
        protocol = cfg.virtual_servers[server].protocol
        if cfg.persistence[name].failure_mode == "redirect" and protocol in ("tls", "tcp"):
            path = ("persistence", name, "failure_mode")
            report(errors.REDIRECT_ACTS_AS_CLOSE, path, protocol=protocol, name=server)


def _tls_classes(cfg: Config, report: Report) -> None:
    for name, cls in cfg.persistence.items():
        if isinstance(cls, config.SslClass) and cls.fallback is None:
            report(errors.SSL_WITHOUT_FALLBACK, ("persistence", name))


def _pools_tls(cfg: Config, document: Tables, report: Report) -> None:
    tables = [(("pools", name, "tls"), pool.tls) for name, pool in cfg.pools.items()]
    tables += [(("monitors", name, "tls"), one.tls) for name, one in cfg.monitors.items()]
    for path, tls in tables:
        if tls is None:
            continue
        written = _table(document, *path)
        if not tls.verify:
            report(errors.NODES_NOT_VERIFIED, (*path, "verify"))
            if tls.ca:
                report(errors.CA_WITHOUT_VERIFY, (*path, "ca"))
        for key, other in (("certificate", "key"), ("key", "certificate")):
            if key in written and other not in written:
                report(errors.HALF_A_CERTIFICATE, (*path, key), expected=other)


def _shared_pools(cfg: Config, report: Report) -> None:
    """What a pool's nodes are spoken to through each virtual server that uses it."""
    users: dict[str, dict[str, str]] = {}  # by pool: a virtual server of each protocol
    for name, server in cfg.virtual_servers.items():
        for pool in pools_of(server):
            users.setdefault(pool, {}).setdefault(server.protocol, name)
    for pool, by_protocol in users.items():
        if pool in cfg.pools:
            _passages(cfg.pools[pool], ("pools", pool), by_protocol, report)
            _tls_of_nodes(cfg.pools[pool], ("pools", pool), by_protocol, report)


def _passages(pool: config.Pool, path: Path, by_protocol: dict[str, str], report: Report) -> None:
    if pool.algorithm != "fastest-response":
        return
    for protocol in ("tls", "tcp"):
        if protocol in by_protocol:
            values = {"protocol": protocol, "name": by_protocol[protocol]}
            report(errors.NO_RESPONSES, (*path, "algorithm"), **values)


def _tls_of_nodes(
    pool: config.Pool, path: Path, by_protocol: dict[str, str], report: Report
) -> None:
    if "tls" not in by_protocol:
        return
    passed = by_protocol["tls"]
    plain = next((by_protocol[one] for one in HTTP if one in by_protocol), None)
    if pool.tls is not None:
        report(errors.TLS_INSIDE_TLS, (*path, "tls"), name=passed)
    elif plain is not None:
        report(errors.PLAIN_AND_TLS, path, tls=passed, plain=plain)


def _forged_certificates(cfg: Config, report: Report) -> None:
    """Pools whose nodes hear of client certificates from one side, and from anybody on another."""
    asking: dict[str, str] = {}
    others: dict[str, str] = {}
    for name, server in cfg.virtual_servers.items():
        # On other http and https virtual servers such fields are cut.
        if asks_for_certificates(server) or server.protocol not in HTTP:
            for pool in pools_of(server):
                (asking if server.protocol in HTTP else others).setdefault(pool, name)
    for pool in cfg.pools:
        if pool in asking and pool in others:
            values = {"asking": asking[pool], "other": others[pool]}
            report(errors.CLIENT_CERTIFICATE_FORGED, ("pools", pool), **values)
