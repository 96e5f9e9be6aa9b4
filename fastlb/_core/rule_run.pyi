"""One call of rules, rule by rule: for the event loop of async rules."""

from collections.abc import Awaitable
from typing import Any, final

@final
class RuleRun:
    """One call of rules that is under way."""

    @property
    def steps(self) -> list[tuple[Any, str]]:
        """The rules to be run, in their order: pairs of function and name."""

    @property
    def fresh(self) -> bool:
        """Whether none of its rules has begun."""

    @property
    def timeout(self) -> float:
        """Seconds that each rule has."""

    @property
    def ended_early(self) -> bool:
        """Whether nobody waits for it any more."""

    def arguments(self, i: int) -> tuple[Any, ...]:
        """What rule `i` is called with."""

    def begin(self, i: int) -> None:
        """Rule `i` begins."""

    def ended(self, i: int, result: object = None) -> bool:
        """Rule `i` returned `result`; whether those after it are run."""

    def failed(self, i: int, exception: BaseException, timed_out: bool = False) -> bool:
        """Rule `i` raised, or its time is over; whether those after it are run."""

    def cancelled(self, i: int) -> None:
        """Rule `i` was stopped, because nobody waits for it any more."""

    def finish(self) -> None:
        """No rule runs any more: writes the effects and gives the call back."""

    def want_body(self, limit: str | int) -> Awaitable[bytes]:
        """The request's body, to be awaited by a rule."""

    def told(self) -> None:
        """The worker has the body, or knows that there will be none."""

def take() -> list[RuleRun]:
    """The runs of the calls that came for the event loop, and those of which the worker told
    something: then `told` says what."""
