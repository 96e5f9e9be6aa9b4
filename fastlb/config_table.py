"""What the tables of the configuration share: their base, and kinds of values that several have."""

from pathlib import Path
from typing import Annotated, ClassVar

from msgspec import Struct

from fastlb.units import FilePath, Pattern


def key_of(attribute: str) -> str:
    """The key in the file of a field: its name without the unit."""
    return attribute.removesuffix("_ms").removesuffix("_bytes")


NAME_PATTERN = r"[A-Za-z0-9_.-]{1,63}"  # names stand in metrics, logs and commands

Name = Annotated[str, Pattern(NAME_PATTERN, "a name")]
ClassName = Annotated[str | None, Pattern(r"(?s:.+)", "the name of a persistence class")]
File = Annotated[Path, FilePath()]


class Table(Struct, frozen=True, kw_only=True, rename=key_of):
    """One table of the file."""

    shorthand: ClassVar[str] = ""  # the key that a plain string stands for
