"""Cookies of requests and responses, as rules see them."""

from collections.abc import Iterator
from typing import Literal, Never, TypeVar, final, overload

from fastlb._core.rule_views import View

T = TypeVar("T")

@final
class Cookies(View[str]):
    """The cookies of a request, over all its Cookie fields; case counts in names.

        user = request.cookies.get("user")
        del request.cookies["tracking"]         # the node does not see it

    Double quotes around a value are taken off. What is set must be as RFC 6265 wants it: a token
    as name, no white space, comma, semicolon, double quote or backslash in the value (ValueError).
    """

    def __setitem__(self, name: str, value: str) -> None:
        """One cookie of this name, in the place of the first one."""

    def __delitem__(self, name: str) -> None:
        """No cookie of this name; KeyError if there was none."""

@final
class SetCookie:
    """One cookie that a response sets: a value, and a mapping of its attributes.

        cookie = response.cookies["sid"]
        cookie["Partitioned"] = True
        cookie["Path"] = "/app"
        del cookie["Domain"]

    Case does not matter in the names of attributes. One without a value reads as True.
    """

    @property
    def name(self) -> str: ...
    @property
    def value(self) -> str:
        """Its value, without double quotes around it. Can be set; the attributes stay."""

    @value.setter
    def value(self, value: str) -> None: ...
    def __getitem__(self, name: str) -> str | bool:
        """An attribute; KeyError if it is not there."""

    def __setitem__(self, name: str, value: str | int | bool | None) -> None:
        """Sets an attribute; True: one without a value, False and None: it goes."""

    def __delitem__(self, name: str) -> None: ...
    @overload
    def get(self, name: str) -> str | bool | None: ...
    @overload
    def get(self, name: str, default: T) -> str | bool | T:
        """An attribute, or `default`."""

    def __contains__(self, name: str) -> bool: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> Literal[True]: ...
    def keys(self) -> list[str]: ...
    def values(self) -> list[str | bool]: ...
    def items(self) -> list[tuple[str, str | bool]]:
        """The attributes with their names as they stand; of one that is there twice the last."""

    def __reduce__(self) -> Never: ...

@final
class SetCookies(View[SetCookie]):
    """The cookies that a response sets, fastlb's own among them, by name; case counts.

        for name, cookie in response.cookies.items():
            cookie["Secure"] = True
        response.cookies.set("theme", "dark", max_age=86400, same_site="Lax")

    `del response.cookies["sid"]` keeps the Set-Cookie from the client; `expire` tells the client to
    forget a cookie that it has.
    """

    def __setitem__(self, name: str, value: str) -> None:
        """The value of the first cookie of this name, whose attributes stay; or a new cookie
        without any."""

    def __delitem__(self, name: str) -> None:
        """No cookie of this name is set; KeyError if none was."""

    def set(
        self,
        name: str,
        value: str,
        *,
        path: str | None = "/",
        domain: str | None = None,
        max_age: int | None = None,
        expires: str | None = None,
        secure: bool | None = None,
        http_only: bool | None = None,
        same_site: str | None = None,
        partitioned: bool | None = None,
    ) -> None:
        """Sets a cookie with these attributes and no others, in the place of one of its name.

        `max_age` in seconds; `expires` a date as HTTP writes it; `same_site` "Strict", "Lax" or
        "None".
        """

    def expire(self, name: str, *, path: str = "/", domain: str | None = None) -> None:
        """Tells the client to forget a cookie; `path` and `domain` as it was set."""
