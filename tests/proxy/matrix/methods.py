"""The methods: what is configured, what a user of it sends, what its application answers."""

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from tests.harness import Message

from . import application as app


class Kind(Enum):
    """Where a session is remembered: the expectations depend on little else."""

    CACHE = "a session cache"
    COOKIE = "a cookie that fastlb inserts"
    NAMED = "nowhere: somebody else names the node"
    HASH = "nowhere: a hash places the session"


class User(Protocol):
    """What a carrier sees of a visitor."""

    key: str  # a session key that is the user's own from the start
    base: str  # what the application put into the URL
    jar: dict[str, str]
    source: str
    shared: bool  # whether the connection is a CDN's, with many users

    def move(self) -> None: ...


class Carrier:
    """How a user's requests carry what the method goes by; cookies are carried by every user."""

    def birth(self, user: User) -> None:
        return

    def target(self, user: User, path: str) -> str:
        return path

    def fields(self, user: User) -> list[tuple[str, str]]:
        return []

    def learn(self, user: User, answer: Message) -> None:
        return

    def lose(self, user: User) -> None:
        user.jar.clear()

    def alter(self, user: User) -> None:
        raise NotImplementedError


class ByAddress(Carrier):
    def fields(self, user: User) -> list[tuple[str, str]]:
        return [("X-Forwarded-For", user.source)] if user.shared else []

    def lose(self, user: User) -> None:
        user.move()


class ByHeader(Carrier):
    def fields(self, user: User) -> list[tuple[str, str]]:
        return [("X-Session", user.key)] if user.key else []

    def lose(self, user: User) -> None:
        user.key = ""

    def alter(self, user: User) -> None:
        user.key = other_text(user.key)


class ByOwnCookie(Carrier):
    """A cookie that the client had before it came here."""

    def birth(self, user: User) -> None:
        user.jar["SHOPID"] = user.key

    def alter(self, user: User) -> None:
        user.jar["SHOPID"] = other_text(user.key)


class ByQuery(Carrier):
    def target(self, user: User, path: str) -> str:
        return f"{path}?page=1&sid={user.key}&x=" if user.key else path

    def lose(self, user: User) -> None:
        user.key = ""

    def alter(self, user: User) -> None:
        user.key = other_text(user.key)


@dataclass
class ByApplicationCookie(Carrier):
    """A cookie that the application sets."""

    name: str  # pattern

    def alter(self, user: User) -> None:
        for name, value in user.jar.items():
            if re.fullmatch(self.name, name):
                user.jar[name] = other_text(value)


@dataclass
class ByPath(Carrier):
    """A URL that the application redirects to; `pattern` is what later URLs have of it."""

    pattern: str
    before: bool  # whether it stands before the path

    def target(self, user: User, path: str) -> str:
        return user.base + path if self.before else f"{path}{user.base}?page=1"

    def learn(self, user: User, answer: Message) -> None:
        found = re.search(self.pattern, (answer.get("Location") or b"").decode())
        user.base = found[0] if found else user.base

    def lose(self, user: User) -> None:
        user.base = ""

    def alter(self, user: User) -> None:
        *rest, last = re.split(r"(?<=[=(])(?=[0-9A-Za-z])", user.base)
        user.base = "".join(rest) + other_text(last)


def other_text(text: str) -> str:
    """The same with another first letter."""
    return ("b" if text[0] == "a" else "a") + text[1:]


@dataclass(frozen=True)
class Method:
    """One row of the table."""

    name: str
    kind: Kind
    keys: dict[str, Any]  # of its class
    carrier: Carrier = field(default_factory=Carrier)
    application: app.Application = app.silent
    needs_key: bool = False  # a newcomer has nothing that the method could go by
    ours: str = r"(?!)"  # pattern of the name of fastlb's cookie
    authentic: bool = True  # fastlb's cookie cannot be forged
    listed_only: bool = False  # a node that is not in the pool is no node at all
    dated: bool = True  # fastlb enforces the age of its cookie
    files: Callable[[Path], dict[str, Any]] = lambda _folder: {}  # keys that name files
    rules: dict[str, str] = field(default_factory=dict)  # what runs, and the text of its module

    @property
    def slug(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    @property
    def remembers(self) -> bool:
        """Whether fastlb remembers the session: it can be forgotten, and moves for good."""
        return self.kind in (Kind.CACHE, Kind.COOKIE)

    @property
    def first(self) -> set[str]:
        """Outcomes of a newcomer's request."""
        if self.kind is Kind.HASH:
            return {"hashed"}
        return {"no-key"} if self.needs_key else {"new"}

    @property
    def again(self) -> tuple[str, str]:
        """Outcome of a later request, and where its session was found."""
        named = "rule" if self.rules else "cookie"
        found = {Kind.CACHE: "cache", Kind.COOKIE: "cookie", Kind.NAMED: named}
        return ("hashed", "hash") if self.kind is Kind.HASH else ("hit", found[self.kind])


def passphrase(folder: Path) -> dict[str, Any]:
    """A passphrase of this installation's own."""
    file = folder / "passphrases"
    if not file.exists():
        file.touch(0o600)
        file.write_text(secrets.token_hex(16) + "\n")
    return {"passphrase_file": str(file)}


def asp_name(node: app.AppNode) -> str:
    """Each server process has its own."""
    return "ASPSESSIONIDQADRAA" + "ABCDEFGH"[ord(node.name[0]) % 8] * 2


LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ASP_NET = "abcdefghijklmnopqrstuvwxyz012345"

BY_COOKIE = """
from fastlb import rule


@rule.request
def by_cookie(request: rule.Request) -> None:
    try:
        request.persistence_node = request.cookies.get("SHOPNODE")
    except ValueError:
        request.log["named"] = "no node"
"""

BY_ADDRESS = [
    # The cookie is its fallback's, where it has one.
    Method("ip", Kind.CACHE, {"type": "ip"}, ByAddress(), ours=r"X-Mapping-[0-9a-f]{8}"),
]
UNIVERSAL = [
    Method(
        "universal, header", Kind.CACHE, {"type": "universal", "key": "header:X-Session"},
        ByHeader(),
    ),
    Method(
        "universal, cookie", Kind.CACHE, {"type": "universal", "key": "cookie:SHOPID"},
        ByOwnCookie(),
    ),
    Method(
        "universal, query", Kind.CACHE, {"type": "universal", "key": "query:sid"}, ByQuery()
    ),
    Method(
        "universal, learned cookie", Kind.CACHE,
        {"type": "universal", "key": "cookie:SID", "learn": "cookie:SID"},
        ByApplicationCookie("SID"),
        app.sets_cookie(lambda _: "SID", app.hex_id, "SID"),
        needs_key=True,
    ),
]  # fmt: skip
INSERTED = [
    Method(
        "transparent", Kind.COOKIE, {"type": "transparent"}, ours=r"X-Mapping-[0-9a-f]{8}"
    ),
    Method(
        "cookie-insert, plain", Kind.COOKIE, {"type": "cookie-insert"}, ours=r"NSC_.+",
        authentic=False, listed_only=True, dated=False,
    ),
    Method(
        "cookie-insert, passphrase", Kind.COOKIE, {"type": "cookie-insert"}, ours=r"NSC_.+",
        files=passphrase,
    ),
    Method(
        "cookie", Kind.COOKIE, {"type": "cookie", "cookie": "PHPSESSID"},
        ByApplicationCookie("PHPSESSID"),
        app.sets_cookie(lambda _: "PHPSESSID", app.hex_id, "PHPSESSID"),
        needs_key=True, ours=r"K-PHPSESSID-[0-9a-f]{8}",
    ),
]  # fmt: skip
SESSION_IDS = [
    Method(
        "j2ee, cookie", Kind.CACHE, {"type": "j2ee"}, ByApplicationCookie("JSESSIONID"),
        app.sets_cookie(
            lambda _: "JSESSIONID", lambda node: f"{app.hex_id().upper()}.{node.name}",
            "JSESSIONID", "; HttpOnly",
        ),
        needs_key=True,
    ),
    Method(
        "j2ee, URL", Kind.CACHE, {"type": "j2ee"}, ByPath(r";jsessionid=[^?;/#]+", before=False),
        app.redirects(
            ";jsessionid=", lambda node: f"/begin;jsessionid={app.hex_id().upper()}.{node.name}?a=1"
        ),
        needs_key=True,
    ),
    Method(
        "asp, classic cookie", Kind.CACHE, {"type": "asp"},
        ByApplicationCookie("ASPSESSIONID[A-Z]{8}"),
        app.sets_cookie(asp_name, lambda _: app.letters_id(LETTERS), "ASPSESSIONID[A-Z]{8}"),
        needs_key=True,
    ),
    Method(
        "asp, ASP.NET cookie", Kind.CACHE, {"type": "asp"},
        ByApplicationCookie(r"ASP\.NET_SessionId"),
        app.sets_cookie(
            lambda _: "ASP.NET_SessionId", lambda _: app.letters_id(ASP_NET),
            r"ASP\.NET_SessionId", "; HttpOnly",
        ),
        needs_key=True,
    ),
    Method(
        "asp, cookieless", Kind.CACHE, {"type": "asp"},
        ByPath(r"/\(S\([a-z0-5]{24}\)\)", before=True),
        app.redirects(r"\(S\(", lambda _: f"/(S({app.letters_id(ASP_NET)}))/begin"),
        needs_key=True,
    ),
]  # fmt: skip
NAMED = [
    Method(
        "named", Kind.NAMED, {"type": "named"}, ByApplicationCookie("SHOPNODE"),
        app.sets_cookie(lambda _: "SHOPNODE", lambda node: node.address, "SHOPNODE"),
        needs_key=True, rules={"naming:by_cookie": BY_COOKIE},
    ),
    Method(
        "x-zeus", Kind.NAMED, {"type": "x-zeus"}, ByApplicationCookie("X-Zeus-Backend"),
        app.sets_cookie(
            lambda _: "X-Zeus-Backend", lambda node: node.address, "X-Zeus-Backend"
        ),
        needs_key=True, listed_only=True,
    ),
]  # fmt: skip
HASH = [
    Method("hash, source", Kind.HASH, {"type": "hash", "on": "source"}, ByAddress()),
    Method("hash, header", Kind.HASH, {"type": "hash", "on": "header:X-Session"}, ByHeader()),
]

METHODS = BY_ADDRESS + UNIVERSAL + INSERTED + SESSION_IDS + NAMED + HASH
