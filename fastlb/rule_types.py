"""Small values and errors that rules meet; `fastlb.rules` passes them all on."""

from typing import NamedTuple


class RuleError(Exception):
    """The root of what rules are told.

        RuleError
        ├── RuleEnded       an object was used after the rule that got it had ended
        ├── RuleTimeout     the rule took longer than `[rules] timeout`
        └── BodyTooLarge    a request's body is longer than the rule said

    Wrong values are a TypeError or ValueError, as everywhere.
    """


class RuleEnded(RuleError, RuntimeError):
    """A connection, request, response or a view of one was used after its rule had ended.

    They are views over memory that is reused for the next request. Take what is needed later
    out of them while the rule runs: `user = request.cookies.get("user")`.
    """


class RuleTimeout(RuleError, TimeoutError):
    """The rule took longer than `[rules] timeout` allows."""


class BodyTooLarge(RuleError, ValueError):
    """The request's body is longer than the `limit` given; it is forwarded all the same."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the request's body is longer than {limit} bytes")
        self.limit = limit


class Node(str):
    """The address of a node: a `str` like `"10.0.0.1:8080"` or `"[2001:db8::1]:80"`.

    Where the port is open, as in a `persistence_node` of any port, it is the address alone.
    """

    __slots__ = ()

    @property
    def address(self) -> str:
        """The IP address, without brackets: `"10.0.0.1"`."""
        return self._parts()[0]

    @property
    def port(self) -> int | None:
        """The port, 1 to 65535; `None` where none is named."""
        return self._parts()[1]

    def _parts(self) -> tuple[str, int | None]:
        host, colon, port = self.rpartition(":")
        if not colon or (":" in host and not host.endswith("]")):
            return self.strip("[]"), None
        return host.strip("[]"), int(port)


class Timings(NamedTuple):
    """How long things took, in seconds."""

    connect: float
    """To reach the node; 0.0 where a kept connection was used."""
    first_byte: float
    """From the request sent to the first byte of the node's response."""
    seconds: float
    """From the request's beginning until now."""
