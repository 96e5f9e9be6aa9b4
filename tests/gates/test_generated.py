"""What Cython makes of the core: never the GIL by accident, never a hint that it costs something.

All modules are translated once, with the release build's directives, into a temporary folder; the
C compiler does not run.
"""

import ast
import os
import re
import subprocess
import sys

import pytest

from .sources import CORE, GIL_MODULE, ROOT, core_modules

HOT = [path.stem for path in core_modules() if path.stem != GIL_MODULE]
TRANSLATE = """
import sys
from Cython.Build import cythonize
cythonize(sys.argv[4:], build_dir=sys.argv[1], compiler_directives=eval(sys.argv[2]), force=True,
          nthreads=int(sys.argv[3]), show_all_warnings=True, quiet=True)
"""


def release_directives():
    """The directives that setup.py uses for a release, read from its source."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "directives":
            return eval(compile(ast.Expression(node.value), "setup.py", "eval"), {"DEBUG": False})
    raise AssertionError("setup.py has no `directives`")


@pytest.fixture(scope="module")
def translated(tmp_path_factory):
    """The folder of the generated C, all that Cython said, and its exit code."""
    folder = tmp_path_factory.mktemp("cython")
    names = [str(path.relative_to(ROOT)) for path in core_modules()]
    done = subprocess.run(
        [sys.executable, "-c", TRANSLATE, str(folder), repr(release_directives()),
         str(os.cpu_count()), *names],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return folder, done.stdout + done.stderr, done.returncode


def test_every_module_translates(translated):
    _, said, code = translated
    assert code == 0, said


def test_cython_has_no_performance_hint(translated):
    _, said, _ = translated
    hints = [line for line in said.splitlines() if "performance hint" in line]
    assert hints == []


def test_cython_has_no_warning(translated):
    _, said, _ = translated
    assert [line for line in said.splitlines() if line.startswith("warning:")] == []


def test_the_one_module_that_takes_the_gil_is_seen_to_do_so(translated):
    """So that the pattern of the next test is the one that Cython writes."""
    folder, _, _ = translated
    text = (folder / CORE.relative_to(ROOT) / f"{GIL_MODULE}.c").read_text()
    assert re.search(r"__Pyx_PyGILState_Ensure\(", text)


@pytest.mark.parametrize("name", HOT)
def test_generated_code_never_asks_for_the_gil(translated, name):
    folder, _, _ = translated
    text = (folder / CORE.relative_to(ROOT) / f"{name}.c").read_text()
    assert len(text) > 1000
    assert re.findall(r".*__Pyx_PyGILState_Ensure\(.*", text) == []
