"""Host names as nodes: what a configuration is once their addresses are known."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from msgspec import structs

from fastlb.config import Config, HostNode, Node, Pool
from fastlb.units import IP, HostAddress, InetAddress

ADDRESSES_MAX = 64  # of one name


class Known(NamedTuple):
    """What is known of names."""

    addresses: Mapping[str, tuple[IP, ...]]  # by name, as it was answered last
    held: Mapping[tuple[str, HostAddress], tuple[IP, ...]]  # by pool: had, and led to no more


NOTHING = Known({}, {})


def names_of(cfg: Config) -> dict[str, list[tuple[str, HostAddress]]]:
    """The host names of a configuration, each with the pools and ports that it has there."""
    names: dict[str, list[tuple[str, HostAddress]]] = {}
    for pool_name, pool in cfg.pools.items():
        for node in pool.nodes:
            if isinstance(node.address, HostAddress):
                names.setdefault(node.address.name, []).append((pool_name, node.address))
    return names


def expand(cfg: Config, known: Known) -> Config:
    """The configuration with a node for each address of a name; those that are held drain.

    A node that is listed by its address stays what it is there.
    """
    if not names_of(cfg):
        return cfg
    hosts: dict[tuple[str, InetAddress], HostNode] = {}
    pools = {name: _expanded(name, pool, known, hosts) for name, pool in cfg.pools.items()}
    return structs.replace(cfg, pools=pools, hosts=hosts)


def _expanded(
    name: str, pool: Pool, known: Known, hosts: dict[tuple[str, InetAddress], HostNode]
) -> Pool:
    taken = {node.address for node in pool.nodes}
    # Who is led to by one name comes before who has left another.
    late = [*_nodes(name, pool, known, False), *_nodes(name, pool, known, True)]
    found: dict[Node, list[Node]] = {}
    for node, address, leaving in late:
        if address not in taken:
            taken.add(address)
            assert isinstance(node.address, HostAddress)
            hosts[name, address] = HostNode(node.address, leaving)
            found.setdefault(node, []).append(structs.replace(node, address=address))
    nodes = []
    for node in pool.nodes:
        if isinstance(node.address, HostAddress):
            # Sorted: so a name that is answered otherwise each time makes no other plan.
            nodes += sorted(found.get(node, []), key=_order)
        else:
            nodes.append(node)
    return structs.replace(pool, nodes=tuple(nodes))


def _nodes(
    name: str, pool: Pool, known: Known, leaving: bool
) -> Iterator[tuple[Node, InetAddress, bool]]:
    for node in pool.nodes:
        host = node.address
        if isinstance(host, HostAddress):
            current = known.addresses.get(host.name, ())
            for ip in known.held.get((name, host), ()) if leaving else current:
                yield node, InetAddress(ip, host.port), leaving


def _order(node: Node) -> tuple[int, bytes]:
    assert isinstance(node.address, InetAddress)
    return node.address.ip.version, node.address.ip.packed


def host_of(cfg: Config, pool: str, node: Node) -> HostAddress | None:
    """The host name that a node was found by."""
    if not isinstance(node.address, InetAddress):
        return None
    found = cfg.hosts.get((pool, node.address))
    return found.host if found is not None else None
