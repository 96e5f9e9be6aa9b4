"""`node add`, `node remove`, `node weight`, as the control process carries them out: whether it
can be done, what will happen that may surprise, and another configuration put in force.
"""

import asyncio

import msgspec
from msgspec import structs

from fastlb import edits, errors, log, reserve
from fastlb.config import Config, Node
from fastlb.control_socket import Answer, chosen, text
from fastlb.decode import expected_words
from fastlb.edits import VERBS, Edit, Verb
from fastlb.errors import Invalid, Refused, StartError
from fastlb.features import unavailable
from fastlb.in_force import ACKNOWLEDGE_S, InForce
from fastlb.node_commands import find_nodes, find_pool, last_one, moving_keys
from fastlb.node_states import State, address_of
from fastlb.node_words import NodeWords
from fastlb.removal import count, quiet_needed
from fastlb.slots import NodeKey, node_key
from fastlb.status import status_of
from fastlb.units import HostAddress

NODE_NUMBERS = {
    info.name: info.type
    for info in structs.fields(Node)
    if info.name in ("weight", "max_connections")
}


class EditCommands:
    """The command `edit` of the control socket; `changing` is held by whoever changes the
    configuration in force."""

    def __init__(self, in_force: InForce, words: NodeWords, changing: asyncio.Lock) -> None:
        self.in_force, self.words, self.changing = in_force, words, changing

    async def run(self, request: Answer) -> Answer:
        """With `preview` it only says what would surprise, and what would have to be saved."""
        async with self.changing:
            if request.get("verb") == "saved":
                return self._saved(request)
            verb = chosen(request, "verb", VERBS)
            new = self._edits(verb, request)
            cfg = self._after(new)
            warnings = await self._surprises(new, cfg, bool(request.get("force")))
            rows = [_row(edit, self._cfg, cfg) for edit in new]
            if not request.get("preview") and self._changes(new):
                warnings += await self._put(new, cfg)
        return {"ok": True, "nodes": rows, "warnings": warnings, **self._to_save(new)}

    # --- what is meant ---

    def _edits(self, verb: Verb, request: Answer) -> list[Edit]:
        cfg = self._cfg
        name = text(request, "node")
        if verb == "add":
            return [self._added(find_pool(cfg, text(request, "pool")), name, request)]
        pool = text(request, "pool", optional=True)
        weight = _number(request, "weight", 1)
        known = edits.read_address(name)
        gone = [
            edit
            for edit in self.in_force.edits
            if verb == edit.verb == "remove" and edit.address == known and pool in (None, edit.pool)
        ]
        if gone:  # removed already, and perhaps to be saved now
            return gone
        return [
            Edit(verb=verb, pool=key.pool, address=address_of(key), weight=weight)
            for key in find_nodes(cfg, name, pool)
        ]

    def _added(self, pool: str, name: str, request: Answer) -> Edit:
        try:
            edit = Edit(
                verb="add",
                pool=pool,
                address=name,
                weight=_number(request, "weight", 1),
                max_connections=_number(request, "max_connections", 0),
                backup=bool(request.get("backup")),
            )
            address = edit.node().address
            edit = structs.replace(edit, address=str(address))
        except Invalid as invalid:
            raise Refused(errors.BAD_NODE, reason=invalid) from None
        if isinstance(address, HostAddress):
            reason = "a host name is followed from the file on: put it there and reload"
            raise Refused(errors.BAD_NODE, reason=reason)
        row: Answer = {"address": edit.address}
        if edit.max_connections:
            row["max_connections"] = edit.max_connections
        for _, what in unavailable({"pools": {pool: {"nodes": [row]}}}):
            raise Refused(errors.BAD_NODE, reason=f"{what} is not available in this version")
        for there in self._cfg.pools[pool].nodes:
            if str(there.address) == edit.address and edit not in self.in_force.edits:
                node = f"{edit.address} of [pools.{pool}]"
                raise Refused(errors.NODE_THERE, node=node)
        return edit

    @property
    def _cfg(self) -> Config:
        assert self.in_force.cfg is not None
        return self.in_force.cfg

    def _joined(self, new: list[Edit]) -> list[Edit]:
        all_ = self.in_force.edits
        for edit in new:
            if edit not in all_:
                all_ = edits.joined(all_, edit)
        return all_

    def _after(self, new: list[Edit]) -> Config:
        """The configuration in force once the edits are made."""
        return edits.apply(self._cfg, [edit for edit in new if edit not in self.in_force.edits])

    def _changes(self, new: list[Edit]) -> bool:
        return self._after(new) != self._cfg

    # --- what may surprise ---

    async def _surprises(self, new: list[Edit], cfg: Config, forced: bool) -> list[str]:
        lines = []
        for edit in new:
            if _node(cfg, edit) == _node(self._cfg, edit):
                what = f"at weight {edit.weight}" if edit.verb == "weight" else edits.in_words(edit)
                node = f"{edit.address} of [pools.{edit.pool}]"
                lines.append(errors.NODE_ALREADY.line(node=node, what=what, more=""))
                continue
            if edit.verb == "remove":
                lines += await self._leaving(edit, forced)
            gone = _node(self._cfg, edit) if edit.verb == "remove" else None
            leaving = [node_key(edit.pool, gone.address)] if gone else None
            lines += moving_keys(self._cfg, edit.pool, leaving)
        for pool in dict.fromkeys(edit.pool for edit in new):
            if not cfg.pools[pool].nodes:
                raise Refused(errors.POOL_EMPTIED, pool=pool)
            if any(edit.verb != "add" for edit in new):
                lines += self._last_one(cfg, pool)
        return lines

    async def _leaving(self, edit: Edit, forced: bool) -> list[str]:
        """What a removed node's sessions and requests meet. Raises Refused if there may be any
        and nobody said that it is meant so."""
        status = await status_of(self.in_force)
        nodes = status["pools"][edit.pool]["nodes"]
        (row,) = (one for one in nodes if one["address"] == edit.address)
        needed = quiet_needed(self._cfg, edit.pool)
        idle = row["idle_seconds"]
        if idle is None:  # nobody was there since it is a node of this fastlb
            added = edits.of_node(self.in_force.edits, edit.pool, edit.address)
            idle = needed if added else status["uptime_seconds"]
        sessions, connections = row["live_sessions"], row["connections"]
        if not sessions and not connections and idle >= needed:
            return []
        facts = [] if sessions is None else [count(sessions, "session")]
        facts += [count(connections, "connection"), f"idle {idle} s of {needed} s"]
        message = errors.NODE_LEAVES if forced else errors.NODE_IN_USE
        node, facts_ = f"{edit.address} of [pools.{edit.pool}]", ", ".join(facts)
        if not forced:
            raise Refused(message, node=node, address=edit.address, facts=facts_)
        return [message.line(node=node, facts=facts_)]

    def _last_one(self, cfg: Config, pool: str) -> list[str]:
        """The warning where nobody takes new sessions any more."""
        now = self.in_force.states.after("drain", [])
        keys = [node_key(pool, node.address) for node in cfg.pools[pool].nodes]
        after: dict[NodeKey, State] = {key: now.get(key, "up") for key in keys}
        return last_one(cfg, pool, after) if not last_one(self._cfg, pool, now) else []

    # --- the change ---

    async def _put(self, new: list[Edit], cfg: Config) -> list[str]:
        reserve.give()
        try:
            prepared = self.in_force.prepare(cfg, files=False, edits=self._joined(new))
        except StartError as error:
            raise Refused.with_line("; ".join(error.lines)) from None
        said = await self.in_force.put(prepared)
        for edit in new:
            log.info(f"{edit.address} of [pools.{edit.pool}]: {edits.in_words(edit)}, by command")
        if said:
            said += self.words.save(self.in_force.states.words)
        generation = self.in_force.generation
        workers = self.in_force.workers
        await self.in_force.changes.until(lambda: workers.all_answered(generation), ACKNOWLEDGE_S)
        self.in_force.tidy()
        return said + workers.refusals(generation)

    # --- saving, which the command does ---

    def _to_save(self, new: list[Edit]) -> Answer:
        all_ = self._joined(new)
        mine = [one for edit in new for one in edits.of_node(all_, edit.pool, edit.address)]
        return {"file": str(self._cfg.file.absolute()), "edits": msgspec.to_builtins(mine)}

    def _saved(self, request: Answer) -> Answer:
        """The file says it now."""
        try:
            written = msgspec.convert(request.get("edits"), list[Edit])
        except msgspec.ValidationError as error:
            raise Refused(errors.BAD_COMMAND, reason=error) from None
        self.in_force.edits = [one for one in self.in_force.edits if one not in written]
        if self.in_force.written is not None:
            self.in_force.written = edits.apply(self.in_force.written, written)
        return {"ok": True}


def _node(cfg: Config, edit: Edit) -> Node | None:
    nodes = cfg.pools[edit.pool].nodes
    return next((node for node in nodes if str(node.address) == edit.address), None)


def _row(edit: Edit, before: Config, after: Config) -> Answer:
    old, new = _node(before, edit), _node(after, edit)
    what = edits.in_words(edit)
    if edit.verb == "weight" and old is not None and old.weight != edit.weight:
        what = f"weight {old.weight} -> {edit.weight}"
    return {
        "pool": edit.pool,
        "address": edit.address,
        "change": what,
        "weight": new.weight if new else None,
    }


def _number(request: Answer, name: str, otherwise: int) -> int:
    """A number that a node's key of this name may have. Raises Refused."""
    value = request.get(name)
    if value is None:
        return otherwise
    try:
        number: int = msgspec.convert(value, NODE_NUMBERS[name])
    except msgspec.ValidationError:
        expected = expected_words(NODE_NUMBERS[name])
        reason = f"{name} {value} is out of range; expected {expected}"
        raise Refused(errors.BAD_NODE, reason=reason) from None
    return number
