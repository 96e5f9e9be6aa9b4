"""What Cython makes of the core: never the GIL by accident, never a hint that it costs something.

The release build's C is read, and what Cython said when it made it: setup.py keeps both.
"""

import re

import pytest

from .sources import CORE, GIL_MODULE, ROOT, core_modules

MADE = ROOT / "build/release/cython" / CORE.relative_to(ROOT)
NAMES = [path.stem for path in core_modules()]
HOT = [name for name in NAMES if name != GIL_MODULE]


def made(name, kind):
    """The text of a file that the release build has made of this module as it is now."""
    file = MADE / f"{name}.{kind}"
    assert file.exists(), f"{file} is missing: run ci/build release"
    newest = max(path.stat().st_mtime_ns for path in CORE.glob(f"{name}.p[yx][xd]"))
    assert file.stat().st_mtime_ns > newest, f"{name} has changed since: run ci/build release"
    return file.read_text()


@pytest.mark.parametrize("name", NAMES)
def test_cython_has_nothing_to_say(name):
    assert made(name, "said") == ""


def test_the_one_module_that_takes_the_gil_is_seen_to_do_so():
    """So that the pattern of the next test is the one that Cython writes."""
    assert re.search(r"__Pyx_PyGILState_Ensure\(", made(GIL_MODULE, "c"))


@pytest.mark.parametrize("name", HOT)
def test_generated_code_never_asks_for_the_gil(name):
    text = made(name, "c")
    assert len(text) > 1000
    assert re.findall(r".*__Pyx_PyGILState_Ensure\(.*", text) == []
