"""The operator's words about nodes, on disk: STATE_DIR/nodes.json, so that they outlive a
restart of the control process as they outlive a reload. The file is there while there are any.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

from fastlb import errors, log
from fastlb.config import NAME_PATTERN
from fastlb.node_states import Word, state_of, written
from fastlb.slots import NodeKey
from fastlb.state_file import is_there, open_regular, set_aside
from fastlb.units import read_ip

NAME = "nodes.json"
FIELDS = ("pool", "ip", "port", *Word._fields)
TYPES = (str, str, int, bool, bool, bool)
FILE_BYTES_MAX = 4 << 20  # of words about every node there can be, and more
PORT_MAX = 65535
SHOWN_MAX = 200

Words = dict[NodeKey, Word]


class NodeWords:
    """The file of one state directory."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / NAME

    def load(self) -> Words:
        """What was said before this start, said again; nothing when the file is of no use."""
        try:
            if not is_there(self.path):
                return {}
            words = _read(json.loads(self._bytes()))
        except (OSError, ValueError, RecursionError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            kept = set_aside(self.path)
            log.warn(errors.WORDS_UNREADABLE.line(path=self.path, reason=reason, kept=kept))
            return {}
        for key, word in words.items():
            state = state_of(word.draining, word.disabled)
            log.info(f"{written(key)} is {state} by a command before this start")
        return words

    def _bytes(self) -> bytes:
        with open(open_regular(self.path, os.O_RDONLY), "rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise ValueError(f"larger than {FILE_BYTES_MAX >> 20} MiB")
        return data

    def save(self, words: Words) -> list[str]:
        """Replaces the file as a whole; a warning when that cannot be done."""
        new = self.path.with_suffix(".new")
        rows = [dict(zip(FIELDS, (*key, *word), strict=True)) for key, word in words.items()]
        try:
            if not words:
                self.path.unlink(missing_ok=True)
                return []
            new.unlink(missing_ok=True)  # of a process that died, and perhaps another user's
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump({"nodes": rows}, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
        except OSError as error:
            return [errors.WORDS_NOT_SAVED.line(path=self.path, reason=error.strerror or error)]
        return []


def _read(document: Any) -> Words:
    rows = document["nodes"] if isinstance(document, dict) and "nodes" in document else None
    if not isinstance(rows, list):
        raise ValueError("not a list of nodes")
    words = {}
    for row in rows:
        values: list[Any] = [row.get(name) if isinstance(row, dict) else None for name in FIELDS]
        if [type(value) for value in values] != list(TYPES):
            raise ValueError(f"not a node: {shown(row)}")
        key = NodeKey(*values[:3])
        ip = read_ip(key.ip)
        if not re.fullmatch(NAME_PATTERN, key.pool):
            raise ValueError(f"not the name of a pool: {shown(key.pool)}")
        if ip is None or str(ip) != key.ip or not 1 <= key.port <= PORT_MAX:
            raise ValueError(f"not an address: {shown(key.ip)}, port {shown(key.port)}")
        words[key] = Word(*values[3:])
    return words


def shown(value: object) -> str:
    """A part of the file, short enough for a line."""
    text = ascii(value)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}..."
