"""Modules of rules: found, imported once, afresh when one changed, put back when that fails."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastlb import errors, rule_loader
from fastlb.rule_loader import Loaded, RuleLoadError, load

HEAD = "from fastlb import rule\n"
ROUTE = HEAD + "@rule.request\ndef route(request): return {}\n"


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing that is loaded here stays."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(rule_loader, "_finder", None)
    before = dict(sys.modules)
    yield
    for name in sys.modules.keys() - before.keys():
        del sys.modules[name]


def write(path: Path, text: str, like: Path | None = None) -> None:
    """A file; with the dates of another one, where it shall not differ by them."""
    about = like.stat() if like is not None else None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if about is not None:
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def called(loaded: Loaded) -> list[object]:
    return [one.function(None) for one in loaded.rules]


def refused(directory: Path, *names: str) -> RuleLoadError:
    with pytest.raises(RuleLoadError) as caught:
        load(directory, list(names))
    return caught.value


# --- what is loaded -----------------------------------------------------------------------


def test_rules_come_in_the_order_they_are_named(tmp_path: Path) -> None:
    write(
        tmp_path / "shop_rules.py",
        HEAD + "@rule.connection\nasync def hello(connection): ...\n"
        "@rule.response\ndef tag(request, response): ...\n"
        "@rule.request\ndef route(request): ...\n",
    )
    loaded = load(tmp_path, [f"shop_rules:{name}" for name in ("tag", "hello", "route")])
    kinds = [(one.name, one.kind, one.is_async) for one in loaded.rules]
    assert kinds == [
        ("shop_rules:tag", "response", False),
        ("shop_rules:hello", "connection", True),
        ("shop_rules:route", "request", False),
    ]
    assert loaded.functions == [one.function for one in loaded.rules]
    loaded.release()
    assert loaded.functions == []


def test_packages_and_folders_without_init(tmp_path: Path) -> None:
    write(tmp_path / "pack/__init__.py", "ONE = 1\n")
    write(tmp_path / "pack/deep/rules.py", HEAD + "from .. import ONE\n" + ROUTE.format("ONE"))
    write(tmp_path / "loose/rules.py", ROUTE.format("2"))
    names = ["pack.deep.rules:route", "loose.rules:route"]
    assert called(load(tmp_path, names)) == [1, 2]
    write(tmp_path / "loose/rules.py", ROUTE.format("3"))
    write(tmp_path / "pack/__init__.py", "ONE = 4\n")
    assert called(load(tmp_path, names)) == [4, 3]


def test_a_module_that_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "site/acme_rules.py", ROUTE.format("'acme'"))
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "site")])
    (tmp_path / "etc").mkdir()
    assert called(load(tmp_path / "etc", ["acme_rules:route"])) == ["acme"]
    write(tmp_path / "etc/acme_rules.py", ROUTE.format("'mine'"))  # comes first, once it is there
    assert called(load(tmp_path / "etc", ["acme_rules:route"])) == ["mine"]


def test_the_directory_is_first_on_the_path_once(tmp_path: Path) -> None:
    write(tmp_path / "shop.py", HEAD + "import sys\nSEEN = list(sys.path)\n" + ROUTE.format("SEEN"))
    (seen,) = called(load(tmp_path, ["shop:route"]))
    assert isinstance(seen, list)
    assert seen[0] == str(tmp_path)
    load(tmp_path, ["shop:route"])
    assert sys.path.count(str(tmp_path)) == 1


def test_no_cache_is_written_or_read(tmp_path: Path) -> None:
    write(tmp_path / "shop.py", ROUTE.format("1"))
    load(tmp_path, ["shop:route"])
    assert [path.name for path in tmp_path.iterdir()] == ["shop.py"]


# --- loaded again -------------------------------------------------------------------------


def test_what_did_not_change_stays_with_its_state(tmp_path: Path) -> None:
    write(tmp_path / "helper.py", "SEEN = []\n")
    write(tmp_path / "shop.py", HEAD + "import helper\n" + ROUTE.format("helper.SEEN"))
    first = load(tmp_path, ["shop:route"])
    called(first)[0].append("kept")  # type: ignore[attr-defined]
    os.utime(tmp_path / "shop.py")  # touched, and not changed
    second = load(tmp_path, ["shop:route"])
    assert second.functions == first.functions
    assert called(second) == [["kept"]]


@pytest.mark.parametrize("changed", ["shop", "helper"])
def test_one_change_imports_all_afresh(tmp_path: Path, changed: str) -> None:
    write(tmp_path / "helper.py", "NUMBER = 1\nclass Kind: ...\n")
    write(tmp_path / "shop.py", HEAD + "from helper import *\nA = 1\n" + ROUTE.format("NUMBER + A"))
    first = load(tmp_path, ["shop:route"])
    path = tmp_path / f"{changed}.py"
    write(path, path.read_text().replace("= 1", "= 2"), like=path)  # same size, same date
    second = load(tmp_path, ["shop:route"])
    assert (called(first), called(second)) == ([2], [3])
    assert all(a is not b for a, b in zip(first.functions, second.functions, strict=True))


def test_a_helper_that_is_imported_late_counts_too(tmp_path: Path) -> None:
    write(tmp_path / "late.py", "NUMBER = 1\n")
    write(
        tmp_path / "shop.py",
        HEAD + "@rule.request\ndef route(r):\n import late\n return late.NUMBER",
    )
    assert called(load(tmp_path, ["shop:route"])) == [1]
    write(tmp_path / "late.py", "NUMBER = 2\n")
    assert called(load(tmp_path, ["shop:route"])) == [2]


def test_a_helper_that_was_missed_before(tmp_path: Path) -> None:
    body = "try:\n from extra import N\nexcept ImportError:\n N = 0\n"
    write(tmp_path / "shop.py", HEAD + body + ROUTE.format("N"))
    assert called(load(tmp_path, ["shop:route"])) == [0]
    write(tmp_path / "extra.py", "N = 7\n")
    assert called(load(tmp_path, ["shop:route"])) == [7]
    (tmp_path / "extra.py").unlink()
    assert called(load(tmp_path, ["shop:route"])) == [0]


def test_a_module_that_becomes_a_package(tmp_path: Path) -> None:
    write(tmp_path / "shop.py", ROUTE.format("1"))
    assert called(load(tmp_path, ["shop:route"])) == [1]
    write(tmp_path / "shop/__init__.py", ROUTE.format("2"))
    assert called(load(tmp_path, ["shop:route"])) == [2]


def test_a_failure_puts_back_what_was(tmp_path: Path) -> None:
    write(tmp_path / "helper.py", "STATE = ['old']\n")
    write(tmp_path / "shop.py", HEAD + "import helper\n" + ROUTE.format("helper.STATE"))
    first = load(tmp_path, ["shop:route"])
    modules = {name: sys.modules[name] for name in ("helper", "shop")}
    write(tmp_path / "helper.py", "STATE = ['new']\n")
    write(tmp_path / "added.py", "")
    write(tmp_path / "shop.py", HEAD + "import helper, added\n1 / 0\n")
    assert "ZeroDivisionError" in refused(tmp_path, "shop:route").text
    assert {name: sys.modules[name] for name in ("helper", "shop")} == modules
    assert "added" not in sys.modules
    assert called(first) == [["old"]]
    write(tmp_path / "shop.py", HEAD + "import helper\n" + ROUTE.format("helper.STATE"))
    assert called(load(tmp_path, ["shop:route"])) == [["new"]]


def test_a_new_rule_beside_unchanged_ones_fails_alone(tmp_path: Path) -> None:
    write(tmp_path / "shop.py", ROUTE.format("1"))
    first = load(tmp_path, ["shop:route"])
    write(tmp_path / "more.py", "raise ValueError('no')\n")
    refused(tmp_path, "shop:route", "more:route")
    assert load(tmp_path, ["shop:route"]).functions == first.functions


def test_another_directory_has_other_modules(tmp_path: Path) -> None:
    write(tmp_path / "a/shop.py", ROUTE.format("'a'"))
    write(tmp_path / "b/shop.py", ROUTE.format("'b'"))
    (tmp_path / "c").mkdir()
    assert called(load(tmp_path / "a", ["shop:route"])) == ["a"]
    assert called(load(tmp_path / "b", ["shop:route"])) == ["b"]
    refused(tmp_path / "c", "shop:route")
    assert sys.path[0] == str(tmp_path / "b")
    assert str(tmp_path / "a") not in sys.path
    assert called(load(tmp_path / "b", ["shop:route"])) == ["b"]


def test_fastlb_stays_itself_beside_its_own_sources() -> None:
    root = Path(errors.__file__).parents[1]
    finder = rule_loader.install(root)
    assert finder.locate("fastlb") is None
    assert finder.locate("fastlb.errors") is None
    assert not any(name.startswith("fastlb") for name in finder.modules())


# --- what is wrong ------------------------------------------------------------------------

BROKEN = {  # what is in shop.py: the line it is said of, and words of it
    "x = 1\ndef f(:\n": (2, "SyntaxError: invalid syntax"),
    "if 1:\nx = 1\n": (2, "IndentationError"),
    "x = 1\n\n1 / 0\n": (3, "ZeroDivisionError: division by zero"),
    "import json\njson.loads('x')\n": (2, "JSONDecodeError"),
    "import shap_helpers\n": (1, 'did you mean "shop_helpers"?'),
    "import no_such_package_at_all\n": (1, f"nor installed for {sys.executable}"),
    "from shop_helpers import nothing\n": (1, "ImportError: cannot import name 'nothing'"),
    "import sys\nsys.exit(0)\n": (2, "ends the program"),
    "def f(): f()\nf()\n": (1, "RecursionError"),
    "raise KeyboardInterrupt\n": (1, "KeyboardInterrupt"),
    "class E(Exception):\n def __str__(self): 1 / 0\nraise E\n": (3, "E"),
    "raise ValueError('a\\nb\\x1b[2J')\n": (1, r"ValueError: a b\x1b[2J"),
    "from broken import x\n": (2, "SyntaxError"),
    "import ast\nast.parse('(')\n": (2, "SyntaxError"),
    "x = '\0'\n": (None, "null bytes"),
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_module_that_cannot_be_imported(tmp_path: Path, text: str) -> None:
    line, words = BROKEN[text]
    write(tmp_path / "shop.py", text)
    write(tmp_path / "shop_helpers.py", "")
    write(tmp_path / "broken.py", "\n(\n")
    error = refused(tmp_path, "shop:route")
    file = tmp_path / ("broken.py" if "broken" in text else "shop.py")
    assert (error.file, error.line) == (str(file), line)
    assert error.message is errors.RULE_NOT_IMPORTED
    assert words in error.text
    assert "shop" not in sys.modules


def test_a_module_that_is_no_utf8(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_bytes(b"x = '\xff'\n")
    error = refused(tmp_path, "shop:route")
    assert error.file == str(tmp_path / "shop.py")
    assert "utf-8" in error.text


def test_a_module_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path / "shop_rules.py", ROUTE.format("1"))
    error = refused(tmp_path, "shop_rule:route")
    assert (error.message, error.file) == (errors.RULE_NO_MODULE, None)
    assert 'no module "shop_rule" (did you mean "shop_rules"?)' in error.text
    assert f"there is no {tmp_path}/shop_rule.py" in error.text
    error = refused(tmp_path, "shop_rules.more:route")
    assert error.message is errors.RULE_NO_MODULE
    assert f"{tmp_path}/shop_rules/more.py" in error.text


@pytest.mark.parametrize("name", ["json", "queue", "sys", "errno", "random.more"])
def test_a_module_with_a_name_of_python(tmp_path: Path, name: str) -> None:
    folder, _, inner = name.partition(".")
    file = tmp_path / (f"{folder}/__init__.py" if inner else f"{name}.py")
    write(file, ROUTE.format("1"))
    error = refused(tmp_path, f"{name}:route")
    assert (error.message, error.file) == (errors.RULE_NAME_TAKEN, str(file))


def test_a_helper_with_a_name_of_python(tmp_path: Path) -> None:
    write(tmp_path / "shop.py", "import this_module\n" + ROUTE.format("1"))
    write(tmp_path / "this_module.py", "import antigravity\n")
    write(tmp_path / "antigravity.py", "")
    error = refused(tmp_path, "shop:route")
    assert (error.message, error.file) == (
        errors.RULE_NAME_TAKEN, str(tmp_path / "antigravity.py"),
    )  # fmt: skip


NO_RULES = {  # what `route` is: words of what is said
    "def route(r): ...": ("is not marked", 2),
    "route = 5": ("is of type int", None),
    "@rule.request\ndef route(): ...": ("too many positional arguments", 2),
    "@rule.request\ndef route(a, b): ...": ("missing a required argument: 'b'", 2),
    "@rule.response\ndef route(response): ...": ("called with (request, response)", 2),
    "@rule.connection\ndef route(a, *, b): ...": ("missing a required", 2),
    "@rule.request\ndef route(r): yield 1": ("is a generator", 2),
    "@rule.request\nasync def route(r): yield 1": ("is a generator", 2),
    "class route: ...": ("is a class", None),
    "import functools\ndef f(r): ...\nroute = functools.partial(f)": ("is of type partial", None),
    "class A:\n def f(self, r): ...\nroute = A().f": ("is of type method", 3),
    "rout = 1": ('no function "route" there: it has no rules', None),
    "@rule.request\ndef rout(r): ...": ('(did you mean "rout"?): its rules are rout', None),
}


@pytest.mark.parametrize("text", NO_RULES)
def test_what_is_no_rule(tmp_path: Path, text: str) -> None:
    words, line = NO_RULES[text]
    write(tmp_path / "shop.py", HEAD + text + "\n")
    error = refused(tmp_path, "shop:route")
    assert words in error.text
    assert (error.file, error.line) == (str(tmp_path / "shop.py"), line)


RULES = [
    "@rule.request\ndef route(a, b=1): ...",
    "@rule.request\ndef route(*args, **kwargs): ...",
    "@rule.response\ndef route(*both): ...",
    "@rule.request\nasync def route(r, /): ...",
]
WRAPPED = """
import functools
def timed(f):
    @functools.wraps(f)
    {}def inner(*args):
        return f(*args)
    return inner
@timed
@rule.request
{}def route(r): return 5
"""


@pytest.mark.parametrize("text", RULES)
def test_what_is_a_rule(tmp_path: Path, text: str) -> None:
    write(tmp_path / "shop.py", HEAD + text + "\n")
    (one,) = load(tmp_path, ["shop:route"]).rules
    assert one.is_async == ("async" in text)


@pytest.mark.parametrize(("outer", "inner"), [("", ""), ("async ", ""), ("", "async ")])
def test_a_wrapped_rule_is_one(tmp_path: Path, outer: str, inner: str) -> None:
    write(tmp_path / "shop.py", HEAD + WRAPPED.format(outer, inner))
    (one,) = load(tmp_path, ["shop:route"]).rules
    assert one.is_async == bool(outer or inner)


def test_one_rule_under_two_names(tmp_path: Path) -> None:
    write(tmp_path / "a.py", ROUTE.format("1"))
    write(tmp_path / "b.py", "from a import route as other\n")
    one, two = load(tmp_path, ["a:route", "b:other"]).functions
    assert one is two
