"""Listening sockets: their options, who else has them, and what is left behind (nothing)."""

import errno
import os
import random
import re
import socket
from pathlib import Path

import pytest

from fastlb import listeners as module
from fastlb.errors import StartError
from fastlb.listeners import Listeners
from fastlb.slots import ListenerKey
from fastlb.units import InetAddress, UnixAddress, read_inet


@pytest.fixture
def opened():
    one = Listeners(3)
    yield one
    one.close_all()


def free_port() -> int:
    """A port that nobody uses on any address, below the range of outgoing connections."""
    while True:
        port = random.randrange(10_000, 32_000)
        try:
            with (
                socket.create_server(("", port)),
                socket.create_server(("::", port), family=socket.AF_INET6),
            ):
                return port
        except OSError:
            continue


def key(text: str, server: str = "shop") -> ListenerKey:
    if text.startswith("unix:"):
        return ListenerKey(server, UnixAddress(text.removeprefix("unix:")))
    return ListenerKey(server, read_inet(text, ""))


def refused(opened: Listeners, *texts: str) -> list[str]:
    with pytest.raises(StartError) as caught:
        opened.add([key(text) for text in texts])
    return caught.value.lines


def test_each_worker_has_a_socket_of_its_own(opened: Listeners) -> None:
    one = key(f"127.0.0.1:{free_port()}")
    assert opened.add([one]) == [one.address]
    listener = opened.open[one.address]
    assert [[number for number, _ in listener.of_worker(index, 3)] for index in range(3)] == [
        [0],
        [1],
        [2],
    ]
    for each in listener.sockets:
        assert each.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        assert each.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        assert not each.getblocking()
        assert not each.get_inheritable()


def test_an_accepted_connection_inherits_nodelay(opened: Listeners) -> None:
    one = key(f"127.0.0.1:{free_port()}")
    opened.workers = 1
    opened.add([one])
    assert isinstance(one.address, InetAddress)
    with socket.create_connection(("127.0.0.1", one.address.port)):
        accepted, _ = opened.open[one.address].sockets[0].accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_both_families_can_have_one_port(opened: Listeners) -> None:
    port = free_port()
    assert len(opened.add([key(f"[::]:{port}"), key(f"0.0.0.0:{port}")])) == 2


def test_what_is_open_is_kept(opened: Listeners) -> None:
    one = key(f"127.0.0.1:{free_port()}")
    opened.add([one])
    sockets = list(opened.open[one.address].sockets)
    assert opened.add([one, ListenerKey("other", one.address)]) == []
    assert opened.open[one.address].sockets == sockets


def test_an_address_within_one_that_is_ours_is_no_conflict(opened: Listeners) -> None:
    port = free_port()
    opened.add([key(f"0.0.0.0:{port}")])
    assert len(opened.add([key(f"127.0.0.1:{port}")])) == 1


@pytest.mark.parametrize("reuse", [False, True])
def test_a_port_in_use_names_its_owner_even_if_it_could_be_shared(
    opened: Listeners, reuse: bool
) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuse)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        (line,) = refused(opened, f"127.0.0.1:{port}")
    assert f"[virtual_servers.shop] cannot listen on 127.0.0.1:{port}: in use by " in line
    assert f"(pid {os.getpid()})" in line
    assert "FLB-S010" in line


def test_all_that_is_wrong_is_said_and_nothing_stays_open(
    opened: Listeners, tmp_path: Path
) -> None:
    good = f"127.0.0.1:{free_port()}"
    file = tmp_path / "file"
    file.write_text("kept")
    missing = tmp_path / "none" / "a.sock"
    before = set(os.listdir("/proc/self/fd"))
    lines = refused(
        opened, good, "192.0.2.1:8080", f"unix:{file}", f"unix:{tmp_path}/a.sock", f"unix:{missing}"
    )
    assert [re.findall("FLB-S...", line) for line in lines] == [
        ["FLB-S012"], ["FLB-S015"], ["FLB-S013"],
    ]  # fmt: skip
    assert opened.open == {}
    assert set(os.listdir("/proc/self/fd")) == before
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert file.read_text() == "kept"


def test_a_port_that_needs_a_right(opened: Listeners, monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(*_: object, **__: object) -> socket.socket:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(module, "_tcp_socket", bind)
    (line,) = refused(opened, "127.0.0.1:80")
    first = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text().strip()
    assert f"ports below {first} need a right" in line
    assert "FLB-S011" in line


def test_a_unix_socket_is_shared_and_its_file_goes_with_it(
    opened: Listeners, tmp_path: Path
) -> None:
    path = tmp_path / "a.sock"
    one = key(f"unix:{path}")
    opened.add([one])
    listener = opened.open[one.address]
    assert listener.of_worker(0, 3) == listener.of_worker(2, 3)
    assert path.stat().st_mode & 0o777 == 0o666
    opened.close([one.address])
    assert not path.exists()


def test_its_mode_is_set_by_no_path(
    opened: Listeners, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who owns the directory may have put a link there between bind and chmod."""
    monkeypatch.setattr(module.os, "chmod", None)
    path = tmp_path / "a.sock"
    before = os.umask(0o077)
    try:
        opened.add([key(f"unix:{path}")])
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666


def test_a_stale_unix_socket_is_replaced_and_a_live_one_is_not(
    opened: Listeners, tmp_path: Path
) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        (line,) = refused(opened, f"unix:{path}")
        assert "FLB-S014" in line
    assert path.exists()
    opened.add([key(f"unix:{path}")])
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_another_ones_unix_socket_is_left_alone(opened: Listeners, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    one = key(f"unix:{path}")
    opened.add([one])
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        opened.close([one.address])
        assert path.exists()


def test_a_file_that_cannot_be_removed_is_reported(
    opened: Listeners,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = key(f"unix:{tmp_path}/a.sock")
    opened.add([one])

    def unlink(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(module.os, "unlink", unlink)
    opened.close([one.address])
    assert "FLB-S079" in capsys.readouterr().err


def test_a_short_backlog_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_setting", lambda path, default: 128)
    line = module.short_backlog()
    assert line is not None
    assert "sysctl -w net.core.somaxconn=4096" in line
    assert "FLB-S022" in line
    monkeypatch.setattr(module, "_setting", lambda path, default: 4096)
    assert module.short_backlog() is None


# --- more and fewer workers, and another control process ---


def inodes(listener) -> list[int]:  # type: ignore[no-untyped-def]
    return [os.fstat(one.fileno()).st_ino for one in listener.sockets]


def test_more_workers_get_sockets_that_listen_once_they_are_adopted(opened: Listeners) -> None:
    one = key(f"127.0.0.1:{free_port()}")
    opened.add([one])
    opened.workers = 5
    grown = opened.grow([one, one, key(f"127.0.0.1:{free_port()}")])
    assert len(grown) == 2
    assert not any(each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for _, each in grown)
    opened.adopt_grown(grown)
    listener = opened.open[one.address]
    assert len(listener.sockets) == 5
    numbers = [number for place in range(2) for number, _ in listener.of_worker(place, 2)]
    assert numbers == [0, 2, 4, 1, 3]


def test_sockets_that_cannot_be_had_for_more_workers_leave_all_as_it_was(
    opened: Listeners, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = key(f"127.0.0.1:{free_port()}")
    opened.add([one])
    opened.workers = 9
    before = len(os.listdir("/proc/self/fd"))
    made = module._tcp_socket
    calls = []

    def limited(*arguments: object, **more: object) -> socket.socket:
        calls.append(1)
        if len(calls) > 3:
            raise OSError(errno.EMFILE, "Too many open files")
        return made(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_tcp_socket", limited)
    with pytest.raises(StartError, match="FLB-S013"):
        opened.grow([one])
    assert len(os.listdir("/proc/self/fd")) == before


def test_sockets_are_taken_over_by_number_and_lost_ones_opened_again(
    opened: Listeners, tmp_path: Path
) -> None:
    inet, unix = key(f"127.0.0.1:{free_port()}"), key(f"unix:{tmp_path}/a.sock")
    opened.add([inet, unix])
    before = inodes(opened.open[inet.address])
    shown = [(number, opened.open[inet.address].sockets[number].dup()) for number in (2, 0, 2)]
    shown.append((0, opened.open[unix.address].sockets[0].dup()))
    opened.let_go()
    assert (tmp_path / "a.sock").exists()
    opened.adopt(shown)
    after = inodes(opened.open[inet.address])
    assert (after[0], after[2]) == (before[0], before[2])
    assert after[1] != before[1]
    assert opened.open[inet.address].sockets[1].getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    opened.close([unix.address])
    assert not (tmp_path / "a.sock").exists()


def test_a_lost_socket_that_cannot_be_had_again_is_an_error(
    opened: Listeners, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = key(f"127.0.0.1:{free_port()}")
    opened.add([one])
    shown = [(1, opened.open[one.address].sockets[1].dup())]
    opened.let_go()

    def bind(*_: object, **__: object) -> socket.socket:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(module, "_tcp_socket", bind)
    with pytest.raises(StartError, match="FLB-S130"):
        opened.adopt(shown)
