"""Where the access log goes, without a worker ever waiting for it."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fastlb import access_log
from fastlb.access_log import open_access_log, open_as_root
from fastlb.control import Control
from fastlb.errors import StartError

TRUSTED = frozenset({0, os.geteuid()})


def test_off_is_no_descriptor() -> None:
    log = open_access_log("off")
    assert log == (-1, False, False)
    log.close()


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("before\n")
    log = open_access_log(str(path))
    os.write(log.fd, b"after\n")
    log.close()
    assert path.read_text() == "before\nafter\n"
    new = open_access_log(str(tmp_path / "b.log"))
    assert os.fstat(new.fd).st_mode & 0o777 == 0o640
    assert not os.get_inheritable(new.fd)
    new.close()


def test_a_file_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StartError) as caught:
        open_access_log(str(tmp_path / "none" / "a.log"))
    assert caught.value.lines == [
        f"access log {tmp_path}/none/a.log: No such file or directory [FLB-S040]"
    ]


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A directory where others than root may put something."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def refused(path: Path) -> str:
    with pytest.raises(OSError, match="link") as caught:
        open_as_root(str(path), TRUSTED)
    return str(caught.value)


def test_root_is_led_nowhere_by_a_link_of_others(tmp_path: Path, theirs: Path) -> None:
    precious = tmp_path / "precious"
    precious.touch()
    (theirs / "access.log").symlink_to(precious)
    assert "access.log is a link where not only root" in refused(theirs / "access.log")
    (theirs / "new.log").symlink_to(tmp_path / "new")
    assert "new.log is a link" in refused(theirs / "new.log")
    assert not (tmp_path / "new").exists()
    (theirs / "folder").symlink_to(tmp_path)
    assert "folder is a link" in refused(theirs / "folder" / "precious")
    (tmp_path / "operator").symlink_to(theirs)
    assert "access.log is a link" in refused(tmp_path / "operator" / "access.log")
    (theirs / "hard.log").hardlink_to(precious)
    assert "hard link" in refused(theirs / "hard.log")


def test_start_says_so(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (theirs / "access.log").symlink_to(theirs / "other")
    monkeypatch.setattr(access_log.os, "geteuid", lambda: 0)
    with pytest.raises(StartError) as caught:
        open_access_log(str(theirs / "access.log"))
    assert caught.value.lines[0].startswith(f"access log {theirs}/access.log: ")
    assert "name the file that it leads to [FLB-S040]" in caught.value.lines[0]


def test_the_operators_own_links_lead_where_they_lead(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "folder").symlink_to("logs")
    (tmp_path / "access.log").symlink_to(tmp_path / "folder" / "a.log")
    for _ in range(2):  # made, and opened again
        log = open_as_root(str(tmp_path / "access.log"), TRUSTED)
        assert log.is_ours
        os.write(log.fd, b"a line\n")
        log.close()
    assert (tmp_path / "logs" / "a.log").read_text() == "a line\n" * 2
    (tmp_path / "round").symlink_to("round")
    assert "round is a link" in refused(tmp_path / "round")


def test_what_others_can_have_put_there_is_not_given_away(theirs: Path) -> None:
    new = open_as_root(str(theirs / "a.log"), TRUSTED)
    again = open_as_root(str(theirs / "a.log"), TRUSTED)
    assert (new.is_ours, again.is_ours) == (True, False)
    os.write(again.fd, b"a line\n")
    assert (theirs / "a.log").read_text() == "a line\n"
    again.close()
    new.close()
    theirs.chmod(0o1777)  # sticky, as /tmp: what root has there stays root's
    log = open_as_root(str(theirs / "a.log"), TRUSTED)
    assert log.is_ours
    log.close()


def test_only_what_is_ours_is_given_to_the_user(tmp_path: Path, theirs: Path) -> None:
    given: list[Path | int] = []
    user = SimpleNamespace(give=given.extend, give_directory=given.append, become=bool)
    proxy = SimpleNamespace(state_dir=tmp_path, secret_file=Path("/secret"))
    (theirs / "a.log").touch()
    for name in ("a.log", "b.log"):
        one: Any = Control.__new__(Control)
        one.user, one.cfg = user, SimpleNamespace(proxy=proxy)
        one.lock, one.words = SimpleNamespace(fd=-1), SimpleNamespace(path=tmp_path / "none")
        one.saved = SimpleNamespace(directory=tmp_path / "maps")
        one.access_log = open_as_root(str(theirs / name), TRUSTED)
        one._become_user(tmp_path / "socket")
        assert (one.access_log.fd in given) is (name == "b.log")
        given.clear()
        one.access_log.close()


def test_a_descriptor_by_its_name(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        log = open_as_root(f"/dev/fd/{file.fileno()}", TRUSTED)
        os.write(log.fd, b"a line\n")
        assert not log.is_ours
        log.close()
    assert (tmp_path / "file").read_text() == "a line\n"


PROGRAM = """
import os, sys
from fastlb.access_log import open_access_log
log = open_access_log("stdout")
os.write(log.fd, b"line\\n")
print(os.get_blocking(1), os.get_blocking(log.fd), log.is_syslog, file=sys.stderr)
"""


def stdout_log(stdout: int) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stderr.split()


def test_a_pipe_gets_a_description_of_its_own() -> None:
    ours, theirs = os.pipe()
    assert stdout_log(theirs) == ["True", "False", "False"]
    assert os.read(ours, 100) == b"line\n"
    os.close(ours)
    os.close(theirs)


def test_a_file_shares_its_position_with_standard_error(tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as out:
        out.write(b"first\n")
        out.flush()
        assert stdout_log(out.fileno()) == ["True", "True", "False"]
    assert (tmp_path / "out").read_bytes() == b"first\nline\n"


def test_a_socket_is_used_as_it_is() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert stdout_log(theirs.fileno()) == ["False", "False", "False"]
        assert ours.recv(100) == b"line\n"


def test_syslog_is_a_connected_datagram_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "SYSLOG", str(tmp_path / "log"))
    with pytest.raises(StartError) as caught:
        open_access_log("syslog")
    assert "FLB-S041" in caught.value.lines[0]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "log"))
        log = open_access_log("syslog")
        assert log.is_syslog
        os.write(log.fd, b"line")
        assert server.recv(100) == b"line"
        log.close()
