"""The nodes: application servers that start a session of their own as real ones do."""

import json
import re
import secrets
from collections.abc import Callable

from tests.harness import Exchange, HttpNode, Message, reply

Fields = list[tuple[str, str]]
# What an application adds to its answer: a status and fields.
Application = Callable[["AppNode", Message], tuple[int, Fields]]

QUIET = "X-Quiet"  # a request for something that starts no session, like a picture


class AppNode(HttpNode):
    """Answers with an account of the request, as HttpNode; its application adds to that."""

    def __init__(self, name: str, application: Application, host: str | None = None):
        super().__init__(name, host=host)
        self.application = application

    def _answer(self, exchange: Exchange) -> None:
        exchange.read_body()
        request = exchange.request
        status, fields = (200, []) if request.all(QUIET) else self.application(self, request)
        with self._lock:
            for user in request.all("X-User"):
                self.users[user.decode()] += 1
        account = {
            "node": self.name,
            "target": request.target.decode("latin-1"),
            "fields": [[k.decode("latin-1"), v.decode("latin-1")] for k, v in request.fields],
        }
        exchange.send(reply(status, json.dumps(account).encode(), *fields))


def silent(_node: AppNode, _request: Message) -> tuple[int, Fields]:
    """An application that keeps no session."""
    return 200, []


def sets_cookie(
    name: Callable[[AppNode], str], value: Callable[[AppNode], str], known: str, tail: str = ""
) -> Application:
    """Starts a session by a cookie unless the request has one whose name matches `known`."""

    def application(node: AppNode, request: Message) -> tuple[int, Fields]:
        sent = b"; ".join(request.all("Cookie")).decode("latin-1")
        if any(re.fullmatch(known, pair.partition("=")[0]) for pair in sent.split("; ")):
            return 200, []
        return 200, [("Set-Cookie", f"{name(node)}={value(node)}; Path=/{tail}")]

    return application


def redirects(known: str, place: Callable[[AppNode], str]) -> Application:
    """Starts a session by sending the client to a URL that has its id."""

    def application(node: AppNode, request: Message) -> tuple[int, Fields]:
        if re.search(known, request.target.decode("latin-1")):
            return 200, []
        return 302, [("Location", place(node))]

    return application


def hex_id(_node: AppNode | None = None) -> str:
    return secrets.token_hex(16)


def letters_id(alphabet: str) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(24))
