"""nginx as a node: a server that somebody else wrote, and a fast one."""

import subprocess
import tempfile
from pathlib import Path

from .client import Client, tool_environment
from .node import next_host
from .proxy import free_port
from .wait import TIMEOUT, until


class Nginx:
    """One nginx server block on an address of its own; a context manager.

    `locations` is the text inside the server block; files under `root` are created first.
    `listen` follows the address ("ssl", "proxy_protocol"); `top` stands beside the http block.
    Relative names of files are under `root`.
    """

    def __init__(
        self, locations: str, files: dict[str, bytes] | None = None, listen: str = "",
        top: str = "", host: str | None = None,
    ):  # fmt: skip
        self.host = host or next_host()
        self.listen = listen
        self.top = top
        self.port = free_port(self.host)
        self.address = f"{self.host}:{self.port}"
        self.locations = locations
        self.files = files or {}

    def __enter__(self) -> "Nginx":
        self._folder = tempfile.TemporaryDirectory(prefix="fastlb-nginx-")
        folder = Path(self._folder.name)
        folder.chmod(0o755)
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        (folder / "nginx.conf").write_text(self._config(folder))
        self.folder = folder
        self._process = subprocess.Popen(
            ["nginx", "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")],
            env=tool_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until(self._accepting, "nginx accepting")
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        self._process.wait(TIMEOUT)
        self._folder.cleanup()

    def restart(self, files: dict[str, bytes] | None = None) -> None:
        """Forgets all sessions; `files` are replaced before."""
        self.__exit__()
        self.files.update(files or {})
        self.__enter__()

    def _accepting(self) -> bool:
        assert self._process.poll() is None, "nginx ended"
        try:
            Client((self.host, self.port)).sock.close()
        except ConnectionRefusedError:
            return False
        return True

    def _config(self, folder: Path) -> str:
        temporary = "\n".join(
            f"  {kind}_temp_path {folder}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        return f"""
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
{self.top}
events {{ worker_connections 1024; }}
http {{
  access_log off;
{temporary}
  keepalive_requests 1000000;
  client_max_body_size 100m;
  server {{
    listen {self.address} {self.listen};
    root {folder};
{self.locations}
  }}
}}
"""
