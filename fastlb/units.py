"""How values are written in the configuration: durations, sizes, addresses, networks, keys.

Each kind of value is a Form: it reads what TOML gave (raising Invalid from errors.py), writes
a value back as the operator would, and says in words what it expects. It knows nothing of
tables or of other values.
"""

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from fastlb import errors
from fastlb.errors import Invalid

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}

UNIX_PATH_BYTES_MAX = 107  # sun_path is 108 bytes with its NUL (unix(7))


class InetAddress(NamedTuple):
    """An IP address and a port."""

    ip: IP
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if self.ip.version == 6 else f"{self.ip}:{self.port}"


class HostAddress(NamedTuple):
    """A host name and a port: a node for each address that the name has."""

    name: str  # in lower case, without a dot at its end
    port: int

    def __str__(self) -> str:
        return f"{self.name}:{self.port}"


class UnixAddress(NamedTuple):
    """The path of a Unix socket."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


class KeyPart(NamedTuple):
    """One part of a session key: `header:X-User` is ("header", "X-User"), `host` ("host", "")."""

    kind: Literal["header", "cookie", "query", "path", "host", "sni", "source", "destination"]
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind


class Form(Protocol):
    """How one kind of value is written; an instance stands in a field's Annotated type."""

    def read(self, value: object) -> Any:
        """The value as the program uses it; raises Invalid."""

    def write(self, value: Any) -> str:
        """The value as the operator writes it, in TOML."""

    @property
    def expected(self) -> str:
        """What the form reads, in words that follow "expected"."""


def quantity(text: str, factors: dict[str, int]) -> int | None:
    """`"250ms"` in the factors' smallest unit; None when it is not one."""
    match = re.fullmatch(r"([0-9]{1,15})([A-Za-z]+)", text)
    if match is None or match[2] not in factors:
        return None
    return int(match[1]) * factors[match[2]]


def written_quantity(value: int, factors: dict[str, int]) -> str:
    """The shortest exact spelling: 90000 ms is `90s`, 0 is the zero of the second unit or bytes."""
    if value == 0:
        return "0s" if factors is MILLISECONDS else "0B"
    unit = max((u for u in factors if value % factors[u] == 0), key=lambda u: factors[u])
    return f"{value // factors[unit]}{unit}"


def quoted(text: str) -> str:
    """A TOML basic string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def found_kind(value: object) -> str:
    """What TOML calls a value: `a string`, `the number 5`, …"""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the string {quoted(value)}"
        case list():
            return "a list"
        case dict():
            return "a table"
    return "a date or time"


def read_text(value: object, expected: str) -> str:
    if not isinstance(value, str):
        raise Invalid(errors.WRONG_TYPE, found=found_kind(value), expected=expected, suggestion="")
    return value


class _Quantity:
    """A whole number with a unit, within a range."""

    factors: dict[str, int]
    message: errors.Message
    sample: str
    bare_unit: str  # what a number without unit probably meant

    def __init__(self, least: str, most: str, zero: str | None = None) -> None:
        self.least, self.most, self.zero = least, most, zero

    @property
    def expected(self) -> str:
        zero = f", or {self.write(0)} for {self.zero}"
        return f"{self.sample} from {quoted(self.least)} to {quoted(self.most)}" + (
            zero if self.zero else ""
        )

    def read(self, value: object) -> int:
        bare = type(value) is int and value >= 0
        text = str(value) if bare else read_text(value, self.expected)
        number = quantity(text, self.factors)
        if number is None:
            raise Invalid(
                self.message, found=text, expected=self.expected, suggestion=self._meant(text)
            )
        least, most = quantity(self.least, self.factors), quantity(self.most, self.factors)
        assert least is not None
        assert most is not None
        if not least <= number <= most and not (self.zero and number == 0):
            raise Invalid(errors.OUT_OF_RANGE, found=quoted(text), expected=self.expected)
        return number

    def write(self, value: int) -> str:
        return quoted(written_quantity(value, self.factors))

    def _meant(self, text: str) -> str:
        match = re.fullmatch(r"\s*([0-9]+)\s*([A-Za-z]*)\s*", text)
        if match is None:
            return ""
        by_lower = {unit.lower(): unit for unit in self.factors} | self.synonyms()
        unit = by_lower.get(match[2].lower()) if match[2] else self.bare_unit
        return f' (did you mean "{match[1]}{unit}"?)' if unit else ""

    def synonyms(self) -> dict[str, str]:
        return {}


class Duration(_Quantity):
    """A time, kept in milliseconds."""

    factors = MILLISECONDS
    message = errors.BAD_DURATION
    sample = 'a duration like "250ms", "5s", "30m" or "2h"'
    bare_unit = "s"

    def synonyms(self) -> dict[str, str]:
        words = {
            "s": "sec secs second seconds",
            "m": "min mins minute minutes",
            "h": "hr hour hours",
        }
        return {word: unit for unit, all_ in words.items() for word in all_.split()}


class Size(_Quantity):
    """A count of bytes."""

    factors = BYTES
    message = errors.BAD_SIZE
    sample = 'a size like "16KiB" or "1MiB"'
    bare_unit = "B"

    def synonyms(self) -> dict[str, str]:
        return {"k": "KiB", "kb": "KiB", "m": "MiB", "mb": "MiB", "g": "GiB", "gb": "GiB"}


def read_ip(text: str) -> IP | None:
    """An address without scope id; the core's addresses have none."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if isinstance(ip, ipaddress.IPv6Address) and ip.scope_id else ip


def read_inet(text: str, expected: str) -> InetAddress:
    """`"192.0.2.1:80"` or `"[2001:db8::1]:80"`; raises Invalid."""
    if text.count(":") > 1 and read_ip(text):  # an IPv6 address without brackets
        raise Invalid(errors.NO_PORT, found=text, expected=expected)
    match = re.fullmatch(r"(?:\[([^\[\]]*)\]|([^:\[\]]*))(?::(.*))?", text)
    host = "" if match is None else match[1] or match[2] or ""
    ip = read_ip(host)
    if match is None or ip is None or (match[1] is not None) != (ip.version == 6):
        raise Invalid(errors.BAD_ADDRESS, found=text, expected=expected)
    if match[3] is None:
        raise Invalid(errors.NO_PORT, found=text, expected=expected)
    if not re.fullmatch(r"[0-9]{1,5}", match[3]) or not 1 <= int(match[3]) <= 65535:
        raise Invalid(errors.BAD_PORT, found=text, port=match[3])
    return InetAddress(ip, int(match[3]))


def read_ip_port(text: str) -> tuple[IP, int | None] | None:
    """`10.0.0.1`, `10.0.0.1:80`, `::1`, `[::1]` or `[::1]:80`; None when it is none of these."""
    bare = text[1:-1] if text[:1] == "[" and text[-1:] == "]" else text
    if ip := read_ip(bare):
        return ip, None
    try:
        return read_inet(text, "")
    except Invalid:
        return None


class Inet:
    """An IP address and a port."""

    expected = 'an address and port like "10.0.0.1:8080" or "[2001:db8::1]:8080"'

    def read(self, value: object) -> InetAddress:
        return read_inet(read_text(value, self.expected), self.expected)

    def write(self, value: InetAddress) -> str:
        return quoted(str(value))


HOST_NAME = r"(?!.{254})(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*"


class InetOrHost:
    """Where a node is: an IP address, or a host name, and a port."""

    expected = 'an address or host name and port like "10.0.0.1:8080" or "app.internal:8080"'

    def read(self, value: object) -> InetAddress | HostAddress:
        text = read_text(value, self.expected)
        host, colon, port = text.partition(":")
        name = host.lower().removesuffix(".")
        # What ends in a number is a wrong address and no name (RFC 1123 2.1).
        # And "unix:/run/node.sock" is neither.
        number = re.fullmatch(r"(.*\.)?[0-9]+", name)
        if number or not re.fullmatch(HOST_NAME, name) or "/" in port:
            return read_inet(text, self.expected)
        if not colon:
            raise Invalid(errors.NO_PORT, found=text, expected=self.expected)
        if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
            raise Invalid(errors.BAD_PORT, found=text, port=port)
        return HostAddress(name, int(port))

    def write(self, value: InetAddress | HostAddress) -> str:
        return quoted(str(value))


class Listen:
    """An address to listen on."""

    expected = 'an address like "0.0.0.0:80", "[::]:80" or "unix:/run/fastlb/web.sock"'

    def read(self, value: object) -> InetAddress | UnixAddress:
        text = read_text(value, self.expected)
        if not text.startswith("unix:"):
            return read_inet(text, self.expected)
        path = text.removeprefix("unix:")
        if not path.startswith("/") or "\0" in path or len(path.encode()) > UNIX_PATH_BYTES_MAX:
            raise Invalid(
                errors.BAD_ADDRESS,
                found=text,
                expected=f"an absolute path of at most {UNIX_PATH_BYTES_MAX} bytes",
            )
        return UnixAddress(path)

    def write(self, value: InetAddress | UnixAddress) -> str:
        return quoted(str(value))


class Networks:
    """One network in CIDR notation; a single address is its own network."""

    expected = 'a network like "10.0.0.0/8" or "2001:db8::/32"'

    def read(self, value: object) -> Network:
        text = read_text(value, self.expected)
        try:
            return ipaddress.ip_network(text)
        except ValueError:
            raise Invalid(
                errors.BAD_NETWORK, found=text, expected=self.expected, suggestion=_masked(text)
            ) from None

    def write(self, value: Network) -> str:
        return quoted(str(value))


def _masked(text: str) -> str:
    """10.0.0.1/8 has host bits set; 10.0.0.0/8 was meant."""
    try:
        return f' (did you mean "{ipaddress.ip_network(text, strict=False)}"?)'
    except ValueError:
        return ""


class Pattern:
    """A string of a given shape."""

    def __init__(self, pattern: str, expected: str) -> None:
        self.pattern, self.expected = re.compile(pattern), expected

    def read(self, value: object) -> str:
        text = read_text(value, self.expected)
        if not self.pattern.fullmatch(text):
            raise Invalid(errors.BAD_TEXT, found=text, expected=self.expected)
        return text

    def write(self, value: str) -> str:
        return quoted(value)


TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # RFC 9110 5.6.2
QUERY_NAME = r'[!"$%\'-<>-~]+'  # what may stand in a target, without "&" and "="


class Url:
    """A path, or an http(s) URL: a host without user, perhaps a port, and what follows."""

    bytes_max = 2000
    shape = re.compile(
        r"/(?!/)[!-\[\]-~]*"
        r"|https?://(?:\[(?P<ip>[0-9A-Fa-f:.]+)\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?"
        r"(?:[/?#][!-\[\]-~]*)?"
    )

    def __init__(self, expected: str) -> None:
        self.expected = expected

    def read(self, value: object) -> str:
        text = read_text(value, self.expected)
        match = self.shape.fullmatch(text)
        if match is None or len(text) > self.bytes_max or not self._reachable(match):
            raise Invalid(errors.BAD_TEXT, found=text, expected=self.expected)
        return text

    def write(self, value: str) -> str:
        return quoted(value)

    @staticmethod
    def _reachable(match: re.Match[str]) -> bool:
        ip = read_ip(match["ip"]) if match["ip"] else None
        port = int(match["port"]) if match["port"] else 80
        return (ip is not None or not match["ip"]) and 1 <= port <= 65535


KEY_PARTS_MAX = 16  # each is read on every request
BOTH = "source+destination"


class Key:
    """A session key: one place, or a list of places that are joined."""

    def __init__(self, *kinds: str, many: bool = True) -> None:
        self.kinds, self.many = kinds, many
        samples = {"header": "header:X-User", "cookie": "cookie:SID", "query": "query:sid"}
        samples["path"] = "path:2"
        shown = [quoted(samples.get(kind, kind)) for kind in kinds]
        self.expected = ", ".join(shown[:-1]) + f" or {shown[-1]}"
        if many:
            self.expected += ", or a list of them"

    def read(self, value: object) -> tuple[KeyPart, ...]:
        parts = value if isinstance(value, list) and value and self.many else [value]
        read: list[KeyPart] = []
        for part in parts:
            text = read_text(part, self.expected)
            both = BOTH.split("+") if text == BOTH else (text,)
            read += [self._part(one, text) for one in both]
        if len(read) > KEY_PARTS_MAX:
            found, expected = f"a key of {len(read)} parts", f"at most {KEY_PARTS_MAX}"
            raise Invalid(errors.OUT_OF_RANGE, found=found, expected=expected)
        return tuple(read)

    def _part(self, text: str, found: str) -> KeyPart:
        kind, colon, name = text.partition(":")
        shapes = {"header": TOKEN, "cookie": TOKEN, "query": QUERY_NAME}
        shapes["path"] = "[1-9][0-9]?"
        known = kind in self.kinds or (kind == "destination" and found in self.kinds)
        if not known or bool(colon) != (kind in shapes):
            suggestion = errors.did_you_mean(text, [k for k in self.kinds if k not in shapes])
            raise Invalid(
                errors.BAD_KEY_SOURCE,
                found=found,
                expected=self.expected,
                suggestion=suggestion,
            )
        if colon and not re.fullmatch(shapes[kind], name):
            raise Invalid(errors.BAD_KEY_SOURCE, found=found, expected=self.expected, suggestion="")
        return KeyPart(kind, name)  # type: ignore[arg-type]

    def write(self, value: tuple[KeyPart, ...]) -> str:
        texts = [quoted(text) for text in self._texts(value)]
        return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"

    @staticmethod
    def _texts(value: tuple[KeyPart, ...]) -> list[str]:
        """The parts as read: a destination stands behind its source, as one word."""
        texts: list[str] = []
        for part in value:
            if part.kind == "destination":
                texts[-1] = BOTH
            else:
                texts.append(str(part))
        return texts


class FilePath:
    """A file; the reader of the file makes it relative to the configuration's directory."""

    expected = "the path of a file"

    def read(self, value: object) -> Path:
        text = read_text(value, self.expected)
        if not text or "\0" in text:
            raise Invalid(errors.BAD_TEXT, found=text, expected=self.expected)
        return Path(text)

    def write(self, value: Path) -> str:
        return quoted(str(value))


class Computed:
    """A form whose default is worked out on the machine and described by `words`."""

    def __init__(self, form: Form, words: str) -> None:
        self.form, self.words = form, words

    @property
    def expected(self) -> str:
        return self.form.expected

    def read(self, value: object) -> Any:
        return self.form.read(value)

    def write(self, value: object) -> str:
        return self.words


class Workers:
    """A count of workers, or "auto"."""

    def __init__(self, most: int, auto: Callable[[], int]) -> None:
        self.most, self.auto = most, auto
        self.expected = f'"auto" or a whole number from 1 to {most}'

    def read(self, value: object) -> int:
        if value == "auto":
            return self.auto()
        if type(value) is not int:
            raise Invalid(
                errors.WRONG_TYPE,
                found=found_kind(value),
                expected=self.expected,
                suggestion=errors.did_you_mean(str(value), ["auto"]),
            )
        if not 1 <= value <= self.most:
            raise Invalid(errors.OUT_OF_RANGE, found=value, expected=self.expected)
        return value

    def write(self, value: int) -> str:
        return str(value)
