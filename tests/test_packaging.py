"""The wheel: what is in it, and that it runs where neither compiler nor sources are.

What the release build has compiled is the wheel's too; only the deep test compiles it again.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from fastlb.cli import parser
from tests.gates.sources import ROOT, core_modules

CORE = Path("fastlb/_core")


def copied_sources(folder: Path) -> Path:
    """What a stranger would have: the files under version control, nothing that was built."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in listed:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(os.readlink(source))
        elif source.is_file():
            shutil.copy2(source, target)
    return folder


def test_the_unit_is_one_for_any_systemd_and_its_commands_are_there() -> None:
    # One older than 253 takes a `Type` that it does not know for "simple", and only warns.
    unit = dict(
        line.split("=", 1)
        for line in (ROOT / "deploy/fastlb.service").read_text().splitlines()
        if "=" in line and not line.startswith("#")
    )
    assert unit["Type"] == "notify"
    # Neither five quick failures nor one worker's death may end what serves.
    assert (unit["StartLimitIntervalSec"], unit["OOMPolicy"]) == ("0", "continue")
    assert (unit["KillMode"], unit["Restart"]) == ("process", "always")
    commands = [unit[key].split() for key in ("ExecStart", "ExecReload")]
    assert [command[1] for command in commands] == ["run", "reload"]
    for _, *words in commands:
        parsed = parser().parse_args(words)
        assert str(parsed.config) == "/etc/fastlb/fastlb.toml"


def with_the_compiled(folder: Path) -> Path:
    """Sources, and of the release build what a wheel's build would make of them anew."""
    shutil.copytree(ROOT / "build/release/cython", folder / "build/wheel/cython")
    (folder / "build/wheel/lib" / CORE).mkdir(parents=True)
    for module in core_modules():
        (file,) = (ROOT / CORE).glob(f"{module.stem}.*.so")
        shutil.copy2(file, folder / "build/wheel/lib" / CORE)
    return folder


def built(command: str, tmp: Path, sources: Path) -> Path:
    """The one file that `setup.py command` makes of a copy of the sources."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "setup.py", command, "--dist-dir", str(tmp / "dist")],
        cwd=sources, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = (tmp / "dist").iterdir()
    return file


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp = tmp_path_factory.mktemp("wheel")
    return built("bdist_wheel", tmp, with_the_compiled(copied_sources(tmp / "sources")))


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_a_wheel_holds_every_core_module_and_no_test_module(names: set[str]) -> None:
    compiled = {Path(name).name.partition(".")[0] for name in names if name.endswith(".so")}
    assert compiled == {path.stem for path in core_modules()}


def test_a_wheel_holds_types_and_examples_and_no_source_of_the_core(names: set[str]) -> None:
    assert {"fastlb/py.typed", "fastlb/_core/plan.pyi", "fastlb/examples/quickstart.toml"} <= names
    kinds = {".py", ".pyi", ".so", ".toml", ".txt", ".typed", ""}
    assert {Path(name).suffix for name in names} <= kinds
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"fastlb"}


def test_an_installed_wheel_runs_the_demo(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "fastlb", "demo", "--once"],
        cwd=tmp_path / "elsewhere", capture_output=True, text=True, timeout=60, check=False,
        env={"PATH": "/nonexistent", "PYTHONPATH": str(tmp_path / "site")},  # no compiler
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all sessions hold" in done.stdout


@pytest.mark.deep
def test_a_wheel_is_built_where_nothing_was(names: set[str], tmp_path: Path) -> None:
    with zipfile.ZipFile(built("bdist_wheel", tmp_path, copied_sources(tmp_path / "s"))) as archive:
        assert set(archive.namelist()) == names


def test_a_source_archive_holds_all_that_a_wheel_is_made_of(tmp_path: Path) -> None:
    with tarfile.open(built("sdist", tmp_path, copied_sources(tmp_path / "sources"))) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"setup.py", "pyproject.toml", "README.md", "LICENSE", "Makefile", "ci/test"}
    needed |= {"fastlb/examples/quickstart.toml", "fastlb/_core/debug.h", "fastlb/_core/plan.pxd"}
    needed |= {str(path.relative_to(ROOT)) for path in core_modules()}
    assert needed - held == set()
    assert [name for name in held if name.endswith((".so", ".pyc"))] == []
