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
    assert len({listener.of_worker(index).fileno() for index in range(3)}) == 3
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
    assert listener.of_worker(0) is listener.of_worker(2)
    assert path.stat().st_mode & 0o777 == 0o666
    opened.close([one.address])
    assert not path.exists()


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
