"""The state directory, the lock, descriptor limits and the user to become."""

import os
import pwd
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from fastlb import machine
from fastlb.check import check_text
from fastlb.config import Config
from fastlb.errors import StartError
from fastlb.machine import StateLock, User, open_state_dir, raise_descriptor_limit
from tests.in_the_way import IN_THE_WAY


def config(limits: str = "") -> Config:
    text = '[virtual_servers.a]\nlisten = "127.0.0.1:80"\npool = "web"\n'
    text += f'[pools.web]\nnodes = ["127.0.0.1:81"]\n{limits}'
    found = check_text(text, Path("x")).config
    assert found is not None
    return found


def line_of(error: pytest.ExceptionInfo[StartError]) -> str:
    (line,) = error.value.lines
    return line


def test_the_state_directory_is_made_private(tmp_path: Path) -> None:
    path = tmp_path / "var" / "fastlb"
    open_state_dir(path)
    assert path.stat().st_mode & 0o777 == 0o700


def test_one_that_others_may_only_read_becomes_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    open_state_dir(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o703, 0o777])
def test_one_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(StartError) as caught:
        open_state_dir(tmp_path)
    assert f"chmod 700 {tmp_path}" in line_of(caught)
    assert "FLB-S007" in line_of(caught)
    assert tmp_path.stat().st_mode & 0o777 == mode


def test_a_file_in_its_place_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for path in (file, file / "below"):
        with pytest.raises(StartError) as caught:
            open_state_dir(path)
        assert f"state directory {path}: " in line_of(caught)
        assert "FLB-S004" in line_of(caught)


def test_another_users_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = pwd.getpwuid(os.geteuid() or pwd.getpwnam("nobody").pw_uid)
    os.chown(tmp_path, owner.pw_uid, -1)
    monkeypatch.setattr(machine.os, "geteuid", lambda: 4711)
    with pytest.raises(StartError) as caught:
        open_state_dir(tmp_path)
    assert f"belongs to {owner.pw_name}" in line_of(caught)
    assert "FLB-S006" in line_of(caught)


def test_a_user_without_a_name_is_shown_by_number() -> None:
    assert machine.user_name(987654) == "uid 987654"


def test_one_process_per_state_directory(tmp_path: Path) -> None:
    lock = StateLock(tmp_path)
    with pytest.raises(StartError) as caught:
        StateLock(tmp_path)
    assert f"pid {os.getpid()}" in line_of(caught)
    assert "FLB-S005" in line_of(caught)
    lock.release()
    StateLock(tmp_path).release()


@pytest.mark.parametrize("put_there", IN_THE_WAY)
def test_what_is_no_lock_file_is_one_line(
    tmp_path: Path, put_there: Callable[[Path], None]
) -> None:
    put_there(tmp_path / "lock")
    with pytest.raises(StartError) as caught:
        StateLock(tmp_path)
    assert f"state directory {tmp_path}: lock: " in line_of(caught)
    assert not (tmp_path / "nowhere").exists()


def test_a_lock_file_that_cannot_be_written_locks_all_the_same(tmp_path: Path) -> None:
    """As on a full disk, after a stop has emptied it."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        lock = StateLock(tmp_path)
        with pytest.raises(StartError, match="FLB-S005"):
            StateLock(tmp_path)
        lock.release()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_lock_that_leads_elsewhere_is_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("precious")
    (tmp_path / "lock").symlink_to(other)
    with pytest.raises(StartError) as caught:
        StateLock(tmp_path)
    assert "lock: not a regular file" in line_of(caught)
    assert other.read_text() == "precious"


def test_of_a_directory_only_what_is_nowhere_else_is_given_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who owns it may have put other people's files into it, or in its place."""
    given: set[int] = set()
    user = User(pwd.getpwuid(os.geteuid()).pw_name)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", lambda fd, *_: given.add(os.fstat(fd).st_ino))
    mine, theirs, elsewhere = (tmp_path / name for name in ("mine", "theirs", "elsewhere"))
    mine.mkdir()
    theirs.touch()
    (mine / "a.maps").touch()
    (mine / "linked").hardlink_to(theirs)
    (mine / "link").symlink_to(theirs)
    (mine / "directory").mkdir()
    os.mkfifo(mine / "pipe")
    user.give_directory(mine)
    assert given == {mine.stat().st_ino, (mine / "a.maps").stat().st_ino}
    given.clear()
    elsewhere.symlink_to(mine)
    user.give_directory(elsewhere)
    user.give_directory(tmp_path / "none")
    assert given == set()


def test_what_a_link_leads_to_is_not_given_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[object, int, int]] = []
    user = User(pwd.getpwuid(os.geteuid()).pw_name)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda *_: pytest.fail("it follows links"))
    monkeypatch.setattr(os, "lchown", lambda *values: given.append(values))
    monkeypatch.setattr(os, "fchown", lambda *values: given.append(values))
    user.give([tmp_path / "link", 7])
    assert given == [(tmp_path / "link", user.uid, user.gid), (7, user.uid, user.gid)]


def test_the_limit_of_a_process_that_died_is_free(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            StateLock(tmp_path)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    StateLock(tmp_path).release()


def limits(monkeypatch: pytest.MonkeyPatch, hard: int) -> list[tuple[int, int]]:
    set_: list[tuple[int, int]] = []
    monkeypatch.setattr(machine.resource, "getrlimit", lambda _: (256, hard))
    monkeypatch.setattr(machine.resource, "setrlimit", lambda _, both: set_.append(both))
    return set_


def test_the_soft_limit_is_raised_to_the_hard_one(monkeypatch: pytest.MonkeyPatch) -> None:
    set_ = limits(monkeypatch, 200_000)
    assert raise_descriptor_limit(config(), 2) is None
    assert set_ == [(200_000, 200_000)]
    limits(monkeypatch, resource.RLIM_INFINITY)
    assert raise_descriptor_limit(config(), 2) is None


def test_a_rather_low_limit_is_a_warning_with_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    limits(monkeypatch, 4096)
    line = raise_descriptor_limit(config("[limits]\nmax_connections = 10001\n"), 2)
    assert line is not None
    for number in ("4096", "10001", "10067"):
        assert number in line
    assert "FLB-S020" in line


def test_nobody_is_warned_of_a_number_that_nobody_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    limits(monkeypatch, 4096)
    assert raise_descriptor_limit(config(), 2) is None
    assert raise_descriptor_limit(config("[limits]\nheader_count = 64\n"), 2) is None
    line = raise_descriptor_limit(config("[limits]\nmax_connections = 50000\n"), 2)
    assert line is not None  # the default's number, but the operator's
    assert "FLB-S020" in line


def test_a_limit_too_low_to_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    limits(monkeypatch, 300)
    with pytest.raises(StartError) as caught:
        raise_descriptor_limit(config(), 2)
    assert "only 300 descriptors" in line_of(caught)
    assert "FLB-S021" in line_of(caught)
    limits(monkeypatch, 400)
    with pytest.raises(StartError):
        raise_descriptor_limit(config(), 64)


def test_an_unknown_user_is_refused() -> None:
    with pytest.raises(StartError) as caught:
        User("no-such-user")
    assert "FLB-S030" in line_of(caught)


def test_only_root_becomes_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.os, "geteuid", lambda: 4711)
    with pytest.raises(StartError) as caught:
        User("nobody")
    assert "FLB-S031" in line_of(caught)


def test_becoming_the_user_one_is_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    monkeypatch.setattr(machine.os, "geteuid", lambda: nobody)
    before = os.getresuid()
    user = User("nobody")
    user.give([tmp_path])
    user.become()
    assert os.getresuid() == before
    assert tmp_path.stat().st_uid == os.getuid()


def test_what_was_before_cannot_be_had_back(tmp_path: Path) -> None:
    """As root, in a process of its own; anybody else may not even try."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            user = User("nobody")
            user.give([tmp_path])
            user.become()
            ids = {*os.getresuid(), *os.getresgid()}
            code = 0 if ids == {65534} else 2
        except StartError:
            code = 0 if os.getuid() else 3
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert tmp_path.stat().st_uid == (os.getuid() or 65534)
