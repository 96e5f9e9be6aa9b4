"""The listening sockets: opened by the control process, used by the workers.

There is a socket for each worker at each TCP address (SO_REUSEPORT: the kernel spreads the
connections); a Unix socket is shared by all. The control process keeps every one open, so that
connections queue while a worker is replaced. None is closed while its address is configured, since
what waits in its queue would be reset: when there are fewer workers, each serves several.
"""

import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fastlb import errors, log
from fastlb.errors import StartError
from fastlb.port_owner import listening_sockets, owner_of_port
from fastlb.slots import ListenerKey
from fastlb.units import InetAddress, UnixAddress

BACKLOG = 4096
UNIX_UMASK = 0o111  # who may connect is the directory's to say

Address = InetAddress | UnixAddress
Grown = list[tuple[Address, socket.socket]]  # sockets that are bound and do not listen yet


@dataclass
class Listener:
    """The sockets of one address, at least one per worker; of a Unix socket the same for all."""

    address: Address
    sockets: list[socket.socket] = field(default_factory=list)
    file: tuple[int, int] | None = None  # device and inode of a Unix socket's file

    def of_worker(self, place: int, workers: int) -> list[tuple[int, socket.socket]]:
        """What worker number `place` of so many serves, each socket with its own number."""
        if isinstance(self.address, UnixAddress):
            return list(enumerate(self.sockets))
        return list(enumerate(self.sockets))[place::workers]

    def let_go(self) -> None:
        """Closes the descriptors; the workers have their own."""
        for one in self.sockets:
            one.close()

    def close(self) -> None:
        """Closes all, and removes the file of a Unix socket if it is still this one's."""
        self.let_go()
        if isinstance(self.address, UnixAddress) and self.file == _file_of(self.address.path):
            try:
                os.unlink(self.address.path)
            except OSError as error:
                reason = error.strerror or error
                log.warn(errors.SOCKET_LEFT.line(path=self.address.path, reason=reason))


class Listeners:
    """All listening sockets of this fastlb, by address."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.open: dict[Address, Listener] = {}

    def adopt(self, sockets: Iterable[tuple[int, socket.socket]]) -> None:
        """Takes over what workers have of a fastlb whose control process is gone, by number.

        Raises StartError when a socket whose worker is gone as well cannot be opened again.
        """
        found: dict[Address, dict[int, socket.socket]] = {}
        for number, one in sockets:
            of_address = found.setdefault(_address_of(one), {})
            if number in of_address:
                one.close()  # of an older worker; the same socket
            else:
                of_address[number] = one
        for address, of_address in found.items():
            listener = self.open[address] = Listener(address)
            try:
                for number in range(max(of_address) + 1):
                    lost = number not in of_address
                    listener.sockets.append(_listening(address) if lost else of_address.pop(number))
            except OSError as error:
                for one in (one for left in found.values() for one in left.values()):
                    one.close()
                reason = error.strerror or error
                raise StartError(errors.SOCKET_LOST, address=address, reason=reason) from None
            if isinstance(address, UnixAddress):
                listener.file = _file_of(address.path)

    def grow(self, keys: Iterable[ListenerKey]) -> Grown:
        """Sockets for more workers at what is open, bound; they listen once `adopt_grown` has
        taken them. Raises StartError."""
        grown: Grown = []
        for key in dict.fromkeys(keys):
            listener = self.open.get(key.address)
            if listener is None or isinstance(key.address, UnixAddress):
                continue
            try:
                for _ in range(self.workers - len(listener.sockets)):
                    grown.append((key.address, _tcp_socket(key.address, reuse_port=True)))
            except OSError as error:
                close_grown(grown)
                raise _explained(key, error) from None
        return grown

    def adopt_grown(self, grown: Grown) -> None:
        """From now on connections queue there."""
        for address, one in grown:
            one.listen(BACKLOG)
            self.open[address].sockets.append(one)

    def add(self, keys: Iterable[ListenerKey]) -> list[Address]:
        """Opens what is not open yet and returns it; all or nothing. Raises StartError."""
        added: list[Address] = []
        wrong: list[StartError] = []
        for key in keys:
            if key.address in self.open:
                continue
            try:
                self.open[key.address] = self._listen(key.address)
                added.append(key.address)
            except OSError as error:
                wrong.append(_explained(key, error))
        if wrong:
            self.close(added)
            raise StartError.of_all(wrong)
        return added

    def close(self, addresses: Iterable[Address]) -> None:
        for address in addresses:
            self.open.pop(address).close()

    def close_all(self) -> None:
        self.close(list(self.open))

    def let_go(self) -> None:
        """Leaves all to the workers."""
        for listener in self.open.values():
            listener.let_go()
        self.open.clear()

    def _listen(self, address: Address) -> Listener:
        if isinstance(address, UnixAddress):
            return _listen_unix(address)
        self._probe(address)
        listener = Listener(address)
        try:
            for _ in range(self.workers):
                listener.sockets.append(_tcp_socket(address, reuse_port=True))
            for one in listener.sockets:
                one.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
        return listener

    def _probe(self, address: InetAddress) -> None:
        """Whether somebody else has the port: SO_REUSEPORT would silently share it."""
        try:
            _tcp_socket(address, reuse_port=False).close()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            ours = {
                str(os.fstat(one.fileno()).st_ino)
                for listener in self.open.values()
                for one in listener.sockets
            }
            if not ours or not listening_sockets(address.port) <= ours:
                raise


def close_grown(grown: Grown) -> None:
    """Gives them back; nothing was queued there."""
    for _, one in grown:
        one.close()


def _tcp_socket(address: InetAddress, *, reuse_port: bool) -> socket.socket:
    """A bound socket; connections that it accepts inherit its options."""
    family = socket.AF_INET6 if address.ip.version == 6 else socket.AF_INET
    one = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind((str(address.ip), address.port))
    except OSError:
        one.close()
        raise
    return one


def _listening(address: Address) -> socket.socket:
    """In the place of a socket that is lost."""
    if isinstance(address, UnixAddress):
        return _listen_unix(address).sockets[0]
    one = _tcp_socket(address, reuse_port=True)
    one.listen(BACKLOG)
    return one


def _address_of(one: socket.socket) -> Address:
    name = one.getsockname()
    if one.family == socket.AF_UNIX:
        return UnixAddress(name)
    return InetAddress(ipaddress.ip_address(name[0]), name[1])


def _listen_unix(address: UnixAddress) -> Listener:
    _clear_stale(address.path)
    one = socket.socket(
        socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    )
    try:
        before = os.umask(UNIX_UMASK)  # no chmod: by then a link may stand there
        try:
            one.bind(address.path)
        finally:
            os.umask(before)
        one.listen(BACKLOG)
    except OSError:
        one.close()
        raise
    return Listener(address, [one], _file_of(address.path))


def _file_of(path: str) -> tuple[int, int] | None:
    with suppress(OSError):
        status = os.lstat(path)
        return status.st_dev, status.st_ino
    return None


def _clear_stale(path: str) -> None:
    """Removes a socket's file that nobody listens at; raises EADDRINUSE or EEXIST otherwise."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # its backlog is full: somebody is there
    raise OSError(errno.EADDRINUSE, "in use")


def _explained(key: ListenerKey, error: OSError) -> StartError:
    """What an error of bind or listen means, and what to do."""
    name, address = key
    if isinstance(address, UnixAddress):
        if error.errno == errno.EADDRINUSE:
            return StartError(errors.UNIX_IN_USE, name=name, address=address)
        if error.errno == errno.EEXIST:
            return StartError(errors.NOT_A_SOCKET, name=name, address=address)
    elif error.errno == errno.EADDRINUSE:
        owner = owner_of_port(address.port)
        return StartError(errors.PORT_IN_USE, name=name, address=address, owner=owner)
    elif error.errno == errno.EACCES:
        first = _setting("/proc/sys/net/ipv4/ip_unprivileged_port_start", 1024)
        return StartError(errors.PORT_FORBIDDEN, name=name, address=address, first=first)
    elif error.errno == errno.EADDRNOTAVAIL:
        return StartError(errors.NO_SUCH_ADDRESS, name=name, address=address)
    reason = error.strerror or str(error)
    return StartError(errors.LISTEN_FAILED, name=name, address=address, reason=reason)


def _setting(path: str, default: int) -> int:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return default


def short_backlog() -> str | None:
    """A warning where the kernel would cut the backlog, which it does silently."""
    found = _setting("/proc/sys/net/core/somaxconn", BACKLOG)
    return errors.SHORT_BACKLOG.line(found=found, wanted=BACKLOG) if found < BACKLOG else None
