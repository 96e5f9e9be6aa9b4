"""The examples as a set: each has a configuration that is right, and stands in the README."""

import re
from pathlib import Path

import pytest

from fastlb.check import check_file
from tests.harness.rules import EXAMPLES, ROOT
from tests.named_files import with_files

HELPERS = {"look_up"}  # used by others, no rules of their own
MODULES = sorted({file.stem for file in EXAMPLES.glob("*.py")} - HELPERS)


@pytest.mark.parametrize("name", MODULES)
def test_its_configuration_is_right(name: str, tmp_path: Path) -> None:
    file = with_files((EXAMPLES / f"{name}.toml").read_text(), tmp_path)
    for module in EXAMPLES.glob("*.py"):
        (tmp_path / module.name).write_bytes(module.read_bytes())
    checked = check_file(file)
    assert [str(problem) for problem in (*checked.errors, *checked.warnings)] == []
    assert checked.config is not None
    rules = [one for server in checked.config.virtual_servers.values() for one in server.rules]
    assert {one.partition(":")[0] for one in rules} == {name}


def test_the_readme_has_them_all() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\((\w+)\.py\)", (EXAMPLES / "README.md").read_text(), re.M)
    assert sorted(name for name, _ in rows) == MODULES
    assert all(name == file for name, file in rows)
    assert {file.stem for file in EXAMPLES.glob("*.toml")} == set(MODULES)


def test_the_guide_begins_with_a_rule_in_five_lines() -> None:
    first = re.findall(r"```python\n(.*?)```", (ROOT / "docs/rules.md").read_text(), re.DOTALL)[0]
    code = [line for line in first.splitlines() if line]
    assert "@rule.request" in code
    assert len(code) <= 5


@pytest.mark.parametrize(
    "block", re.findall(r"```python\n(.*?)```", (ROOT / "docs/rules.md").read_text(), re.DOTALL)
)
def test_what_the_guide_shows_is_python(block: str) -> None:
    compile(block, "docs/rules.md", "exec")
