"""The files that the gates look at, and what they know about them."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "fastlb/_core"
GIL_MODULE = "hooks"  # the only module that may take the GIL; it counts that
FUNCTION = re.compile(r"^(\s*)(?:async\s+)?(?:cpdef|cdef|def)\b(?!\s+class\b).*\(.*$")


class Function(NamedTuple):
    """A function as the eye sees it: from its first line to its last."""

    file: str
    name: str
    line: int
    lines: int


def tracked(*suffixes: str) -> list[Path]:
    """The repository's own files of these kinds: tracked, or new and not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    paths = [ROOT / name for name in listed if name.endswith(suffixes)]
    return sorted(path for path in paths if path.is_file() and not path.is_symlink())


def core_modules() -> list[Path]:
    """Every compiled module that ships."""
    return sorted(path for path in CORE.glob("*.pyx") if not path.stem.startswith("_testing"))


def functions(path: Path) -> Iterator[Function]:
    """The functions of a .py or .pyx file, found by indentation: both grammars share that."""
    lines = path.read_text().splitlines()
    for start, text in enumerate(lines):
        found = FUNCTION.match(text)
        if found is None or not is_definition(lines, start):
            continue
        indent = len(found[1])
        last = start
        for at in range(header_end(lines, start) + 1, len(lines)):
            stripped = lines[at].strip()
            if stripped and len(lines[at]) - len(lines[at].lstrip()) <= indent:
                break
            if stripped:
                last = at
        name = re.search(r"(\w+)\s*(?:\[[^\]]*\])?\(", text)
        yield Function(
            str(path.relative_to(ROOT)), name[1] if name else text, start + 1, last - start + 1
        )


def header_end(lines: list[str], start: int) -> int:
    """The line on which the header's parentheses are closed."""
    depth = 0
    for at in range(start, min(start + 40, len(lines))):
        depth += lines[at].count("(") - lines[at].count(")")
        if depth <= 0:
            return at
    return start


def is_definition(lines: list[str], start: int) -> bool:
    """Whether the header ends in a colon: a definition, and no declaration or variable."""
    return lines[header_end(lines, start)].split("#")[0].rstrip().endswith(":")
