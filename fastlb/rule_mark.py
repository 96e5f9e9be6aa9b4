"""How a function is known to be a rule: by a mark, which the decorators of rules.py leave on it.

A wrapper made with functools.wraps has the mark of what it wraps, so it is a rule, too.
"""

import inspect
from typing import Any, NamedTuple

ATTRIBUTE = "__fastlb_rule__"
ARGUMENTS = {  # of each kind, by the names that they have in the documentation
    "connection": ("connection",),
    "request": ("request",),
    "response": ("request", "response"),
}


class RuleKind(NamedTuple):
    """What a rule is called with, and how."""

    kind: str  # of ARGUMENTS
    is_async: bool


class Mark(RuleKind):
    """What a decorator said."""


def put_mark(function: Any, kind: str) -> None:
    """Marks a function as a rule of this kind."""
    setattr(function, ATTRIBUTE, Mark(kind, inspect.iscoroutinefunction(function)))


def mark_of(value: object) -> Mark | None:
    """The mark of a rule, None for everything else."""
    mark = getattr(value, ATTRIBUTE, None)
    return mark if isinstance(mark, Mark) else None
