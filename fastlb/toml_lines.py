"""Where in a TOML file a table or key stands; tomllib does not say.

A light scan, good for messages and nothing else: table headers, keys at the start of a line,
and, inside a list, the line that shows the element's text. What it cannot find has the line of
the table around it.
"""

import re
from typing import Any

Path = tuple[str | int, ...]

_KEY = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_KEYS = rf"({_KEY}(?:\s*\.\s*{_KEY})*)"
_HEADER = re.compile(rf"\s*(\[\[?)\s*{_KEYS}\s*\]\]?\s*(?:#.*)?$")
_ASSIGNMENT = re.compile(rf"\s*{_KEYS}\s*=")
_MULTILINE_QUOTE = re.compile(r"\"\"\"|'''")


class TomlLines:
    """The lines of one file's tables and keys, counted from 1."""

    def __init__(self, text: str, document: dict[str, Any]) -> None:
        self._document = document
        self._lines = text.splitlines()
        self._at: dict[Path, int] = {}
        self._scan()

    def of(self, path: Path) -> int | None:
        """The line of the nearest thing around `path` that has one."""
        for count in range(len(path), 0, -1):
            if path[:count] in self._at:
                line = self._at[path[:count]]
                rest = path[count:]
                if rest and isinstance(rest[0], int):
                    return self._of_element(path[:count], rest[0], line)
                return line
        return None

    def _scan(self) -> None:
        table: Path = ()
        repeated: dict[Path, int] = {}
        in_string = False
        for number, line in enumerate(self._lines, 1):
            if len(_MULTILINE_QUOTE.findall(line)) % 2:
                in_string = not in_string
                if not in_string:
                    continue
            elif in_string:
                continue
            if header := _HEADER.match(line):
                table = _parts(header[2])
                if header[1] == "[[":
                    index = repeated[table] = repeated.get(table, -1) + 1
                    self._at.setdefault(table, number)
                    table = (*table, index)
                self._note(table, number)
            elif assignment := _ASSIGNMENT.match(line):
                self._note((*table, *_parts(assignment[1])), number)

    def _note(self, path: Path, number: int) -> None:
        for count in range(1, len(path) + 1):
            self._at.setdefault(path[:count], number)

    def _of_element(self, path: Path, index: int, line: int) -> int:
        """The line, from `line` on, that shows element `index` of the list at `path`."""
        elements = self._value(path)
        if not isinstance(elements, list):
            return line
        wanted = _shown(elements[index])
        passes = sum(_shown(element) == wanted for element in elements[:index])
        for number in range(line, len(self._lines) + 1):
            if number > line and number in self._at.values():
                break
            passes -= self._lines[number - 1].count(wanted) if wanted else 0
            if passes < 0:
                return number
        return line

    def _value(self, path: Path) -> object:
        value: Any = self._document
        for part in path:
            value = value[part]
        return value


def _parts(keys: str) -> Path:
    return tuple(key.strip("\"'") for key in re.findall(_KEY, keys))


def _shown(element: object) -> str:
    """The text by which an element of a list is recognised in its line."""
    if isinstance(element, dict):
        element = next((value for value in element.values() if isinstance(value, str)), "")
    return str(element)
