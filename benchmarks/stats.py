"""A median and how sure of it one can be."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A median with its 95 % confidence interval."""

    median: float
    low: float
    high: float


def estimate(values: Sequence[float]) -> Estimate:
    """The interval is that of the sign test: two order statistics, whatever the distribution.

    With fewer than six values there is no such interval; then it is least and most.
    """
    ordered = sorted(values)
    count = len(ordered)
    outside, below = 0, 0.0  # values left out at either end, and their probability
    while True:
        below += math.comb(count, outside) / 2**count
        if below > 0.025 or 2 * (outside + 1) >= count:
            break
        outside += 1
    outside = max(0, outside - 1)
    return Estimate(statistics.median(ordered), ordered[outside], ordered[-1 - outside])
