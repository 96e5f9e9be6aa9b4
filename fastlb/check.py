"""From a configuration file to a Config, or to the list of everything that is wrong with it.

Three steps: look for what this version does not serve, decode (each value on its own), and
validate (how the values fit together). All three run, whatever the one before found.
"""

import errno
import os
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path as FilePath
from typing import Any, NamedTuple

from msgspec import structs

import fastlb
from fastlb import errors
from fastlb.config import PLACES, Config, uses_tls
from fastlb.decode import Decoder, Report
from fastlb.errors import ConfigNotFound, Message, Problem, printable
from fastlb.features import unavailable
from fastlb.toml_lines import Path, TomlLines
from fastlb.uses import rules_of
from fastlb.validate import unused, validate

FILE_BYTES_MAX = 16 << 20
DEPTH_MAX = 32  # tables and lists in each other
INTEGER_BITS = 63  # without the sign
TOO_DEEP = "its tables and lists are nested too deep"
NAMED_TABLES = ("virtual_servers", "pools", "monitors", "persistence")


class Checked(NamedTuple):
    """What a check found; `config` is there when there are no errors."""

    config: Config | None
    errors: list[Problem]
    warnings: list[Problem]
    problems: list[Problem]  # both, in the order of the file


class Problems:
    """Collects problems of one file and finds their places in it."""

    def __init__(self, file: FilePath) -> None:
        self.file = str(file)
        self.found: list[Problem] = []
        self.document: dict[str, Any] = {}
        self.lines: TomlLines | None = None
        self.refused: set[Path] = set()  # about these places nothing more is said

    def add(self, message: Message, path: Path, **values: object) -> None:
        """Notes that `message` holds at `path`."""
        if path in self.refused:
            return
        table, key = self._place(path)
        line = self.lines.of(path) if self.lines else None
        text = message.text.format(**values)
        self._note(message, line, table, key, text)

    def add_elsewhere(self, problem: Problem, path: Path) -> None:
        """Notes what was found in another file, and the place here because of which it counts."""
        if path not in self.refused:
            table, key = map(printable, self._place(path))
            self.found.append(problem._replace(table=table, key=key, text=printable(problem.text)))

    def add_at_line(self, message: Message, line: int | None, **values: object) -> None:
        """Notes that `message` holds for the file, or one line of it."""
        self._note(message, line, "", "", message.text.format(**values))

    def errors(self) -> list[Problem]:
        return [problem for problem in self.found if problem.level == "error"]

    def checked(self, config: Config | None) -> Checked:
        """Both lists in the order of the file."""
        self.found = sorted(dict.fromkeys(self.found), key=self._order)
        wrong = self.errors()
        warnings = [problem for problem in self.found if problem.level == "warning"]
        return Checked(None if wrong else config, wrong, warnings, self.found)

    def _order(self, problem: Problem) -> tuple[bool, str, int]:
        return problem.file != self.file, problem.file, problem.line or 0

    def _note(self, message: Message, line: int | None, table: str, key: str, text: str) -> None:
        place = printable(table), printable(key)
        problem = Problem(message.code, message.level, self.file, line, *place, printable(text))
        self.found.append(problem)

    def _place(self, path: Path) -> tuple[str, str]:
        """Table and key as the operator knows them: "pools.web", "nodes[1].weight"."""
        depth = 2 if path and path[0] in NAMED_TABLES else 1
        if len(path) == 1 and not isinstance(self.document.get(str(path[0])), dict):
            depth = 0
        key = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path[depth:])
        return ".".join(str(part) for part in path[:depth]), key.lstrip(".")


def find_config(explicit: str | None, places: Iterable[FilePath] = PLACES) -> FilePath:
    """The file named with -c, else the first of the usual places; raises ConfigNotFound."""
    if explicit is not None:
        return FilePath(explicit)
    usual = list(places)
    for place in usual:
        if place.is_file():
            return place
    text = errors.NO_CONFIG.text.format(first=usual[0].absolute(), second=usual[1])
    raise ConfigNotFound(text)


def check_file(path: FilePath | str) -> Checked:
    """Reads and checks a configuration file; nothing is started, bound or written."""
    file = FilePath(path)
    problems = Problems(file)
    try:
        text = read_file(file).decode()
    except OSError as error:
        problems.add_at_line(errors.FILE_UNREADABLE, None, reason=error.strerror or error)
        return problems.checked(None)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        problems.add_at_line(errors.FILE_NOT_UTF8, line, offset=error.start)
        return problems.checked(None)
    return _checked(text, problems, with_rules=True)


def read_file(file: FilePath) -> bytes:
    """What the file holds. Raises OSError.

    A pipe that nobody writes to does not hold up a reload, nor is a device read without end.
    """
    with open(file, "rb", opener=_open_at_once) as one:
        os.set_blocking(one.fileno(), True)
        data = one.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise OSError(errno.EFBIG, f"larger than {FILE_BYTES_MAX >> 20} MiB")
    return data


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def check_text(text: str, file: FilePath) -> Checked:
    """Checks a configuration that was read from `file`; the modules of its rules are not
    looked at."""
    return _checked(text, Problems(file), with_rules=False)


def _checked(text: str, problems: Problems, with_rules: bool) -> Checked:
    try:
        problems.document = document = _parsed(text)
    except tomllib.TOMLDecodeError as error:
        reason, line = _syntax_place(str(error), text)
        problems.add_at_line(errors.FILE_SYNTAX, line, reason=reason)
        return problems.checked(None)
    except ValueError as error:
        problems.add_at_line(errors.FILE_SYNTAX, None, reason=error)
        return problems.checked(None)
    problems.lines = TomlLines(text, document)
    for path, what in unavailable(document):
        problems.add(errors.NOT_AVAILABLE, path, what=what, version=fastlb.__version__)
        problems.refused.add(path)
    config = Decoder(document, FilePath(problems.file), problems.add).read()
    validate(config, document, problems.add)
    _check_tls(config, problems.add)
    functions = [monitor.function for monitor in config.monitors.values()]
    if with_rules and (rules_of(config) or any(functions)):
        from fastlb.rule_problems import report_rules  # which most configurations do without

        kinds = report_rules(config, problems.add, problems.add_elsewhere)
        config = structs.replace(config, rule_kinds=kinds)
    if not problems.errors():
        unused(config, problems.add)
    return problems.checked(config)


def _parsed(text: str) -> dict[str, Any]:
    """The document. Raises ValueError, also for what no other TOML reader would have to take."""
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    level: list[Any] = [document]
    for _ in range(DEPTH_MAX):
        values = [
            value for one in level for value in (one.values() if isinstance(one, dict) else one)
        ]
        if any(isinstance(value, int) and value.bit_length() > INTEGER_BITS for value in values):
            raise ValueError("a whole number has more than 64 bits")
        level = [value for value in values if isinstance(value, dict | list)]
    if level:
        raise ValueError(TOO_DEEP)
    return document


def _check_tls(config: Config, report: Report) -> None:
    if uses_tls(config):
        from fastlb.tls_files import check_tls  # and the TLS library, which costs commands a while

        check_tls(config, report)


def _syntax_place(reason: str, text: str) -> tuple[str, int]:
    """tomllib's message without its line, and the line."""
    match = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", reason)
    if match:
        return f"{match[1]} at column {match[3]}", int(match[2])
    return reason.removesuffix(" (at end of document)"), text.count("\n") + 1
