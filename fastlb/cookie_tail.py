"""The attributes of an inserted cookie: all that follows its value (RFC 6265 4.1).

The core appends the text as it is to each cookie of the class. Max-Age lets the browser drop
what has ended; the dates inside the value are what decides. The core writes what each cookie has
anew: what it takes over from the application's (followed.pxd), and the date in Expires where the
class writes that instead.
"""

from fastlb.config import AppCookieClass, CookieClass, CookieInsertClass
from fastlb.decode import directive_names

EXPIRES_BYTES = len("; Expires=Sun, 06 Nov 1994 08:49:37 GMT")
SAME_SITE = {"lax": "Lax", "strict": "Strict", "none": "None"}


def cookie_tail(cls: CookieClass, secure: bool) -> str:
    """The text, beginning with "; "; `secure` is what an absent `secure` means."""
    parts = [f"Path={cls.path}"] if cls.path else []
    if cls.domain:
        parts.append(f"Domain={cls.domain}")
    if cls.timeout_ms and not writes_expires(cls):
        ages = [age for age in (cls.timeout_ms, cls.max_lifetime_ms) if age]
        parts.append(f"Max-Age={-(-min(ages) // 1000)}")
    if cls.http_only:
        parts.append("HttpOnly")
    if secure and "secure" not in follows(cls) if cls.secure is None else cls.secure:
        parts.append("Secure")
    if cls.same_site:
        parts.append(f"SameSite={SAME_SITE[cls.same_site]}")
    parts += [part.strip() for part in cls.directives.split(";") if part.strip()]
    return "".join(f"; {part}" for part in parts)


def writes_expires(cls: CookieClass) -> bool:
    """Whether the cookie has a date, computed for each response."""
    return isinstance(cls, CookieInsertClass) and cls.version == 0 and cls.timeout_ms > 0


def follows(cls: CookieClass) -> set[str]:
    """The attributes that the class's cookie takes over from the application's cookie."""
    if not isinstance(cls, AppCookieClass):
        return set()
    written = {
        "path": cls.path is not None,
        "domain": cls.domain is not None,
        "secure": cls.secure is not None,
        "same_site": cls.same_site is not None,
        "age": cls.timeout_ms != 0,
    }
    by_directive = {"samesite": "same_site", "max-age": "age", "expires": "age"}
    for name in directive_names(cls.directives):
        written[by_directive.get(name, name)] = True
    return {attribute for attribute, ours in written.items() if not ours}
