"""One user of the proxy, and what must be true of every answer in every situation."""

from __future__ import annotations

import itertools
import json
import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.harness import Client, Message, request

from .application import QUIET

if TYPE_CHECKING:
    from .stage import Slot

_numbers = itertools.count(1)


def address_of(number: int) -> str:
    return f"127.{100 + number // 60000}.{number // 250 % 240}.{number % 250 + 1}"


@dataclass(frozen=True)
class OurCookie:
    """A Set-Cookie of fastlb's."""

    name: str
    value: str
    attributes: tuple[str, ...]

    @property
    def expired(self) -> bool:
        lower = [one.lower() for one in self.attributes]
        return "max-age=0" in lower or any("1970" in one for one in lower)


class Answer:
    """A response, and the decision behind it as X-FastLB-Decision says."""

    def __init__(self, message: Message, ours: list[OurCookie]):
        self.message = message
        self.status = message.status
        self.ours = ours
        try:
            self.account = json.loads(message.body)
        except ValueError:  # fastlb's own answer
            self.account = None
        self.node: str | None = self.account and self.account["node"]
        said = (message.get("X-FastLB-Decision") or b"").decode()
        self.decision = dict(part.partition("=")[::2] for part in said.split("; "))

    @property
    def outcome(self) -> str:
        return self.decision["outcome"]

    @property
    def found(self) -> tuple[str, str]:
        return self.outcome, self.decision["found-in"]

    def __repr__(self) -> str:
        return f"<{self.status} of {self.node}: {self.decision}, {self.ours}>"


class Visitor:
    """Keeps cookies as a browser does, and what the method's carrier keeps.

    A browser of its own (User-Agent) and an address of its own: it is nobody else's parallel
    first request.
    """

    def __init__(self, slot: Slot, jar: dict[str, str] | None = None, shared: bool = False):
        self.slot = slot
        self.carrier = slot.method.carrier
        number = next(_numbers)
        self.name = f"user {number}"
        self.source = address_of(number)
        self.shared = shared
        self.key = f"key-{number}"
        self.base = ""
        self.jar: dict[str, str] = {}
        self.carrier.birth(self)
        self.jar |= jar or {}
        self.sent: deque[tuple[str, list[str], str]] = deque()

    def move(self) -> None:
        self.source = address_of(next(_numbers))

    # --- asking ---

    def visit(
        self, path: str = "/page", server: str = "", connection: Client | None = None,
        quiet: bool = False, plain: bool = False,
    ) -> Answer:  # fmt: skip
        """One request, on a connection of its own unless one is given.

        `quiet`: one that starts no session at the application. `plain`: one for just this path,
        as after a redirect of fastlb's.
        """
        data = self.request(path, server, quiet or plain, plain)
        if connection is not None:
            connection.send(data)
            return self.take(connection.response())
        with Client(self.slot.address(server), self.source) as own:
            own.send(data)
            answer = self.take(own.response())
            if answer.status == 503:
                own.expect_closed()
            return answer

    def begin(self) -> Answer:
        """The first request, by which the session comes about."""
        answer = self.visit()
        assert answer.node is not None, answer
        return answer

    def request(
        self, path: str = "/page", server: str = "", quiet: bool = False, plain: bool = False
    ) -> bytes:
        fields = [("X-User", self.name), ("User-Agent", f"browser of {self.name}")]
        fields += self.carrier.fields(self)
        cookies = [f"{name}={value}" for name, value in self.jar.items()]
        if cookies:
            fields.append(("Cookie", "; ".join(cookies)))
        if quiet:
            fields.append((QUIET, "1"))
        target = path if plain else self.carrier.target(self, path)
        self.sent.append((target, cookies, server))
        return request(target, *fields)

    def take(self, message: Message) -> Answer:
        """The answer to the oldest request without one."""
        target, cookies, server = self.sent.popleft()
        answer = Answer(message, [one for one in map(self._ours, all_cookies(message)) if one])
        for one in all_cookies(message):
            self._keep(one)
        if answer.account is not None:
            self.carrier.learn(self, message)
            if server == "":
                self.slot.own_names |= {one.name for one in answer.ours}
            self._judge(answer, target, cookies)
        return answer

    # --- insides ---

    def _ours(self, cookie: OurCookie) -> OurCookie | None:
        return cookie if re.fullmatch(self.slot.method.ours, cookie.name) else None

    def _keep(self, cookie: OurCookie) -> None:
        if cookie.expired:
            self.jar.pop(cookie.name, None)
        else:
            self.jar[cookie.name] = cookie.value

    def _judge(self, answer: Answer, target: str, cookies: list[str]) -> None:
        """The request reached the node that was decided, whole, and without fastlb's cookie."""
        fields = answer.account["fields"]
        assert answer.account["target"] == target, answer
        assert ["X-User", self.name] in fields, f"the answer to somebody else: {answer}"
        assert answer.decision["node"] == self.slot.everybody[answer.node].address, answer
        seen = [one for key, value in fields if key == "Cookie" for one in value.split("; ")]
        assert [one for one in seen if name_of(one) in self.slot.own_names] == [], answer
        assert self._theirs(seen) == self._theirs(cookies), answer
        assert len(answer.ours) < 2, answer

    def _theirs(self, pairs: list[str]) -> list[str]:
        return [one for one in pairs if not re.fullmatch(self.slot.method.ours, name_of(one))]


def name_of(pair: str) -> str:
    return pair.partition("=")[0]


def all_cookies(message: Message) -> list[OurCookie]:
    """Every Set-Cookie of an answer."""
    found = []
    for line in message.all("Set-Cookie"):
        pair, *attributes = (part.strip() for part in line.decode("latin-1").split(";"))
        name, _, value = pair.partition("=")
        found.append(OurCookie(name, value, tuple(attributes)))
    return found
