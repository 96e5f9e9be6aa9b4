"""Connection and Request, arguments of rules."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Never, final

from fastlb._core.rule_cookies import Cookies
from fastlb._core.rule_views import Headers, Log, Query
from fastlb.rule_types import Node

class Connection:
    """One client's connection: what there is before any message.

    Its attributes are those of a Request, too. In response rules all but `log` and `data` can
    only be read: the node has been chosen.
    """

    @property
    def client_address(self) -> str | None:
        """Whose connection it is, without port: the client behind trusted proxies, if they say so.

        None is a client of a Unix socket. Can be set to an IP address (ValueError): persistence
        and the access log then mean that client. `"2001:db8::1"`, never in brackets.
        """

    @client_address.setter
    def client_address(self, value: str) -> None: ...
    @property
    def client_port(self) -> int:
        """The client's port; 0 where it is not known."""

    @property
    def peer_address(self) -> str | None:
        """Who is connected to fastlb: the client, or the proxy before it."""

    @property
    def local_address(self) -> str | None:
        """The address that the client connected to; None: a Unix socket."""

    @property
    def local_port(self) -> int:
        """The port that the client connected to; 0: a Unix socket."""

    @property
    def virtual_server(self) -> str:
        """The name of the virtual server: `shop` of `[virtual_servers.shop]`."""

    @property
    def protocol(self) -> Literal["http", "https", "tls", "tcp"]:
        """The virtual server's protocol."""

    @property
    def sni(self) -> str | None:
        """The server name that the client asked for in TLS."""

    @property
    def alpn(self) -> tuple[str, ...]:
        """The protocols that the client offers in TLS: `("h2", "http/1.1")`; where TLS ends here,
        the one that was agreed on. Empty without ALPN."""

    @property
    def tls_version(self) -> str | None:
        """`"TLSv1.3"`, `"TLSv1.2"`; None without TLS, or while it is not agreed on."""

    @property
    def client_subject(self) -> str | None:
        """Who the client's certificate names, as RFC 4514 writes it: `"CN=anna,O=Example"`. None
        without one; only where TLS ends here and clients are asked for certificates."""

    @property
    def client_certificate(self) -> bytes | None:
        """That certificate, in DER."""

    @property
    def pool(self) -> str:
        """The name of the pool: that of the routes, or the one that a rule set.

        Can be set to the name of any pool (ValueError if there is none of that name).

            request.pool = "api" if request.path.startswith("/api/") else "web"
        """

    @pool.setter
    def pool(self, value: str) -> None: ...
    @property
    def persistence(self) -> str | None:
        """The name of the persistence class; None: no persistence. Can be set to either."""

    @persistence.setter
    def persistence(self, value: str | None) -> None: ...
    @property
    def persistence_key(self) -> str | None:
        """The session's key, of a class of type universal or hash; None: no rule set one.

        Can be set to str (as UTF-8) or bytes, 4096 bytes at most; None and "" take it back. In a
        response rule it teaches: what is set there becomes a session map of the node that has
        answered, in the class's `universal` ones.

            request.persistence_key = request.cookies.get("PHPSESSID")
        """

    @persistence_key.setter
    def persistence_key(self, value: str | bytes | None) -> None: ...
    @property
    def persistence_node(self) -> Node | None:
        """The node that a rule named. Can be set to `"10.0.0.1:8080"`, `"[2001:db8::1]:80"`, an
        address alone where one node has it, or None."""

    @persistence_node.setter
    def persistence_node(self, value: str | None) -> None: ...
    @property
    def log(self) -> Log:
        """Fields for the line in the access log."""

    @property
    def data(self) -> dict[Any, Any]:
        """Whatever rules keep for later ones. A request's begins as a copy of its connection's, and
        is the same dict in its request rules and response rules. It is not undone when a rule
        fails."""

    def close(self) -> None:
        """Closes the connection without an answer; no later rule runs."""

    def __reduce__(self) -> Never: ...

@final
class Request(Connection):
    """One request. In response rules it can be read as it was sent to the node."""

    @property
    def method(self) -> str:
        """`"GET"`. Can be set, but not from or to HEAD and CONNECT (ValueError)."""

    @method.setter
    def method(self, value: str) -> None: ...
    @property
    def target(self) -> str:
        """The request target as it is sent: `"/cart?id=5"`. Can be set: printable ASCII."""

    @target.setter
    def target(self, value: str) -> None: ...
    @property
    def path(self) -> str:
        """The path, percent-decoded: `"/a b"` of `/a%20b?x=1`.

        Can be set to a path that begins with "/"; it is percent-encoded, the query stays. What the
        client had encoded without need, like "%2F", is lost by that: `raw_path` keeps it.
        """

    @path.setter
    def path(self, value: str) -> None: ...
    @property
    def raw_path(self) -> str:
        """The path as it is sent, percent-encoded. Can be set."""

    @raw_path.setter
    def raw_path(self, value: str) -> None: ...
    @property
    def query(self) -> Query:
        """The parameters of the query, decoded."""

    @property
    def raw_query(self) -> str:
        """The query as it is sent, without its "?"; "" without one. Can be set."""

    @raw_query.setter
    def raw_query(self, value: str) -> None: ...
    @property
    def http_version(self) -> Literal["HTTP/1.1", "HTTP/1.0"]:
        """The client's version."""

    @property
    def host(self) -> str | None:
        """The host asked for, in lower case and without port; None: the client said none.

        Can be set, with a port or without one; routes are asked again unless a rule has
        set the pool. `headers["Host"]` is what was sent.
        """

    @host.setter
    def host(self, value: str) -> None: ...
    @property
    def headers(self) -> Headers:
        """The header fields."""

    @property
    def cookies(self) -> Cookies:
        """The cookies."""

    def respond(
        self,
        status: int,
        body: bytes | str = b"",
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        content_type: str | None = None,
    ) -> None:
        """Answers the client; the request does not reach a node, no later rule runs.

            return request.respond(429, "later", headers={"Retry-After": "60"})

        `status`: 200 to 599. `body`: 16 MiB at most; str is sent as UTF-8. Unless said otherwise,
        its type is `text/plain; charset=utf-8`, and `Cache-Control: no-store` is sent.
        In a response rule it takes the place of the node's answer. The function goes on after it:
        `return` if it must not.
        """

    def redirect(self, url: str, status: int = 302) -> None:
        """Answers with a redirect to `url`; `status` is 301, 302, 303, 307 or 308.

        Spaces and what is not ASCII are percent-encoded; control characters are a ValueError.
        """

    async def body(self, limit: str | int = "1MiB") -> bytes:
        """The request's body, chunks decoded; in async request rules only.

        Waits until it is there, and is forwarded all the same. Raises BodyTooLarge when it is
        longer than `limit`: a size like "64KiB" or bytes, 64 MiB at most.
        """
