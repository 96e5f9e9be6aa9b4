"""PHP's own server as a node: an application whose sessions are in a folder of that node alone.

/login.php?user=NAME   begins a session and gives it a new id, as against session fixation
/whoami.php            starts a session, as most applications do for every visitor
/logout.php            destroys it and deletes its cookie
/static.php            knows of no sessions

Each answers in JSON: which node, which user (null: logged out), which session id.
"""

import os
import signal
import subprocess
import tempfile
from pathlib import Path

from .client import Client, tool_environment
from .node import next_host
from .proxy import free_port
from .wait import TIMEOUT, until

START = "<?php session_start();\n"
ANSWER = """
header('Content-Type: application/json');
echo json_encode(['node' => getenv('NODE'), 'user' => $_SESSION['user'] ?? null,
                  'id' => session_id()]);
"""
SCRIPTS = {
    "whoami.php": START + ANSWER,
    "login.php": START
    + "session_regenerate_id(true);\n$_SESSION['user'] = $_GET['user'];"
    + ANSWER,
    "logout.php": START
    + """$_SESSION = [];
$kept = session_get_cookie_params();
setcookie(session_name(), '', ['expires' => 1, 'path' => $kept['path'],
          'domain' => $kept['domain'], 'secure' => $kept['secure'],
          'httponly' => $kept['httponly']]);
session_destroy();
"""
    + ANSWER,
    "static.php": "<?php" + ANSWER,
}


class Php:
    """One `php -S` on an address of its own; a context manager. `settings` are those of php.ini.

    stop() kills it, start() serves again at the same port with the same sessions.
    """

    def __init__(self, name: str, **settings: str):
        self.name = name
        self.settings = settings
        self.host = next_host()
        self.port = free_port(self.host)
        self.address = f"{self.host}:{self.port}"
        self._folder = tempfile.TemporaryDirectory(prefix="fastlb-php-")
        self.sessions = Path(self._folder.name, "sessions")
        self.sessions.mkdir()
        self._pages = Path(self._folder.name, "pages")
        self._pages.mkdir()
        for file, text in SCRIPTS.items():
            (self._pages / file).write_text(text)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Php":
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        self._folder.cleanup()

    def start(self) -> None:
        if self._process is not None:
            return
        ini = {"session.save_path": str(self.sessions), **self.settings}
        options = [part for key, value in ini.items() for part in ("-d", f"{key}={value}")]
        self._process = subprocess.Popen(
            ["php", *options, "-S", self.address, "-t", str(self._pages)],
            env={**tool_environment(), "NODE": self.name, "PHP_CLI_SERVER_WORKERS": "4"},
            start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until(self._accepting, "PHP accepting")

    def stop(self) -> None:
        if self._process is None:
            return
        # With its workers, which accept on the same socket.
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(TIMEOUT)
        self._process = None
        until(lambda: not self._accepting(), "PHP refusing")

    def users(self) -> list[str]:
        """Who is logged in here, as its session files say."""
        texts = (file.read_text() for file in self.sessions.iterdir())
        return sorted(text.split('"')[1] for text in texts if text.startswith("user|"))

    def _accepting(self) -> bool:
        assert self._process is None or self._process.poll() is None, "PHP ended"
        try:
            Client((self.host, self.port)).sock.close()
        except ConnectionError:
            return False
        return True
