"""Changes of pools at run time (`fastlb node add|remove|weight`), on top of the file.

An edit is a fact about one node of one pool. `apply` makes the configuration in force of the one
in the file; it forgives what does not fit, since the file may have changed under an edit: whether
a command can be carried out is edit_commands.py's question.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec
from msgspec import structs

from fastlb.config import Config, Node, Pool
from fastlb.decode import unwrapped
from fastlb.errors import Invalid

Verb = Literal["add", "remove", "weight"]
VERBS: tuple[Verb, ...] = ("add", "remove", "weight")

_ADDRESS: Any = next(
    unwrapped(info.type)[1][0] for info in structs.fields(Node) if info.name == "address"
)


def read_address(text: str) -> str | None:
    """A node's address in the one way of writing it; None when it is none."""
    try:
        return str(_ADDRESS.read(text))
    except Invalid:
        return None


class Edit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change; `address` as the node is written in the configuration."""

    verb: Verb
    pool: str
    address: str
    weight: int = 1  # not for `remove`
    max_connections: int = 0  # for `add`
    backup: bool = False  # for `add`

    def node(self) -> Node:
        """What `add` adds. Raises Invalid."""
        return Node(
            address=_ADDRESS.read(self.address),
            weight=self.weight,
            max_connections=self.max_connections,
            backup=self.backup,
        )

    def is_of(self, pool: str, address: str) -> bool:
        return (self.pool, self.address) == (pool, address)


def apply(cfg: Config, edits: Iterable[Edit]) -> Config:
    """The configuration with the edits made, in their order."""
    pools = dict(cfg.pools)
    for edit in edits:
        if edit.pool in pools:
            one = pools[edit.pool]
            pools[edit.pool] = structs.replace(one, nodes=_nodes(one, edit))
    return structs.replace(cfg, pools=pools)


def _nodes(pool: Pool, edit: Edit) -> tuple[Node, ...]:
    match edit.verb:
        case "add":
            return pool.nodes if _in(pool, edit) else (*pool.nodes, edit.node())
        case "remove":
            return tuple(node for node in pool.nodes if str(node.address) != edit.address)
        case "weight":
            mine = _in(pool, edit)
            return tuple(
                structs.replace(node, weight=edit.weight) if node is mine else node
                for node in pool.nodes
            )


def _in(pool: Pool, edit: Edit) -> Node | None:
    return next((node for node in pool.nodes if str(node.address) == edit.address), None)


def joined(edits: Sequence[Edit], new: Edit) -> list[Edit]:
    """The list with one more edit, without those that it makes pointless: of one node there is
    never more than a removal and what was added in its place, or a weight."""
    before = of_node(edits, new.pool, new.address)
    kept = [one for one in edits if one not in before]
    added = before[-1] if before and before[-1].verb == "add" else None
    if new.verb == "weight":
        before = [one for one in before if one.verb == "remove"]
        new = structs.replace(added, weight=new.weight) if added else new
    elif new.verb == "remove":
        if before == [added]:
            return kept  # the file never had it
        before = []
    return [*kept, *before, new]


def of_node(edits: Iterable[Edit], pool: str, address: str) -> list[Edit]:
    """What was changed about one node."""
    return [one for one in edits if one.is_of(pool, address)]


def over(cfg: Config, edits: Sequence[Edit]) -> list[Edit]:
    """Those that are lost by `cfg`, which takes the place of what they changed: the last of each
    node, where `cfg` does not say the same by itself."""
    last = {(edit.pool, edit.address): edit for edit in edits}
    return [edit for edit in last.values() if not _says(cfg, edit)]


def _says(cfg: Config, edit: Edit) -> bool:
    found = _in(cfg.pools[edit.pool], edit) if edit.pool in cfg.pools else None
    if edit.verb == "remove":
        return found is None
    return found is not None and found.weight == edit.weight


def in_words(edit: Edit) -> str:
    """`added`, `removed`, `weight 3`: what was made of the node."""
    if edit.verb == "weight":
        return f"weight {edit.weight}"
    return {"add": "added", "remove": "removed"}[edit.verb]
