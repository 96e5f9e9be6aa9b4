"""The linters and the type checker, as tests among the others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .sources import CORE, ROOT

BIN = Path(sys.executable).parent
CORE_FILES = sorted(str(path.relative_to(ROOT)) for path in CORE.glob("*.p[yx][xd]"))
COMMANDS = {
    "ruff": ["ruff", "check", "--no-cache", "."],
    "ruff-format": ["ruff", "format", "--no-cache", "--check", "--diff", "--quiet", "."],
    "cython-lint": ["cython-lint", *CORE_FILES],
    "mypy": ["mypy", "--strict"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_linter_is_content(name):
    program, *arguments = COMMANDS[name]
    paths = os.pathsep.join([str(BIN), os.environ["PATH"]])  # cython-lint calls pycodestyle
    done = subprocess.run(
        [str(BIN / program), *arguments],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PATH": paths}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
