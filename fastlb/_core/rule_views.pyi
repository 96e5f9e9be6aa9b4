"""Header fields, query and log fields, as rules see them."""

from collections.abc import Iterator
from typing import Generic, Never, TypeVar, final, overload

V = TypeVar("V")
T = TypeVar("T")

class View(Generic[V]):
    """A mapping in which a name may stand more than once, in the order of the message.

    A view shows the message as it is now: what one rule changes, the next one sees. Iteration and
    `len` count each name once.
    """

    def __getitem__(self, name: str) -> V:
        """The first value; KeyError if there is none."""

    @overload
    def get(self, name: str) -> V | None: ...
    @overload
    def get(self, name: str, default: T) -> V | T:
        """The first value, or `default`."""

    def get_all(self, name: str) -> list[V]:
        """All values, in their order."""

    def __contains__(self, name: str) -> bool: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    def keys(self) -> list[str]:
        """Each name once, as it is spelt first."""

    def values(self) -> list[V]: ...
    def items(self) -> list[tuple[str, V]]:
        """All pairs of name and value, in their order, also several of one name."""

    def __reduce__(self) -> Never: ...

@final
class Headers(View[str]):
    """The header fields of a request or response; case does not matter in names.

        if "X-Debug" in request.headers:
            del request.headers["X-Debug"]
        response.headers["X-Served-By"] = str(response.node)

    A name is a token and a value has no control characters, else ValueError. Content-Length,
    Transfer-Encoding, Connection, Keep-Alive, Proxy-Connection, TE, Trailer and Upgrade cannot be
    set or removed; a request has one Host, which is a host name and maybe a port. Rules may add
    128 fields to a message. Fields that no rule touches stay byte for byte, in their order.
    """

    def __setitem__(self, name: str, value: str) -> None:
        """One field of this name, in the place of the first one; at the end if there was none."""

    def __delitem__(self, name: str) -> None:
        """No field of this name; KeyError if there was none."""

    def add(self, name: str, value: str) -> None:
        """One more field, at the end."""

@final
class Query(View[str]):
    """The parameters of a request's query, percent-decoded; "+" is a space.

        page = request.query.get("page", "1")
        request.query["page"] = "2"

    Changes are changes of the target; parameters that no rule touches stay as they were written.
    """

    def __setitem__(self, name: str, value: str) -> None:
        """One parameter of this name, in the place of the first one."""

    def __delitem__(self, name: str) -> None:
        """No parameter of this name; KeyError if there was none."""

    def add(self, name: str, value: str) -> None:
        """One more parameter, at the end."""

@final
class Log:
    """What rules add to the line of this request in the access log.

        request.log["user"] = "anna"

    Values are str, int, finite float or bool; None removes the field. All of them take 2048 bytes
    at most, as JSON; more is a ValueError. A rule reads here what was said since the message came
    to it and the rules of its sort (plain, async) before it.
    """

    def __getitem__(self, name: str) -> str | int | float | bool: ...
    def __setitem__(self, name: str, value: str | int | float | bool | None) -> None: ...
    def __delitem__(self, name: str) -> None: ...
    @overload
    def get(self, name: str) -> str | int | float | bool | None: ...
    @overload
    def get(self, name: str, default: T) -> str | int | float | bool | T: ...
    def __contains__(self, name: str) -> bool: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    def keys(self) -> list[str]: ...
    def items(self) -> list[tuple[str, str | int | float | bool]]: ...
    def __reduce__(self) -> Never: ...
