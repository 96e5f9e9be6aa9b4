"""Who uses what in a configuration: the pools of a virtual server, the classes of a pool."""

from collections.abc import Iterator

from fastlb import config
from fastlb.class_id import server_cookie_name
from fastlb.config import Config, CookieClass
from fastlb.units import HostAddress, InetAddress


def pools_of(server: config.VirtualServer) -> list[str]:
    """The pools that a virtual server may use, its default first, each once."""
    return list(dict.fromkeys([server.pool, *(route.pool for route in server.routes)]))


def rules_of(cfg: Config) -> list[str]:
    """The rules of all virtual servers, each once, in the order of the file."""
    return list(dict.fromkeys(one for s in cfg.virtual_servers.values() for one in s.rules))


def asks_for_certificates(server: config.VirtualServer) -> bool:
    """Whether its nodes are told of its clients' certificates."""
    return server.tls is not None and server.tls.client_certificates != "off"


def told_of_certificates(cfg: Config) -> set[str]:
    """The virtual servers of whose nodes one is told of client certificates, by whichever."""

    def nodes_of(name: str) -> set[InetAddress | HostAddress]:
        pools = [cfg.pools[pool] for pool in pools_of(cfg.virtual_servers[name])]
        return {node.address for pool in pools for node in pool.nodes}

    servers = cfg.virtual_servers
    told = set()
    for name in servers:
        if asks_for_certificates(servers[name]):
            told |= nodes_of(name)
    return {name for name in servers if told and not told.isdisjoint(nodes_of(name))}


def classes_of(cfg: Config, pool: str) -> list[str]:
    """A pool's persistence class and its fallbacks, in the order they are asked."""
    return chain_of(cfg, cfg.pools[pool].persistence if pool in cfg.pools else None)


def chain_of(cfg: Config, name: str | None) -> list[str]:
    """A class and its fallbacks, in the order they are asked."""
    chain: list[str] = []
    while name in cfg.persistence and name not in chain:
        chain.append(name)
        name = cfg.persistence[name].fallback
    return chain


def cookie_names_of(cfg: Config, name: str) -> dict[str, str | None]:
    """The names of a class's cookie, and which virtual server writes each; None: all do."""
    cls = cfg.persistence[name]
    if isinstance(cls, CookieClass) and cls.cookie_name is not None:
        return {cls.cookie_name: None}
    if isinstance(cls, config.CookieInsertClass):
        servers = {server for used, server, _ in uses_of(cfg) if used == name}
        return {server_cookie_name(one): one for one in cfg.virtual_servers if one in servers}
    return {}


def uses_of(cfg: Config) -> Iterator[tuple[str, str, str]]:
    """Each (class, virtual server, pool) where the class may be asked."""
    for server_name, server in cfg.virtual_servers.items():
        for pool in pools_of(server):
            for name in classes_of(cfg, pool):
                yield name, server_name, pool
