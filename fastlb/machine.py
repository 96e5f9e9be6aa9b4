"""What start-up asks of the machine: the state directory, descriptors, the user to become."""

import fcntl
import os
import pwd
import resource
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fastlb import errors
from fastlb.config import Config
from fastlb.errors import StartError
from fastlb.state_file import NOT_REGULAR, open_regular

LOCK = "lock"
DESCRIPTORS_MIN = 256  # for a worker to be of use at all
WORKER_OWN = 64  # descriptors of a worker beside listeners and connections
CONTROL_OWN = 128  # and of the control process


def open_state_dir(path: Path) -> None:
    """Makes the state directory, for this user alone. Raises StartError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
        if status.st_uid not in (os.geteuid(), 0) and os.geteuid() != 0:
            raise StartError(errors.STATE_DIR_OWNER, path=path, owner=user_name(status.st_uid))
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o022:
            raise StartError(errors.STATE_DIR_OPEN, path=path, mode=f"{mode:04o}")
        if mode & 0o077:
            path.chmod(0o700)
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
            raise PermissionError(0, "this user may not write there")
    except OSError as error:
        raise StartError(errors.STATE_DIR, path=path, reason=error.strerror or error) from None


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


class StateLock:
    """One control process per state directory: a lock file with its pid."""

    def __init__(self, directory: Path, inherited: int | None = None) -> None:
        """`inherited`: descriptor of the program that this process was before."""
        path = directory / LOCK
        if inherited is not None:
            self.fd = inherited
            return
        try:
            self.fd = open_regular(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
        except OSError as error:
            what = NOT_REGULAR if path.is_symlink() else error.strerror or error
            reason = f"{LOCK}: {what}"
            raise StartError(errors.STATE_DIR, path=directory, reason=reason) from None
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pid = os.pread(self.fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self.fd)
            raise StartError(errors.ALREADY_RUNNING, path=directory, pid=pid) from None
        with suppress(OSError):  # a full disk; the pid is only for who looks
            os.ftruncate(self.fd, 0)
            os.pwrite(self.fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Empties the file and gives the lock up; the file stays, to be locked again."""
        with suppress(OSError):
            os.ftruncate(self.fd, 0)
        os.close(self.fd)


def raise_descriptor_limit(cfg: Config, workers: int) -> str | None:
    """Raises the limit as far as it goes; returns a warning when the operator wants more.

    Without a number from the operator, as many connections are served as there is room for.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return None
    listeners = sum(len(server.listen) for server in cfg.virtual_servers.values())
    needed = max(DESCRIPTORS_MIN + WORKER_OWN + listeners, CONTROL_OWN + workers * (listeners + 4))
    connections = cfg.limits.max_connections
    wanted = WORKER_OWN + listeners + 2 * -(-connections // workers)  # a client's and a node's
    if hard < needed:
        raise StartError(
            errors.TOO_FEW_DESCRIPTORS,
            found=hard,
            needed=needed,
            connections=connections,
            wanted=wanted,
        )
    if hard >= wanted or not cfg.connections_given:
        return None
    return errors.FEW_DESCRIPTORS.line(found=hard, connections=connections, needed=wanted)


@contextmanager
def _opened(path: Path | str, flags: int, directory: int | None = None) -> Iterator[int]:
    """A descriptor of what stands there, but of no link."""
    fd = os.open(path, flags | os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        yield fd
    finally:
        os.close(fd)


class User:
    """The user to become once the sockets are bound."""

    def __init__(self, name: str) -> None:
        try:
            entry = pwd.getpwnam(name)
        except (KeyError, ValueError):
            raise StartError(errors.NO_SUCH_USER, user=name) from None
        self.name, self.uid, self.gid = name, entry.pw_uid, entry.pw_gid
        if os.geteuid() not in (0, self.uid):
            raise StartError(errors.NOT_ROOT, user=name)

    def give(self, paths: Iterable[Path | int]) -> None:
        """Makes files and descriptors theirs; where a link stands, not what it leads to: they
        may have put it there."""
        if os.geteuid() == 0:
            for path in paths:
                if isinstance(path, int):
                    os.fchown(path, self.uid, self.gid)
                else:
                    os.lchown(path, self.uid, self.gid)

    def give_directory(self, path: Path) -> None:
        """Makes a directory theirs, with the files that are nowhere else; nothing, where none is.

        They may put a link in its place at any time: what was opened is given, and no path.
        """
        if os.geteuid() != 0:
            return
        with suppress(OSError), _opened(path, os.O_DIRECTORY) as directory:
            os.fchown(directory, self.uid, self.gid)
            for name in os.listdir(directory):
                with suppress(OSError), _opened(name, os.O_NONBLOCK, directory) as file:
                    status = os.fstat(file)
                    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                        os.fchown(file, self.uid, self.gid)

    def become(self) -> None:
        """For good: neither the user nor the groups of before can be had back."""
        if os.geteuid() == 0:
            os.initgroups(self.name, self.gid)
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(self.uid, self.uid, self.uid)
