"""Session caches survive a stop, and a damaged file does not keep fastlb from starting."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fastlb._core._testing_session_cache import Probe
from fastlb.check import check_text
from fastlb.saved_maps import SavedMaps
from fastlb.segment import SharedSegment
from tests.in_the_way import IN_THE_WAY

TEXT = """
[virtual_servers.a]
listen = "127.0.0.1:80"
pool = "web"
[pools.web]
nodes = ["127.0.0.1:81"]
[persistence.users]
type = "ip"
size = 100
[persistence.empty]
type = "ip"
size = 100
"""


@pytest.fixture
def shared():
    cfg = check_text(TEXT, Path("x")).config
    assert cfg is not None
    one = SharedSegment(1)
    one.adopt(one.prepare(cfg))
    yield one
    one.close()


def saved(shared: SharedSegment, directory: Path, mark: bytes = b"m" * 16) -> SavedMaps:
    """Saves 30 maps and empties the cache."""
    probe = Probe(shared.segment, "class.users")
    for number in range(30):
        probe.store(number, number, shared.now())
    maps = SavedMaps(directory, mark)
    maps.save(shared)
    shared.stores.caches["users"].cache.flush()
    return maps


def entries(shared: SharedSegment) -> int:
    return shared.stores.caches["users"].cache.stats(shared.now()).entries


def test_what_was_saved_is_loaded(
    shared: SharedSegment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = saved(shared, tmp_path)
    assert {path.name for path in maps.directory.iterdir()} == {"users.maps", "empty.maps"}
    assert {path.stat().st_mode & 0o777 for path in maps.directory.iterdir()} == {0o600}
    assert entries(shared) == 0
    maps.load(shared)
    assert entries(shared) == 30
    assert "30 session maps of [persistence.users] loaded" in capsys.readouterr().err


def test_without_files_nothing_is_said(
    shared: SharedSegment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    SavedMaps(tmp_path, bytes(16)).load(shared)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("at", [0, 40, 120, -1])
def test_a_damaged_file_is_set_aside_and_reported(
    shared: SharedSegment, tmp_path: Path, capsys: pytest.CaptureFixture[str], at: int
) -> None:
    maps = saved(shared, tmp_path)
    path = maps.directory / "users.maps"
    data = bytearray(path.read_bytes())
    data[at] ^= 0x55
    for number in (1, 2):
        path.write_bytes(data)
        maps.load(shared)
        aside = maps.directory / f"users.maps.damaged-{number}"
        assert aside.read_bytes() == data
        assert not path.exists()
        said = capsys.readouterr().err
        assert "[persistence.users] are not used" in said
        assert str(aside) in said
        assert "FLB-S074" in said
    assert entries(shared) == 0


def test_a_file_of_another_secret_is_not_loaded(
    shared: SharedSegment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(shared, tmp_path)
    SavedMaps(tmp_path, b"n" * 16).load(shared)
    assert entries(shared) == 0
    assert "another secret" in capsys.readouterr().err


def test_maps_of_a_class_that_had_another_type_are_set_aside(
    shared: SharedSegment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = saved(shared, tmp_path)
    cfg = check_text(TEXT.replace('"ip"', '"j2ee"', 1), Path("x")).config
    assert cfg is not None
    shared.adopt(shared.prepare(cfg))
    maps.load(shared)
    assert entries(shared) == 0
    assert "holds the maps of class 'ip users', not 'j2ee users'" in capsys.readouterr().err


@pytest.mark.parametrize("put_there", IN_THE_WAY)
def test_what_is_no_file_is_set_aside(
    shared: SharedSegment,
    tmp_path: Path,
    put_there: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    maps = saved(shared, tmp_path)
    path = maps.directory / "users.maps"
    path.unlink()
    put_there(path)
    put_there(maps.directory / "users.maps.damaged-1")
    maps.load(shared)
    said = capsys.readouterr().err
    assert "FLB-S074" in said
    assert f"kept as {path}.damaged-2" in said
    maps.save(shared)
    maps.load(shared)
    assert "0 session maps of [persistence.users] loaded" in capsys.readouterr().err


@pytest.mark.parametrize("put_there", IN_THE_WAY)
def test_what_is_in_the_way_of_saving_does_not_keep_fastlb_from_its_end(
    shared: SharedSegment,
    tmp_path: Path,
    put_there: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "sessions").mkdir()
    put_there(tmp_path / "sessions" / "users.maps.new")
    put_there(tmp_path / "sessions" / "empty.maps")
    SavedMaps(tmp_path, bytes(16)).save(shared)
    said = capsys.readouterr().err
    assert ("FLB-S075" in said) == (put_there is Path.mkdir)


@pytest.mark.parametrize("put_there", [os.mkfifo, Path.touch])
def test_a_directory_that_is_none_is_passed_by(
    shared: SharedSegment,
    tmp_path: Path,
    put_there: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    put_there(tmp_path / "sessions")
    SavedMaps(tmp_path, bytes(16)).load(shared)
    assert capsys.readouterr().err == ""


def test_what_cannot_be_saved_is_reported(
    shared: SharedSegment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sessions").write_text("in the way")
    SavedMaps(tmp_path, bytes(16)).save(shared)
    assert capsys.readouterr().err.count("FLB-S075") == 2
