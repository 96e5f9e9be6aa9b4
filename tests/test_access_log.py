"""Where the access log goes, without a worker ever waiting for it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fastlb import access_log
from fastlb.access_log import open_access_log
from fastlb.errors import StartError


def test_off_is_no_descriptor() -> None:
    log = open_access_log("off")
    assert log == (-1, False)
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
