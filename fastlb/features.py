"""What the configuration's schema knows and this version does not serve yet.

Using one of these is an error, never silently ignored. Whoever builds a feature deletes its
line here; when the list is empty, so is this module's purpose.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

Path = tuple[str | int, ...]


class Feature(NamedTuple):
    """One line of the list."""

    place: str  # path of a table or key, "*" for any name
    values: str | None  # pattern of the values meant; None: its presence
    what: str  # what the message calls it; {value} is the value found


UNAVAILABLE: tuple[Feature, ...] = (
    Feature("admin", None, "the admin page"),
    Feature("cluster", None, "a cluster"),
)


def unavailable(document: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """Place and name of each use in a TOML document of what this version does not serve."""
    for path, value in _walk(document, ()):
        names = [part for part in path if isinstance(part, str)]
        for feature in UNAVAILABLE:
            if _meant(feature, names, value):
                shown = f'"{value}"' if isinstance(value, str) else str(value).lower()
                yield path, feature.what.format(value=shown)


def _meant(feature: Feature, names: list[str], value: object) -> bool:
    parts = feature.place.split(".")
    if len(parts) != len(names) or any(
        p not in ("*", n) for p, n in zip(parts, names, strict=True)
    ):
        return False
    if feature.values is None:
        return True
    text = value if isinstance(value, str) else str(value).lower()
    return re.fullmatch(feature.values, text) is not None


def _walk(value: object, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key), inner
            yield from _walk(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            if path[-1] == "nodes" and isinstance(inner, str):
                inner = {"address": inner}
            yield from _walk(inner, (*path, index))
