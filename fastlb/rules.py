"""Rules: Python functions that see a connection, a request or a response before fastlb goes on.

    from fastlb import rule

    @rule.request
    def session(request: rule.Request) -> None:
        request.persistence_key = request.cookies.get("PHPSESSID")

A rule is marked by one of three decorators, may be `def` or `async def`, and returns None. Which
rules a virtual server runs, and in which order, says its `rules = ["shop_rules:session"]`.

Text is `str` everywhere. What was sent as UTF-8 reads as it looks; bytes that are not UTF-8 stand
in it as surrogates (as `os.fsdecode` makes them), and become the same bytes again.

What a rule sets is checked when it is set: a `TypeError` or `ValueError` names the attribute and
what is wrong with it. The arguments are good while the rule runs; whoever uses one of them, or a
view of one, after that gets `rule.RuleEnded`. Each worker imports the modules of rules for itself:
state that all of them share is in `rule.shared` tables.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from fastlb._core.rule_cookies import Cookies, SetCookie, SetCookies
from fastlb._core.rule_objects import Connection, Request
from fastlb._core.rule_response import Response
from fastlb._core.rule_shared import Table, shared
from fastlb._core.rule_views import Headers, Log, Query
from fastlb.rule_mark import put_mark
from fastlb.rule_types import BodyTooLarge, Node, RuleEnded, RuleError, RuleTimeout, Timings

__all__ = [
    "BodyTooLarge", "Connection", "Cookies", "Headers", "Log", "Node", "Query", "Request",
    "Response", "RuleEnded", "RuleError", "RuleTimeout", "SetCookie", "SetCookies", "Table",
    "Timings", "connection", "request", "response", "shared",
]  # fmt: skip

_ConnectionRule = TypeVar("_ConnectionRule", bound=Callable[[Connection], Awaitable[None] | None])
_RequestRule = TypeVar("_RequestRule", bound=Callable[[Request], Awaitable[None] | None])
_ResponseRule = TypeVar(
    "_ResponseRule", bound=Callable[[Request, Response], Awaitable[None] | None]
)


def connection(function: _ConnectionRule) -> _ConnectionRule:
    """Marks `function(connection)` as a rule for connections.

    It runs once per connection: on tcp and tls before the node is chosen (tls: the ClientHello
    has been read), on http and https before the first request's rules. What it sets (pool,
    persistence class, key, node, client address, log fields) holds for all requests of the
    connection.

        @rule.connection
        def by_name(connection: rule.Connection) -> None:
            if connection.sni == "pay.example.com":
                connection.pool = "payment"
    """
    put_mark(function, "connection")
    return function


def request(function: _RequestRule) -> _RequestRule:
    """Marks `function(request)` as a rule for requests.

    It runs for each request, also on a kept connection, after `routes` have chosen the pool and
    before the node is chosen. What it changes of the message is what persistence, routes and the
    node see.

        @rule.request
        def staff_only(request: rule.Request) -> None:
            if request.path.startswith("/admin"):
                request.respond(403, "no")
    """
    put_mark(function, "request")
    return function


def response(function: _ResponseRule) -> _ResponseRule:
    """Marks `function(request, response)` as a rule for responses.

    It runs on the final head of a node's response as it would be sent, fastlb's own Set-Cookie in
    it. It does not run on interim (1xx) responses but 101, nor on fastlb's own answers.

        @rule.response
        def tag(request: rule.Request, response: rule.Response) -> None:
            response.headers["X-Served-By"] = str(response.node)
    """
    put_mark(function, "response")
    return function
