"""Nodes with an application whose sessions only the node that began them knows.

    GET /any?login=alice     a new session and its id; &url: in a redirect instead of a cookie;
                             &page: in the page's "link" only
    GET /any?renew           another id for the session; &route=x: with another routing suffix
    GET /any?logout          the session is over, its cookie deleted
    GET /any                 whose session this is: {"node", "user", "ids"}

So a session that reaches the wrong node is seen by what the application says: no user.
"""

import itertools
import json
import re
from urllib.parse import parse_qs

from .node import Exchange, RawNode
from .wire import Message, reply


class SessionNode(RawNode):
    """What the two kinds of application share: `spell` and `read` are theirs."""

    cookie_name = ""

    def __init__(self, name: str, host: str | None = None):
        super().__init__(self._answer, name, host)
        self.sessions: dict[str, str] = {}  # id → user
        self._numbers = itertools.count(1)

    def new_id(self) -> str:
        return f"{self.name}{next(self._numbers)}"

    def ids_of(self, message: Message) -> list[str]:
        """The ids that the request carries, in the order in which the application tries them."""
        raise NotImplementedError

    def value_of(self, id: str, query: dict[str, list[str]]) -> str:
        """The id as it is written to the client."""
        return id

    def url_of(self, value: str) -> str:
        """A path that carries the id."""
        raise NotImplementedError

    def cookies_of(self, message: Message) -> list[tuple[str, str]]:
        pairs = [p for line in message.all("Cookie") for p in line.decode("latin-1").split("; ")]
        return [(name, value) for name, _, value in (pair.partition("=") for pair in pairs)]

    def _answer(self, exchange: Exchange) -> None:
        exchange.read_body()
        message = exchange.request
        query = parse_qs(message.target.decode("latin-1").partition("?")[2], keep_blank_values=True)
        ids = self.ids_of(message)
        id = next((each for each in ids if each in self.sessions), None)
        fields: list[tuple[str, str]] = []
        if "login" in query:
            id = self.new_id()
            self.sessions[id] = query["login"][0]
            fields += [] if "page" in query else [self._grant(id, query)]
        elif "renew" in query and id is not None:
            user = self.sessions.pop(id)
            id = self.new_id()
            self.sessions[id] = user
            fields.append(self._grant(id, query))
        elif "logout" in query and id is not None:
            del self.sessions[id]
            fields.append(("Set-Cookie", f"{self.cookie_name}=; Max-Age=0; Path=/"))
            id = None
        account = {"node": self.name, "user": self.sessions.get(id or "", ""), "ids": ids}
        if id is not None:
            account["link"] = self.url_of(self.value_of(id, query))
        status = 302 if fields and fields[0][0] == "Location" else 200
        exchange.send(reply(status, json.dumps(account).encode(), *fields))

    def _grant(self, id: str, query: dict[str, list[str]]) -> tuple[str, str]:
        value = self.value_of(id, query)
        if "url" in query:
            return "Location", query["url"][0] + self.url_of(value)
        return "Set-Cookie", f"{self.cookie_name}={value}; Path=/"


class ServletNode(SessionNode):
    """Ids like "a1.a": the suffix is the node's route."""

    cookie_name = "JSESSIONID"

    def value_of(self, id: str, query: dict[str, list[str]]) -> str:
        return f"{id}.{query.get('route', [self.name])[0]}"

    def url_of(self, value: str) -> str:
        return f"/home;jsessionid={value}"

    def ids_of(self, message: Message) -> list[str]:
        values = [value for name, value in self.cookies_of(message) if name == self.cookie_name]
        path = message.target.decode("latin-1").split("?")[0]
        values += re.findall(r";jsessionid=([^;/]*)", path)
        return [value.split(".")[0] for value in values]


class AspNode(SessionNode):
    """ASP.NET; a classic application with `cookie_name` ASPSESSIONID and eight letters."""

    cookie_name = "ASP.NET_SessionId"

    def url_of(self, value: str) -> str:
        return f"/(S({value}))/home"

    def ids_of(self, message: Message) -> list[str]:
        values = [value for name, value in self.cookies_of(message) if name == self.cookie_name]
        return values + re.findall(r"\(S\((\w+)\)\)/", message.target.decode("latin-1"))
