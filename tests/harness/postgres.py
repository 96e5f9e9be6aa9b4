"""A PostgreSQL server of its own, on a Unix socket, in a folder that goes away with it."""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import psycopg

from .client import tool_environment
from .wait import TIMEOUT, until

OWNER = "postgres"  # Debian's; the server refuses to run as root
SPEED = ["-c", "fsync=off", "-c", "listen_addresses=", "-c", "max_connections=20"]


def program(name: str) -> str:
    """Debian keeps the server's programs out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else str(shutil.which(name))


class Postgres:
    """A context manager. `conninfo` is its connection string; stop() is a crash, start() another
    beginning with the same data."""

    def __enter__(self) -> "Postgres":
        self._folder = tempfile.TemporaryDirectory(prefix="fastlb-pg-")
        self.folder = Path(self._folder.name)
        self.conninfo = f"host={self.folder} user={OWNER} dbname=postgres"
        self._as: dict[str, object] = {}
        if os.getuid() == 0:
            owner = pwd.getpwnam(OWNER)
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
            self._as = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        self._data = self.folder / "data"
        made = subprocess.run(
            [program("initdb"), "-D", str(self._data), "-A", "trust", "-U", OWNER, "--no-sync"],
            cwd=self.folder, env=tool_environment(), capture_output=True, text=True,
            check=False, timeout=6 * TIMEOUT, **self._as,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        self._folder.cleanup()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [program("postgres"), "-D", str(self._data), "-k", str(self.folder), *SPEED],
            cwd=self.folder, env=tool_environment(), start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self._as,
        )  # fmt: skip
        until(self._accepting, "PostgreSQL accepting", 3 * TIMEOUT)

    def stop(self) -> None:
        """At once: connections are broken, as when the machine goes down."""
        self._process.send_signal(3)  # SIGQUIT: immediate shutdown
        self._process.wait(3 * TIMEOUT)

    def run(self, *statements: str) -> None:
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def _accepting(self) -> bool:
        assert self._process.poll() is None, "PostgreSQL ended"
        try:
            psycopg.connect(self.conninfo, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True
