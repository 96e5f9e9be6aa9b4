"""A real browser: headless Chromium, driven over the DevTools protocol.

`tools` holds what keeps it quiet: it may talk to the address under test and nothing else.
"""

import base64
import contextlib
import hashlib
import itertools
import json
import subprocess
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from websockets.sync.client import connect

from .client import tool_environment
from .wait import TIMEOUT, until

START_SECONDS = max(60, TIMEOUT)  # the first start on a machine reads 300 MB from its disk

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-default-apps", "--disable-extensions", "--disable-dev-shm-usage",
    "--disable-breakpad", "--disable-crash-reporter",
    "--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--remote-debugging-port=0",
]  # fmt: skip


def trusting(name: str, certificate: x509.Certificate) -> list[str]:
    """Flags: `name` is at 127.0.0.1, and this certificate is good."""
    public = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    pin = base64.b64encode(hashlib.sha256(public).digest()).decode()
    return [
        f"--ignore-certificate-errors-spki-list={pin}",
        f"--host-resolver-rules=MAP {name} 127.0.0.1 , MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    ]


class Chromium:
    """One browser with a fresh profile and one page; a context manager. `flags` come last, so
    they win over those above."""

    def __init__(self, *flags: str):
        self.flags = flags

    def __enter__(self) -> "Chromium":
        self._folder = tempfile.TemporaryDirectory(
            prefix="fastlb-chromium-", ignore_cleanup_errors=True
        )
        folder = Path(self._folder.name)
        self._process = subprocess.Popen(
            ["chromium", *FLAGS, *self.flags, f"--user-data-dir={folder}", "about:blank"],
            env={**tool_environment(), "HOME": str(folder)}, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._open = contextlib.ExitStack()
        try:
            url = self._page_url(folder / "DevToolsActivePort")
            self._page = self._open.enter_context(connect(url, proxy=None, max_size=None))
            self._numbers = itertools.count(1)
            self.call("Page.enable")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._end()

    def _end(self) -> None:
        self._open.close()
        self._process.terminate()
        self._process.wait(3 * TIMEOUT)
        self._folder.cleanup()

    @staticmethod
    def _page_url(port_file: Path) -> str:
        def port() -> str:
            return port_file.read_text().split("\n")[0] if port_file.exists() else ""

        list_url = f"http://127.0.0.1:{until(port, 'Chromium ready', START_SECONDS)}/json/list"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def page() -> str:
            with opener.open(list_url, timeout=TIMEOUT) as answer:
                pages = [each for each in json.load(answer) if each["type"] == "page"]
            return pages[0]["webSocketDebuggerUrl"] if pages else ""

        return until(page, "a page in Chromium", START_SECONDS)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One DevTools command and its result; events in between are dropped."""
        number = next(self._numbers)
        self._page.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._page.recv(timeout=3 * TIMEOUT))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    def open(self, url: str) -> str:
        """Load a page; its text once it is complete."""
        result = self.call("Page.navigate", url=url)
        assert "errorText" not in result, result
        ready = f"document.readyState == 'complete' && location.href == {json.dumps(url)}"
        until(lambda: self.run(ready), f"{url} is loaded")
        return self.run("document.body.innerText")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page; a promise is awaited."""
        result = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def cookies(self) -> list[dict[str, Any]]:
        return self.call("Network.getCookies")["cookies"]
