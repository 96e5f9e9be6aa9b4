"""The three small back ends of `fastlb demo`: each keeps its sessions in its own memory.

That is the point of them: a node knows only the sessions that it began, as a plain application
server does. A user who is sent to another node is greeted as a stranger, on the page in so many
words.
"""

import json
import secrets
import sys
import threading
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COOKIE = "demo_session"  # the application's own; fastlb's stands beside it
SESSIONS_MAX = 10_000  # a node forgets everything beyond this; it is a demo

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>fastlb demo: node {name}</title>
<style>
  body {{ font: 1.1rem/1.6 system-ui, sans-serif; margin: 0; background: {colour}; color: #fff }}
  main {{ max-width: 34rem; margin: 12vh auto; padding: 0 1.5rem }}
  h1 {{ font-size: 3rem; margin: 0 }}
  a {{ color: #fff }} code {{ background: #0003; padding: .1em .3em; border-radius: .2em }}
</style>
<main><h1>{name}</h1>
<p>{greeting}</p>
<p>Your session lives in this node's memory only. fastlb remembers that with a cookie of its own,
which the node never sees. Reload as often as you like: you stay here.</p>
<p><a href="/">again</a> · <a href="/shop/basket">another page</a> · <a href="/api">the same as
JSON</a> · <a href="/forget">forget me</a></p></main></html>
"""


@dataclass
class Hit:
    """One answered request, for the live table."""

    node: str
    user: str  # the user's name or "browser"
    hits: int  # of this session on this node
    stranger: bool  # came with a session that this node never began


@dataclass
class DemoNode:
    """One back end on loopback; `start` binds it, to the wished port or to any free one."""

    name: str
    colour: str
    begun: set[str] = field(default_factory=set)  # the sessions of all nodes, shared; see count
    hits: dict[str, int] = field(default_factory=dict)  # session → requests answered
    recent: list[Hit] = field(default_factory=list)  # drained by the live table
    lock: threading.Lock = field(default_factory=threading.Lock)
    server: ThreadingHTTPServer | None = None

    def start(self, host: str, port: int) -> str:
        """Serve; returns the address that it became. The wished port may be taken."""
        handler = type("DemoHandler", (_Handler,), {"node": self})
        try:
            self.server = _Server((host, port), handler)
        except OSError:
            self.server = _Server((host, 0), handler)
        threading.Thread(target=self.server.serve_forever, args=(0.1,), daemon=True).start()
        return f"{host}:{self.server.server_address[1]}"

    def stop(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def count(self, session: str | None, user: str) -> tuple[str, Hit]:
        """One more request of a session; a new one begins where there is none.

        A session that another node began is a lost one; a browser may also bring one from an
        earlier demo, which nobody knows.
        """
        with self.lock:
            stranger = session in self.begun and session not in self.hits
            if session is None or session not in self.hits:
                session = secrets.token_hex(8)
                self.begun.add(session)
            if len(self.hits) >= SESSIONS_MAX:
                self.hits.clear()
            self.hits[session] = self.hits.get(session, 0) + 1
            hit = Hit(self.name, user, self.hits[session], stranger)
            self.recent.append(hit)
        return session, hit

    def drain(self) -> list[Hit]:
        """What was answered since the last call."""
        with self.lock:
            hits, self.recent = self.recent, []
        return hits


class _Server(ThreadingHTTPServer):
    """A server that says nothing about peers that end their connections."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    node: DemoNode
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/favicon.ico":
            return self._answer(404, "text/plain", b"", None)
        if path == "/forget":
            return self._forget()
        session, hit = self.node.count(self._session(), self.headers.get("X-Demo-User", "browser"))
        if path == "/api":
            kind, body = "application/json", json.dumps(self._account(hit)) + "\n"
        else:
            kind = "text/html; charset=utf-8"
            body = PAGE.format(
                name=self.node.name, colour=self.node.colour, greeting=self._greeting(hit)
            )
        self._answer(200, kind, body.encode(), f"{COOKIE}={session}; Path=/; HttpOnly")

    def _session(self) -> str | None:
        try:
            cookies = SimpleCookie(self.headers.get("Cookie", ""))
        except CookieError:
            return None
        return cookies[COOKIE].value if COOKIE in cookies else None

    def _account(self, hit: Hit) -> dict[str, Any]:
        return {"node": hit.node, "hits": hit.hits, "stranger": hit.stranger, "path": self.path}

    @staticmethod
    def _greeting(hit: Hit) -> str:
        if hit.stranger:
            return "You say that we know each other, but your session is not on this node."
        if hit.hits == 1:
            return "Welcome: a new session begins here."
        return f"Welcome back: this is request {hit.hits} of your session."

    def _forget(self) -> None:
        self.send_response(303)
        self.send_header("Location", "/")
        self.send_header("Set-Cookie", f"{COOKIE}=; Path=/; Max-Age=0")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _answer(self, status: int, kind: str, body: bytes, cookie: str | None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        if cookie is not None:
            self.send_header("Set-Cookie", cookie)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the live table tells it."""
