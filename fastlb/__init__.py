"""fastlb: a reverse proxy and load balancer whose first duty is session persistence."""

TYPE_CHECKING = False  # as type checkers know it; importing typing would take longer than the rest
if TYPE_CHECKING:
    from fastlb import rules as rule

__all__ = ["__version__", "rule"]

__version__ = "0.1.0"


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        # Who wants no rules, like most commands, does not wait for them.
        if name == "rule":
            from fastlb import rules

            return rules
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
