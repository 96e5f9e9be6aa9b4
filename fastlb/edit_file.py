"""Edits written into the configuration file, with its comments and layout kept (`--save`).

The operator's command does this, with the operator's rights: the proxy itself may have become a
user that cannot write there. Nothing is written that is not right as a whole.
"""

import json
import os
import tempfile
import tomllib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from fastlb import errors
from fastlb.check import check_text
from fastlb.edits import Edit, read_address
from fastlb.errors import Refused


class EditedFile:
    """A file with edits, not yet written. Raises Refused when that would not be right."""

    def __init__(self, file: Path, edits: Iterable[Edit]) -> None:
        self.file = Path(os.path.realpath(file))  # a link stays one
        try:
            self.before = self.file.read_bytes()
            document = tomlkit.parse(self.before.decode())
            wanted = tomllib.loads(self.before.decode())
        except OSError as error:
            raise self._refused(error.strerror or error) from None
        except (ValueError, TOMLKitError) as error:
            raise self._refused(f"it is not valid TOML any more: {error}") from None
        for edit in edits:
            self._make(wanted, edit, plain=True)
            self._make(document, edit, plain=False)
        self.after = tomlkit.dumps(document)
        self._demand_right(wanted)

    def write(self) -> None:
        """Replaces the file as a whole, with the same mode and owner. Raises Refused."""
        new = ""
        try:
            if self.file.read_bytes() != self.before:
                raise self._refused("it was changed meanwhile; try again")
            status = self.file.stat()
            fd, new = tempfile.mkstemp(prefix=f".{self.file.name}.", dir=self.file.parent)
            with open(fd, "wb") as out:
                out.write(self.after.encode())
                os.fchmod(fd, status.st_mode & 0o7777)
                if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(fd, status.st_uid, status.st_gid)
                out.flush()
                os.fsync(fd)
            os.replace(new, self.file)
        except OSError as error:
            if new:
                with suppress(OSError):
                    os.unlink(new)
            raise self._refused(error.strerror or error) from None

    def _refused(self, reason: object) -> Refused:
        return Refused(errors.NOT_SAVED, file=self.file, reason=reason)

    def _make(self, document: Any, edit: Edit, plain: bool) -> None:
        try:
            pool = document["pools"][edit.pool]
            nodes = pool["nodes"]
        except (KeyError, TypeError):
            raise self._refused(f"it has no [pools.{edit.pool}] with nodes any more") from None
        if not isinstance(nodes, list):  # one node may stand alone
            pool["nodes"] = [nodes]
            nodes = pool["nodes"]
        places = [place for place, node in enumerate(nodes) if _address(node) == edit.address]
        if edit.verb == "add":
            if places:
                raise self._refused(f"[pools.{edit.pool}] lists {edit.address} already")
            nodes.append(_written(_row(edit), nodes, plain))
            return
        if not places:
            raise self._refused(f"[pools.{edit.pool}] does not list {edit.address} any more")
        place = places[0]
        if edit.verb == "remove":
            del nodes[place]
        elif isinstance(nodes[place], dict):
            nodes[place]["weight"] = edit.weight
        elif edit.weight != 1:
            row = {"address": str(nodes[place]), "weight": edit.weight}
            nodes[place] = _written(row, nodes, plain)

    def _demand_right(self, wanted: dict[str, Any]) -> None:
        """Only what was meant has changed, and the file can be used."""
        try:
            found = tomllib.loads(self.after)
        except ValueError as error:
            raise self._refused(f"it would not be valid TOML: {error}") from None
        if found != wanted:
            raise self._refused("its layout cannot be kept; write the change into it by hand")
        wrong = check_text(self.after, self.file).errors
        if wrong:
            more = f" (and {len(wrong) - 1} more: `fastlb check`)" if len(wrong) > 1 else ""
            raise self._refused(f"with the change it is wrong: {wrong[0]}{more}")


def _address(node: Any) -> str | None:
    """The address of a node as edits name it, however it is written."""
    text = node.get("address") if isinstance(node, dict) else node
    return read_address(str(text)) if isinstance(text, str) else None


def _row(edit: Edit) -> dict[str, Any]:
    row: dict[str, Any] = {"address": edit.address}
    if edit.weight != 1:
        row["weight"] = edit.weight
    if edit.max_connections:
        row["max_connections"] = edit.max_connections
    if edit.backup:
        row["backup"] = True
    return row


def _written(row: dict[str, Any], nodes: Any, plain: bool) -> Any:
    """A node as the operator writes nodes there."""
    of_tables = nodes and all(isinstance(node, dict) for node in nodes)
    if len(row) == 1 and not of_tables:
        return row["address"]
    if plain:
        return row
    if isinstance(nodes, tomlkit.items.AoT):
        table = tomlkit.table()
        table.update(row)
        return table
    inner = ", ".join(f"{key} = {json.dumps(value)}" for key, value in row.items())
    return tomlkit.parse(f"node = {{ {inner} }}")["node"]
