"""The figures of a run: rounds of cases and peers, medians, ratios, aims met or missed."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

from .cases import ABSOLUTE, BEST, OWN, Aim, Case
from .measure import MAIN, Figures
from .peers import NOT_PEERS


@dataclass(frozen=True)
class Verdict:
    """An aim beside what was measured; `value` None: a figure that it needs is missing."""

    text: str
    value: float | None
    limit: float

    @property
    def met(self) -> bool | None:
        return None if self.value is None else self.value <= self.limit


@dataclass
class Results:
    rounds: dict[tuple[str, str], list[Figures]] = field(default_factory=dict)
    refused: dict[tuple[str, str], str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, case: Case, peer: str, figures: Figures) -> None:
        self.rounds.setdefault((case.name, peer), []).append(figures)

    def peers(self, case: Case) -> list[str]:
        return [peer for name, peer in self.rounds if name == case.name]

    def values(self, case: str, peer: str, metric: str) -> list[float]:
        rounds = self.rounds.get((case, peer), [])
        return [figures[metric] for figures in rounds if metric in figures]

    def median(self, case: str, peer: str, metric: str) -> float | None:
        values = self.values(case, peer, metric)
        return statistics.median(values) if values else None

    def best(self, case: Case, metric: str) -> tuple[str, float] | None:
        """The peer with the lowest median, and that median."""
        found = [
            (value, peer)
            for peer in self.peers(case)
            if peer not in NOT_PEERS and (value := self.median(case.name, peer, metric)) is not None
        ]
        return (min(found)[1], min(found)[0]) if found else None

    def reference(self, case: Case, aim: Aim, metric: str) -> tuple[str, float] | None:
        """What an aim compares with: a name and a figure."""
        if aim.against == BEST:
            return self.best(case, metric)
        where = "cookie" if aim.against == OWN else case.name
        who = "fastlb" if aim.against == OWN else aim.against
        value = self.median(where, who, metric)
        return None if value is None else (aim.against, value)

    def verdict(self, case: Case, aim: Aim, peer: str = "fastlb") -> Verdict:
        metric = MAIN[case.kind] if aim.metric == "main" else aim.metric
        own = self.median(case.name, peer, metric)
        what = "" if aim.metric == "main" else f"{metric.removesuffix('_us')} "
        if aim.against == ABSOLUTE:
            return Verdict(f"{what}≤ {aim.factor:g} {ABSOLUTE}", own, aim.factor)
        reference = self.reference(case, aim, metric)
        value = own / reference[1] if own is not None and reference else None
        named = f" ({reference[0]})" if reference and aim.against == BEST else ""
        return Verdict(f"{what}≤ {aim.factor:g} × {aim.against}{named}", value, aim.factor)

    def as_json(self) -> dict[str, Any]:
        cases: dict[str, Any] = {}
        for (case, peer), rounds in self.rounds.items():
            metrics = sorted({metric for figures in rounds for metric in figures})
            cases.setdefault(case, {})[peer] = {
                metric: {
                    "median": self.median(case, peer, metric),
                    "min": min(self.values(case, peer, metric)),
                    "max": max(self.values(case, peer, metric)),
                    "rounds": self.values(case, peer, metric),
                }
                for metric in metrics
            }
        refused = {f"{case}/{peer}": why for (case, peer), why in self.refused.items()}
        return {"cases": cases, "refused": refused, "failures": self.failures}
