"""The rules of a plan, sorted for the ways they are run; made and let go of through hooks."""

import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastlb import rule_loader
from fastlb._core._testing_rule_table import Rules, in_use
from tests.core.plans import Setting
from tests.harness.proxy import environment

MODULE = """
from fastlb import rule
@rule.request
def a(request): ...
@rule.response
async def b(request, response): ...
@rule.connection
def c(connection): ...
@rule.request
async def d(request): ...
"""


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(rule_loader, "_finder", None)
    before = dict(sys.modules)
    yield
    for name in sys.modules.keys() - before.keys():
        del sys.modules[name]


def rules(directory: Path, *names: str, protocol: str = "http") -> Rules:
    setting = Setting(rules=list(names), rules_directory=str(directory), protocol=protocol)
    return Rules(setting.image())


def test_rules_are_listed_by_kind_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(MODULE)
    made = rules(tmp_path, *(f"shop:{name}" for name in "dbca"))
    shop = sys.modules["shop"]
    assert made.lists(0) == {
        "connection": [("shop:c", 2, False, shop.c)],
        "request": [("shop:d", 0, True, shop.d), ("shop:a", 3, False, shop.a)],
        "response": [("shop:b", 1, True, shop.b)],
    }
    assert made.has() == (True, True)
    made.release()


@pytest.mark.parametrize(("name", "has"), [("a", (True, False)), ("b", (False, True))])
def test_which_threads_are_needed(tmp_path: Path, name: str, has: tuple[bool, bool]) -> None:
    (tmp_path / "shop.py").write_text(MODULE)
    made = rules(tmp_path, f"shop:{name}")
    assert made.has() == has
    made.release()


def test_what_is_released_can_go(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(MODULE)
    made, before = rules(tmp_path, "shop:a"), in_use()
    old = weakref.ref(sys.modules["shop"].a)
    (tmp_path / "shop.py").write_text(MODULE + "# changed\n")
    new = rules(tmp_path, "shop:a")
    gc.collect()
    assert old() is made.lists(0)["request"][0][3]
    made.release()
    gc.collect()
    assert old() is None
    assert in_use() == before
    new.release()
    assert in_use() == before - 1


def test_what_cannot_be_loaded_is_told_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shop.py").write_text("\n1 / 0\n")
    with pytest.raises(ValueError, match="refused"):
        rules(tmp_path, "shop:a")
    (line,) = capfd.readouterr().err.splitlines()
    assert line == (
        f"fastlb: error: rules cannot be loaded: shop:a: {tmp_path}/shop.py:2: cannot be "
        "imported: ZeroDivisionError: division by zero [FLB-S120]"
    )


@pytest.mark.parametrize("protocol", ["tcp", "tls"])
@pytest.mark.parametrize("name", ["a", "b"])
def test_only_connections_are_seen_there(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], protocol: str, name: str
) -> None:
    (tmp_path / "shop.py").write_text(MODULE)
    with pytest.raises(ValueError, match="refused"):
        rules(tmp_path, "shop:c", f"shop:{name}", protocol=protocol)
    assert f'"{protocol}" has no' in capfd.readouterr().err
    rules(tmp_path, "shop:c", protocol=protocol).release()


def test_no_message_breaks_the_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "shop.py").write_text("raise ValueError('a\\nfastlb: error: forged\\x1b[1m')\n")
    with pytest.raises(ValueError, match="refused"):
        rules(tmp_path, "shop:a")
    (line,) = capfd.readouterr().err.splitlines()
    assert "\x1b" not in line


def test_without_rules_python_has_no_part_in_it() -> None:
    """The module that imports rules is not even loaded for a plan without them."""
    code = "import sys, fastlb._core.worker; sys.exit('fastlb.rule_loader' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment()).returncode == 0
