"""Response, the second argument of response rules."""

from typing import Never, final

from fastlb._core.rule_cookies import SetCookies
from fastlb._core.rule_views import Headers
from fastlb.rule_types import Node, Timings

@final
class Response:
    """A node's response, as it would be sent to the client."""

    @property
    def status(self) -> int:
        """The status code. Can be set to 200 to 599 (ValueError), not from or to 101, 204 and 304,
        which have no body; the reason is then that of the new code."""

    @status.setter
    def status(self, value: int) -> None: ...
    @property
    def reason(self) -> str:
        """The words after the status code. Can be set."""

    @reason.setter
    def reason(self, value: str) -> None: ...
    @property
    def headers(self) -> Headers:
        """The header fields."""

    @property
    def cookies(self) -> SetCookies:
        """The cookies that it sets, fastlb's own among them."""

    @property
    def node(self) -> Node:
        """The node that answered."""

    @property
    def timings(self) -> Timings:
        """How long it took."""

    def __reduce__(self) -> Never: ...
