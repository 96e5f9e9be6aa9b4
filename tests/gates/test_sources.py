"""Rules about the sources that no reviewer should have to repeat."""

import re

import pytest

from .sources import CORE, GIL_MODULE, ROOT, core_modules, functions, tracked

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 600
# One flat switch or parser loop each, which splitting would make harder to read: "file:function".
FLAT: set[str] = set()
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
SKIPPED = re.compile(r"pytest\.(skip|importorskip)\(|mark\.(skip|skipif|xfail)|unittest\.skip")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
THIS_FOLDER = "tests/gates/"


def relative(path):
    return str(path.relative_to(ROOT))


def places(paths, pattern):
    """Where a pattern occurs, as file:line."""
    return [
        f"{relative(path)}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if pattern.search(line) and not relative(path).startswith(THIS_FOLDER)
    ]


def test_there_is_something_to_look_at():
    assert len(core_modules()) > 10
    assert len(list(functions(CORE.parent / "check.py"))) > 3


def test_the_gil_is_taken_in_one_module_only():
    paths = [path for path in tracked(".pyx", ".pxd") if path.stem != GIL_MODULE]
    assert places(paths, re.compile(r"^[^#]*\bwith gil\b")) == []


def test_each_taking_of_the_gil_is_counted():
    lines = (CORE / f"{GIL_MODULE}.pyx").read_text().splitlines()
    taken = [number for number, line in enumerate(lines) if re.match(r" *with gil\b", line)]
    assert len(taken) > 1
    assert {lines[number - 1].strip() for number in taken} == {"_acquisitions[0] += 1"}


def test_every_core_module_has_a_test_file():
    tests = {path.stem for path in (ROOT / "tests/core").glob("test_*.py")}
    missing = [path.stem for path in core_modules() if f"test_{path.stem}" not in tests]
    assert missing == []


def test_functions_fit_on_a_screen():
    found = [each for path in tracked(".py", ".pyx") for each in functions(path)]
    long = [
        f"{each.file}:{each.line}: {each.name} has {each.lines} lines"
        for each in found
        if each.lines > FUNCTION_LINES_MAX and f"{each.file}:{each.name}" not in FLAT
    ]
    assert long == []
    known = {f"{each.file}:{each.name}" for each in found if each.lines > FUNCTION_LINES_MAX}
    assert known >= FLAT, "an exception that is not needed any more"


def test_files_are_not_endless():
    sizes = {relative(path): len(path.read_text().splitlines()) for path in tracked(".py", ".pyx",
             ".pxd", ".h", ".c")}  # fmt: skip
    assert {name: size for name, size in sizes.items() if size > FILE_LINES_MAX} == {}


def test_nothing_is_left_unfinished():
    kinds = (".py", ".pyx", ".pxd", ".h", ".c", ".toml", ".md", ".sh")
    assert places(tracked(*kinds), UNFINISHED) == []


def test_no_test_is_skipped():
    paths = [path for path in tracked(".py") if relative(path).startswith("tests/")]
    assert places(paths, SKIPPED) == []


@pytest.mark.parametrize("path", tracked(".md"), ids=relative)
def test_relative_links_of_the_docs_exist(path):
    targets = LINK.findall(path.read_text())
    local = [t.partition("#")[0] for t in targets if not re.match(r"[a-z]+:|#", t)]
    assert [target for target in local if not (path.parent / target).exists()] == []
