"""What the results of one monitor make of one node: thresholds, and nothing of time or sockets."""

from dataclasses import dataclass

from fastlb.config import Monitor


@dataclass
class Health:
    """Down or not, and what speaks against it."""

    down: bool = False
    against: int = 0  # results in a row that say otherwise
    eager: bool = False  # down only for want of a check: one success is enough

    def take(self, good: bool, monitor: Monitor) -> bool:
        """One more result; whether the state changes by it."""
        if good != self.down:
            self.against = 0
            return False
        self.against += 1
        needed = monitor.successes if self.down else monitor.failures
        if self.against < needed and not self.eager:
            return False
        self.down, self.against, self.eager = not self.down, 0, False
        return True

    @property
    def doubtful(self) -> bool:
        """Whether checks and state differ, so that the next check should come soon."""
        return self.against > 0


class Pulse:
    """How long this process was held up, by its own tasks or because it was stopped.

    `beat` is to be called every PERIOD_S. What a check that ran meanwhile has not seen in time
    says nothing of the node.
    """

    PERIOD_S = 0.1

    def __init__(self, now: float) -> None:
        self._last = now
        self._held = 0.0

    def beat(self, now: float) -> None:
        self._held += self._late(now)
        self._last = now

    def held_s(self, now: float) -> float:
        """In all; the difference of two readings is what lies between them."""
        return self._held + self._late(now)

    def _late(self, now: float) -> float:
        return max(now - self._last - self.PERIOD_S, 0.0)
