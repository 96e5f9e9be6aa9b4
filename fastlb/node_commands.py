"""`drain`, `undrain`, `disable`, `enable`, as the control process carries them out: which nodes
are meant, what will happen that may surprise, and the change itself.
"""

from typing import Any, NoReturn

from fastlb import errors
from fastlb.config import (
    CacheClass,
    Config,
    CookieClass,
    HashClass,
    IpClass,
    Pool,
    UniversalClass,
)
from fastlb.control_socket import Answer, chosen, text
from fastlb.errors import Refused, did_you_mean, nearest
from fastlb.host_names import host_of
from fastlb.in_force import InForce
from fastlb.node_states import VERBS, NodeStates, State, Verb, address_of, written
from fastlb.node_words import NodeWords
from fastlb.slots import NodeKey, node_key
from fastlb.units import IP, read_ip_port
from fastlb.uses import classes_of

AGAIN = {"drain": "draining", "disable": "disabled"}


class NodeCommands:
    """The command `node` of the control socket."""

    def __init__(self, in_force: InForce, words: NodeWords) -> None:
        self.in_force, self.words = in_force, words

    async def run(self, request: Answer) -> Answer:
        """With `preview` it only says what would surprise."""
        cfg, states = self.in_force.cfg, self.in_force.states
        assert cfg is not None
        verb = chosen(request, "verb", VERBS)
        keys = find_nodes(cfg, text(request, "node"), text(request, "pool", optional=True))
        warnings = surprises(cfg, states, verb, keys)
        if request.get("preview"):
            return {"ok": True, "warnings": warnings}
        changes = states.carry_out(verb, keys)
        warnings += self.words.save(states.words)
        nodes = [
            {
                "pool": change.key.pool,
                "address": address_of(change.key),
                "before": change.before,
                "state": change.state,
                "down": change.down,
            }
            for change in changes
        ]
        return {"ok": True, "nodes": nodes, "warnings": warnings}


def find_nodes(cfg: Config, name: str, pool: str | None) -> list[NodeKey]:
    """The nodes meant by `address:port` or an address, in all pools or in one. Raises Refused."""
    if pool is not None:
        find_pool(cfg, pool)
    found = _named(cfg, name)
    here = [key for key in found if pool in (None, key.pool)]
    return here or _nobody(cfg, name, pool, found)


def find_pool(cfg: Config, name: str) -> str:
    """The name, if there is such a pool. Raises Refused."""
    if name not in cfg.pools:
        raise Refused(errors.NO_SUCH_POOL, found=name, suggestion=did_you_mean(name, cfg.pools))
    return name


def _named(cfg: Config, name: str) -> list[NodeKey]:
    """By address, or by the host name that it was found by."""
    wanted = read_ip_port(name)
    found = []
    for pool, one in cfg.pools.items():
        for node in one.nodes:
            key, host = node_key(pool, node.address), host_of(cfg, pool, node)
            named = name == str(node.address) or (host and name in (host.name, str(host)))
            if named or (wanted and _is(wanted, key)):
                found.append(key)
    return found


def _is(wanted: tuple[IP, int | None], key: NodeKey) -> bool:
    return str(wanted[0]) == key.ip and wanted[1] in (None, key.port)


def _nobody(cfg: Config, name: str, pool: str | None, elsewhere: list[NodeKey]) -> NoReturn:
    where = "any pool" if pool is None else f"[pools.{pool}]"
    pools = cfg.pools.values() if pool is None else [cfg.pools[pool]]
    known = [str(node.address) for one in pools for node in one.nodes]
    if elsewhere:
        suggestion = " (it is in " + ", ".join(f"[pools.{key.pool}]" for key in elsewhere) + ")"
    elif near := nearest(name, known):
        suggestion = f' (did you mean "{near}"?)'
    else:
        suggestion = f"; there {'are' if known else 'is'} {', '.join(known[:8]) or 'none'}"
        suggestion += ", ..." if len(known) > 8 else ""
    raise Refused(errors.NO_SUCH_NODE, found=name, where=where, suggestion=suggestion)


def surprises(cfg: Config, states: NodeStates, verb: Verb, keys: list[NodeKey]) -> list[str]:
    """What an operator may not expect of the command, before it is carried out."""
    lines = [line for key in keys if (line := _no_change(states, verb, key))]
    if verb in AGAIN:
        after = states.after(verb, keys)
        for pool in dict.fromkeys(key.pool for key in keys):
            mine = [key for key in keys if key.pool == pool and states.wanted(key) == "up"]
            if mine:
                lines += moving_keys(cfg, pool, mine)
                if verb == "drain":
                    lines += _newcomers(cfg, pool, mine)
                lines += last_one(cfg, pool, after)
    return lines


def _no_change(states: NodeStates, verb: Verb, key: NodeKey) -> str | None:
    now, word = states.asked(key), states.word(key)
    if word.after(verb) == word:
        what = AGAIN.get(verb, "not draining" if verb == "undrain" else "not disabled")
        more = f": it is {now}" if verb not in AGAIN and now != "up" else ""
        return errors.NODE_ALREADY.line(node=written(key), what=what, more=more)
    if verb in ("drain", "undrain") and word.disabled:
        return errors.STAYS_DISABLED.line(node=written(key))
    if verb == "enable" and word.draining:
        return errors.STAYS_DRAINING.line(node=written(key))
    return None


def moving_keys(cfg: Config, pool: str, leaving: list[NodeKey] | None) -> list[str]:
    """The warning where a hash moves keys: those of the nodes that leave, or some of all."""
    chain = [cfg.persistence[name] for name in classes_of(cfg, pool)]
    hashed = [name for name in classes_of(cfg, pool) if _is_hash(cfg, name)]
    if hashed:
        what = f"[persistence.{hashed[0]}] is a hash"
    elif cfg.pools[pool].algorithm == "hash" and not any(map(_remembers, chain)):
        what = 'its algorithm is "hash" and no persistence class remembers'
    else:
        return []
    if leaving is None:
        return [errors.HASH_SHIFTS.line(pool=pool, what=what)]
    nodes = ", ".join(map(address_of, leaving))
    return [errors.HASH_MOVES.line(pool=pool, nodes=nodes, what=what)]


def _is_hash(cfg: Config, name: str) -> bool:
    return isinstance(cfg.persistence[name], HashClass)


def _remembers(cls: Any) -> bool:
    return isinstance(cls, CacheClass | CookieClass)


def _newcomers(cfg: Config, pool: str, keys: list[NodeKey]) -> list[str]:
    """Who comes without a cookie is known by address: a newcomer looks like a lost cookie."""
    chain = classes_of(cfg, pool)
    kinds = [cfg.persistence[name] for name in chain]
    for index, cls in enumerate(kinds):
        if _by_address(cls) and any(isinstance(one, CookieClass) for one in kinds[:index]):
            nodes = ", ".join(map(address_of, keys))
            return [errors.NEWCOMERS_BY_ADDRESS.line(pool=pool, name=chain[index], nodes=nodes)]
    return []


def _by_address(cls: Any) -> bool:
    if isinstance(cls, UniversalClass):
        return {part.kind for part in cls.key} == {"source"}
    return isinstance(cls, IpClass)


def last_one(cfg: Config, pool: str, after: dict[NodeKey, State]) -> list[str]:
    """The warning where no node takes new sessions."""
    one = cfg.pools[pool]
    if _takes_sessions(pool, one, after):
        return []
    left = {after[node_key(pool, node.address)] for node in one.nodes}
    if "draining" in left and one.drain_last == "serve":
        return [errors.LAST_SERVES.line(pool=pool)]
    why = "every node is disabled"
    if "draining" in left:
        why = 'drain_last = "refuse"'
    elif "down" in left:
        why = "no other node is up"
    elif "up" in left:
        why = "no other node with a weight is up"
    return [errors.LAST_REFUSES.line(pool=pool, why=why)]


def _takes_sessions(pool: str, one: Pool, after: dict[NodeKey, State]) -> bool:
    return any(node.weight and after[node_key(pool, node.address)] == "up" for node in one.nodes)
