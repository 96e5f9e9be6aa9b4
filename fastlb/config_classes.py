"""The persistence classes of the configuration: one struct per method, as config.py's are."""

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, field

from fastlb.config_table import ClassName, File, Table
from fastlb.units import TOKEN, Duration, Key, KeyPart, Pattern, Url

CookieName = Annotated[
    str, Pattern(TOKEN, "a cookie name: letters, digits and any of !#$%&'*+-.^_`|~ (RFC 6265)")
]
CookiePath = Annotated[
    str | None, Pattern(r"/[!-:<-~]*", 'a path that begins with "/", without ";"')
]
LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"  # RFC 1123 2.1
CookieDomain = Annotated[str | None, Pattern(rf"\.?{LABEL}(\.{LABEL})*", "a domain name")]
SameSite = Literal["lax", "strict", "none"] | None
SessionTimeout = Annotated[int, Duration("1s", "8760h", zero="none")]


class PersistenceClass(Table, frozen=True, kw_only=True):
    """A named configuration of one persistence method; pools may share one."""

    type: ClassVar[str] = ""
    protocols: ClassVar[tuple[str, ...]] = ("http", "https", "tls", "tcp")

    fallback: ClassName = None
    """Another class, asked when this one finds no session."""
    failure_mode: Literal["new-node", "redirect", "close"] = "new-node"
    """What happens when a session's node cannot serve: a `"new-node"` is chosen; a `"redirect"` is
    answered (302 to `redirect_url`); or the connection is told to `"close"` (503)."""
    redirect_url: Annotated[
        str | None,
        Url('a path like "/sorry" or an http(s) URL without user, at most 2,000 characters'),
    ] = None
    """Where `failure_mode = "redirect"` sends the client. `%{path}` in its query, as in
    `"/sorry?from=%{path}"`, becomes the path and query that were asked for, percent-encoded."""
    delete_on_failure: bool = True
    """Whether `"redirect"` and `"close"` forget the session, or keep it for when the node is
    back."""


class CacheClass(PersistenceClass, frozen=True, kw_only=True):
    """A method that remembers its sessions in a session cache."""

    size: Annotated[int, Meta(ge=16, le=16_777_216)] = 32768
    """Session maps in the cache; its memory is allocated once."""
    expiry_ms: Annotated[int, Duration("1s", "8760h", zero="never")] = 1_800_000
    """A map not used for this long is forgotten."""


class CookieClass(PersistenceClass, frozen=True, kw_only=True):
    """A method that remembers its sessions in a cookie that fastlb inserts."""

    protocols: ClassVar[tuple[str, ...]] = ("http", "https")

    cookie_name: CookieName | None = field(name="name", default=None)
    """Name of the inserted cookie; absent: the method's own."""
    timeout_ms: SessionTimeout = 0
    """Idle time after which a session has ended; `"0s"`: none, and a browser-session cookie."""
    max_lifetime_ms: SessionTimeout = 0
    """Age at which a session has ended, used or not; `"0s"`: none."""
    reserve_ms: Annotated[int, Duration("10ms", "1m", zero="off")] = 1000
    """How long after its answer the node chosen for a first request is held for the same client's
    other first requests; `"0s"` switches it off."""
    every_response: bool = False
    """Whether each response sets the cookie, not only those whose request lacked it."""
    http_only: bool = True
    """Write `HttpOnly`: scripts in the page do not see the cookie."""
    secure: bool | None = None
    """Write `Secure`: the browser sends the cookie over TLS only. Absent: on `https`."""
    same_site: SameSite = None
    """Write `SameSite`; absent: it is not written. `"none"` needs `secure`."""
    domain: CookieDomain = None
    """Write `Domain`; absent: the cookie is for the very host only."""
    path: CookiePath = "/"
    """Write `Path`."""
    directives: str = ""
    """More directives, appended as written, like `"Partitioned; Priority=High"`."""
    hide_cookie: bool = True
    """Whether the cookie is taken out of the request before the node sees it."""
    protect_cache: bool = True
    """Whether a response that gets the cookie is kept out of shared caches."""
    preserve: bool = False
    """Whether a Set-Cookie of the same name by a node is passed on and nothing inserted; else it
    is removed."""
    reissue: bool = False
    """Whether a session that a fallback found gets a new cookie of this class."""


class IpClass(CacheClass, frozen=True, kw_only=True):
    """The source address, cut to a prefix."""

    type: ClassVar[str] = "ip"

    ipv4_prefix: Annotated[int, Meta(ge=1, le=32)] = 32
    """Bits of an IPv4 address that count."""
    ipv6_prefix: Annotated[int, Meta(ge=1, le=128)] = 64
    """Bits of an IPv6 address that count."""


KEY_KINDS = ("header", "cookie", "query", "path", "host", "sni", "source")


class UniversalClass(CacheClass, frozen=True, kw_only=True):
    """A key taken from the request, or set by a rule."""

    type: ClassVar[str] = "universal"

    key: Annotated[tuple[KeyPart, ...], Key(*KEY_KINDS)] = ()
    """Where the key is found; a list is joined, and a missing part makes no key. Absent: a rule
    sets it. A rule's key goes before this one."""
    learn: Annotated[tuple[KeyPart, ...], Key("header", "cookie", many=False)] = ()
    """Where a response names the key of a session too; the key that a request brings makes a map
    all the same."""


class NamedClass(PersistenceClass, frozen=True, kw_only=True):
    """A node that a rule names; nothing is remembered."""

    type: ClassVar[str] = "named"


class TransparentClass(CookieClass, frozen=True, kw_only=True):
    """A cookie `X-Mapping-<8 hex digits of the class>` with an authenticated token."""

    type: ClassVar[str] = "transparent"


class CookieInsertClass(CookieClass, frozen=True, kw_only=True):
    """A cookie `NSC_<id of the virtual server>` with the node's address and port, as the NetScaler
    appliance writes it. `name` makes it one name for all virtual servers."""

    type: ClassVar[str] = "cookie-insert"

    version: Annotated[int, Meta(ge=0, le=1)] = 1
    """0 writes `Expires`, 1 writes `Max-Age`; with `timeout = "0s"` neither is written."""
    passphrase_file: File | None = None
    """Passphrases, one per line: the first encrypts, all decrypt; lines that begin with `#` are
    comments. A reload reads the file again. Absent: no encryption."""


class AppCookieClass(CookieClass, frozen=True, kw_only=True):
    """The application's own cookie, with `K-<its name>-<8 hex digits>` beside it."""

    type: ClassVar[str] = "cookie"

    cookie: CookieName
    """Name of the application's session cookie."""
    path: CookiePath = None
    """Write `Path`; absent: the one of the application's cookie."""
    domain: CookieDomain = None
    """Write `Domain`; absent: the one of the application's cookie, if it has one."""
    secure: bool | None = None
    """Write `Secure`; absent: if the application's cookie has it."""
    same_site: SameSite = None
    """Write `SameSite`; absent: the one of the application's cookie, if it has one."""


class J2eeClass(CacheClass, frozen=True, kw_only=True):
    """The cookie `JSESSIONID`, else `;jsessionid=…` in the path."""

    type: ClassVar[str] = "j2ee"
    protocols: ClassVar[tuple[str, ...]] = ("http", "https")

    cookie: CookieName = "JSESSIONID"
    """Name of the container's session cookie."""
    parameter: Annotated[
        str,
        Pattern(r"[A-Za-z0-9._~!$&'()*+,:@-]+", 'the name of a path parameter, like "jsessionid"'),
    ] = "jsessionid"
    """Name of the path parameter that carries the id where there is no cookie."""
    route_separators: Annotated[
        str, Pattern(r"[!-/:-@\[-`{-~]*", "punctuation characters, each a separator")
    ] = ".!:"
    """The id ends before the first of these; what follows is the container's routing."""


class AspClass(CacheClass, frozen=True, kw_only=True):
    """The cookies `ASPSESSIONID…` and `ASP.NET_SessionId`, else `/(S(…))/` in the path."""

    type: ClassVar[str] = "asp"
    protocols: ClassVar[tuple[str, ...]] = ("http", "https")

    cookie: CookieName = "ASP.NET_SessionId"
    """Name of the session cookie of ASP.NET; the names of classic ASP are fixed."""


class XZeusClass(PersistenceClass, frozen=True, kw_only=True):
    """The cookie `X-Zeus-Backend`, by which the application names the node."""

    type: ClassVar[str] = "x-zeus"
    protocols: ClassVar[tuple[str, ...]] = ("http", "https")


class SslClass(CacheClass, frozen=True, kw_only=True):
    """The TLS session id, or the session ticket of TLS 1.2."""

    type: ClassVar[str] = "ssl"
    protocols: ClassVar[tuple[str, ...]] = ("tls",)


class HashClass(PersistenceClass, frozen=True, kw_only=True):
    """A consistent hash; nothing is remembered."""

    type: ClassVar[str] = "hash"

    on: Annotated[tuple[KeyPart, ...], Key(*KEY_KINDS, "source+destination")] = (
        KeyPart("source", ""),
    )
    """What is hashed: a missing part makes no key, and a key that a rule sets goes before this."""


CLASS_TYPES: dict[str, type[PersistenceClass]] = {
    cls.type: cls
    for cls in (
        IpClass,
        UniversalClass,
        NamedClass,
        TransparentClass,
        CookieInsertClass,
        AppCookieClass,
        J2eeClass,
        AspClass,
        XZeusClass,
        SslClass,
        HashClass,
    )
}
