"""The operator's words about nodes, on disk: STATE_DIR/nodes.json, so that they outlive a
restart of the control process as they outlive a reload. The file is there while there are any.
"""

import json
import os
from pathlib import Path
from typing import Any

from fastlb import errors, log
from fastlb.node_states import Word, state_of, written
from fastlb.slots import NodeKey

NAME = "nodes.json"
FIELDS = ("pool", "ip", "port", *Word._fields)
TYPES = (str, str, int, bool, bool, bool)

Words = dict[NodeKey, Word]


class NodeWords:
    """The file of one state directory."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / NAME

    def load(self) -> Words:
        """What was said before this start, said again; nothing when the file is of no use."""
        try:
            words = _read(json.loads(self.path.read_bytes()))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warn(errors.WORDS_UNREADABLE.line(path=self.path, reason=error))
            return {}
        for key, word in words.items():
            state = state_of(word.draining, word.disabled)
            log.info(f"{written(key)} is {state} by a command before this start")
        return words

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
            raise ValueError(f"not a node: {row}")
        words[NodeKey(*values[:3])] = Word(*values[3:])
    return words
