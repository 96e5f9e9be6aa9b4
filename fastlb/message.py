"""What messages to the operator are made of: the entry of a catalogue, the problem at a place, the
errors that carry lines. The catalogue itself is errors.py.
"""

import difflib
from collections.abc import Iterable
from typing import Literal, NamedTuple

Level = Literal["error", "warning"]


class Message(NamedTuple):
    """One entry of the catalogue; `text` is a str.format template."""

    code: str
    level: Level
    text: str

    def line(self, **values: object) -> str:
        """The text with its values, and the code by which it is found in docs/operations.md."""
        return f"{self.text.format(**values)} [{self.code}]"


class Problem(NamedTuple):
    """One thing that is wrong at one place; `str()` is the line that the operator reads."""

    code: str
    level: Level
    file: str
    line: int | None
    table: str
    key: str
    text: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        place = " ".join(part for part in (self.table and f"[{self.table}]", self.key) if part)
        return ": ".join(part for part in (where, place, self.text) if part)


class Invalid(ValueError):
    """A value that cannot be read; whoever knows its place makes a Problem of it."""

    def __init__(self, message: Message, **values: object) -> None:
        super().__init__(message.text.format(**values))
        self.message = message
        self.values = values


class StartError(Exception):
    """Something that fastlb cannot work without, said in lines that tell what to do."""

    def __init__(self, message: Message, **values: object) -> None:
        self.lines = [message.line(**values)]
        super().__init__(*self.lines)

    @classmethod
    def of_all(cls, found: "Iterable[StartError]") -> "StartError":
        """One error of several that were met together."""
        both = cls.__new__(cls)
        both.lines = [line for one in found for line in one.lines]
        return both


class Refused(Exception):
    """A command that a running fastlb does not carry out; `str()` is the line that says why."""

    def __init__(self, message: Message, **values: object) -> None:
        super().__init__(message.line(**values))

    @classmethod
    def with_line(cls, line: str) -> "Refused":
        """What the running fastlb said, for whoever asked it."""
        both = cls.__new__(cls)
        Exception.__init__(both, line)
        return both


class ConfigNotFound(Exception):
    """There is no configuration file at any of the places looked at."""


def printable(text: str) -> str:
    """`text` with its control characters escaped, fit for one line of a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like `word`, or None when none is like it."""
    by_lower = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str], quote: str = '"') -> str:
    """The tail ` (did you mean "x"?)`, or nothing."""
    found = nearest(word, known)
    return f" (did you mean {quote}{found}{quote}?)" if found else ""
