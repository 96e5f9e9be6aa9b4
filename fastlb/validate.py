"""What must hold between the values of a configuration: references, conflicts, sums.

Each function looks at one relation and reports every breach of it. Single values are already
right, or stand-ins for wrong ones that have been reported (decode.py).
"""

import pwd
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from fastlb import config, errors
from fastlb.class_id import class_hex
from fastlb.config import Config, CookieClass
from fastlb.cookie_tail import EXPIRES_BYTES, cookie_tail, writes_expires
from fastlb.decode import Report, directive_names
from fastlb.error_pages import check_error_pages
from fastlb.passphrases import read_passphrases, why
from fastlb.units import (
    BYTES,
    MILLISECONDS,
    TOKEN,
    HostAddress,
    InetAddress,
    Key,
    KeyPart,
    UnixAddress,
    written_quantity,
)
from fastlb.uses import chain_of, classes_of, cookie_names_of, pools_of, rules_of, uses_of
from fastlb.validate_monitors import check_monitors
from fastlb.validate_protocols import check_protocols

PLACEHOLDER = "%{path}"
X_ZEUS_COOKIE = "X-Zeus-Backend"
NOUNS = {
    "pools": "pool",
    "persistence": "persistence class",
    "monitors": "monitor",
}


def validate(cfg: Config, document: dict[str, Any], report: Report) -> None:
    """Reports everything that does not hold in `cfg`, which was read from `document`."""
    names = {kind: list(_table(document, kind)) for kind in (*NOUNS, "virtual_servers")}
    if not names["virtual_servers"]:
        report(errors.NO_VIRTUAL_SERVER, ())
    _references(cfg, names, report)
    _listening(cfg, report)
    _nodes(cfg, document, report)
    _fallbacks(cfg, report)
    check_protocols(cfg, document, report)
    check_monitors(cfg, document, report)
    _named(cfg, report)
    _rules(cfg, report)
    _keys(cfg, document, report)
    _failure_modes(cfg, document, report)
    _placeholders(cfg, report)
    _cookies(cfg, report)
    _deprecated(cfg, report)
    _cookie_names(cfg, report)
    _session_cookies(cfg, report)
    _cookie_prefixes(cfg, report)
    _cookie_lengths(cfg, report)
    _passphrases(cfg, report)
    check_error_pages(cfg, report)
    _passive(cfg, report)
    _limits(cfg, report)
    _counts(cfg, report)
    _user(cfg, report)


def _table(document: dict[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _references(cfg: Config, names: dict[str, list[str]], report: Report) -> None:
    def look(kind: str, name: str | None, *path: str | int) -> None:
        if not name or name in names[kind]:
            return
        known = names[kind]
        expected = f"one of {', '.join(known)}" if known else f"a table [{kind}.{name}]"
        report(
            errors.UNKNOWN_REFERENCE,
            path,
            noun=NOUNS[kind],
            found=name,
            expected=expected,
            suggestion=errors.did_you_mean(name, known),
        )

    for name, server in cfg.virtual_servers.items():
        look("pools", server.pool, "virtual_servers", name, "pool")
        for index, route in enumerate(server.routes):
            look("pools", route.pool, "virtual_servers", name, "routes", index, "pool")
    for name, pool in cfg.pools.items():
        look("persistence", pool.persistence, "pools", name, "persistence")
        for index, monitor in enumerate(pool.monitors):
            look("monitors", monitor, "pools", name, "monitors", index)
    for name, cls in cfg.persistence.items():
        look("persistence", cls.fallback, "persistence", name, "fallback")


def unused(cfg: Config, report: Report) -> None:
    """Warns of what nothing refers to; only worth saying when every reference is right."""
    if any(server.rules for server in cfg.virtual_servers.values()):
        return  # a rule may choose any pool and class
    pools = {pool for server in cfg.virtual_servers.values() for pool in pools_of(server)}
    classes = {name for pool in cfg.pools for name in classes_of(cfg, pool)}
    monitors = {name for pool in cfg.pools.values() for name in pool.monitors}
    for kind, used, by in (
        ("pools", pools, "virtual server"),
        ("persistence", classes, "pool"),
        ("monitors", monitors, "pool"),
    ):
        for name in getattr(cfg, kind):
            if name not in used:
                report(errors.UNUSED, (kind, name), by=by)


def _listening(cfg: Config, report: Report) -> None:
    taken: list[tuple[InetAddress | UnixAddress, str]] = []
    for name, server in cfg.virtual_servers.items():
        for index, address in enumerate(server.listen):
            path = ("virtual_servers", name, "listen", index)
            for other, owner in taken:
                if not _same_socket(address, other):
                    continue
                if owner == name and address == other:
                    report(errors.LISTEN_TWICE, path, found=address)
                else:
                    report(errors.LISTEN_CONFLICT, path, found=address, other=other, name=owner)
                break
            taken.append((address, name))


def _same_socket(a: InetAddress | UnixAddress, b: InetAddress | UnixAddress) -> bool:
    """Whether the second of two listening addresses takes connections of the first."""
    if isinstance(a, UnixAddress) or isinstance(b, UnixAddress):
        return a == b
    if a.port != b.port or a.ip.version != b.ip.version:
        return False
    return a.ip == b.ip or a.ip.is_unspecified or b.ip.is_unspecified


def _nodes(cfg: Config, document: dict[str, Any], report: Report) -> None:
    total = 0
    for name, pool in cfg.pools.items():
        total += len(pool.nodes)
        seen: set[InetAddress | HostAddress] = set()
        for index, node in enumerate(pool.nodes):
            if node.address in seen:
                report(errors.NODE_TWICE, ("pools", name, "nodes", index), found=node.address)
            seen.add(node.address)
        if _table(document, "pools")[name].get("nodes") == []:
            report(errors.NO_NODES, ("pools", name, "nodes"))
        elif pool.nodes and all(node.weight == 0 or node.draining for node in pool.nodes):
            report(errors.NO_NEW_SESSIONS, ("pools", name, "nodes"))
    if total > config.NODES_MAX:
        report(errors.TOO_MANY_NODES, ("pools",), found=total, expected=config.NODES_MAX)


def _fallbacks(cfg: Config, report: Report) -> None:
    in_cycle: set[str] = set()
    for start, cls in cfg.persistence.items():
        if cls.fallback and _always_hashed(cfg, start):
            report(errors.FALLBACK_NOT_ASKED, ("persistence", start, "fallback"), type=cls.type)
        if hashed := _unremembered_hash(cfg, start):
            report(errors.HASH_BEHIND_COOKIE, ("persistence", start, "fallback"), found=hashed)
        chain = [start]
        while (following := cfg.persistence[chain[-1]].fallback) in cfg.persistence:
            if following in chain:
                break
            chain.append(following)
        if following == start and start not in in_cycle:
            in_cycle.update(chain)
            shown = " -> ".join([*chain, start])
            report(errors.FALLBACK_CYCLE, ("persistence", start, "fallback"), chain=shown)


def _always_hashed(cfg: Config, name: str) -> bool:
    """Whether each request has what the class hashes. Behind a unix socket there are no
    addresses, and a client of HTTP/1.0 need not name a host."""
    cls = cfg.persistence[name]
    if not isinstance(cls, config.HashClass):
        return False
    listen = [cfg.virtual_servers[used].listen for other, used, _ in uses_of(cfg) if other == name]
    unix = any(isinstance(address, UnixAddress) for addresses in listen for address in addresses)
    return not unix and all(part.kind in ("source", "destination") for part in cls.on)


def _unremembered_hash(cfg: Config, name: str) -> str | None:
    """The hash that places the clients who lost the class's cookie, when nothing else has found
    their sessions before."""
    cls = cfg.persistence[name]
    if not isinstance(cls, CookieClass) or cls.reissue:
        return None
    for behind in chain_of(cfg, name)[1:]:
        if isinstance(cfg.persistence[behind], config.CacheClass):
            return None
        if isinstance(cfg.persistence[behind], config.HashClass):
            return behind
    return None


def _keys(cfg: Config, document: dict[str, Any], report: Report) -> None:
    for name, cls in cfg.persistence.items():
        if isinstance(cls, config.UniversalClass) and cls.learn and not _may_be_learned(cls.key):
            path = ("persistence", name, "learn")
            report(errors.LEARN_NEEDS_ONE_VALUE, path, found=Key(*config.KEY_KINDS).write(cls.key))
        elif isinstance(cls, config.UniversalClass) and _learns_elsewhere(cls):
            path, shown = ("persistence", name, "learn"), Key(*config.KEY_KINDS).write(cls.key)
            report(errors.LEARNED_ELSEWHERE, path, found=cls.learn[0], key=shown)
    for name, server in dict.fromkeys((name, server) for name, server, _ in uses_of(cfg)):
        cls, written = cfg.persistence[name], _table(document, "persistence")[name]
        unset = isinstance(cls, config.UniversalClass) and "key" not in written
        if unset and not cfg.virtual_servers[server].rules:
            report(errors.KEY_NEVER_SET, ("persistence", name), name=server)


def _learns_elsewhere(cls: config.UniversalClass) -> bool:
    """Whether it learns one cookie and looks for another: no browser sends one for the other."""
    places = *cls.key, *cls.learn
    return [part.kind for part in places] == ["cookie", "cookie"] and places[0] != places[1]


def _may_be_learned(key: tuple[KeyPart, ...]) -> bool:
    """Whether a response can name it; an empty one is a rule's affair."""
    texts = ("header", "cookie", "query", "path")
    return not key or (len(key) == 1 and key[0].kind in texts)


def _named(cfg: Config, report: Report) -> None:
    """Nodes that rules name: which are allowed, and whether there is any rule."""
    for name, pool in cfg.pools.items():
        if pool.allow_named == "any" and not pool.allow_named_networks:
            report(errors.NAMED_WITHOUT_NETWORKS, ("pools", name, "allow_named"))
        if pool.allow_named != "any" and pool.allow_named_networks:
            report(errors.NETWORKS_WITHOUT_NAMED, ("pools", name, "allow_named_networks"))
    ruled = {name: False for name, _, _ in uses_of(cfg) if cfg.persistence[name].type == "named"}
    for name, server, _ in uses_of(cfg):
        if name in ruled and cfg.virtual_servers[server].rules:
            ruled[name] = True
    for name, has_rules in ruled.items():
        if not has_rules:
            report(errors.NAMED_BY_NOBODY, ("persistence", name, "type"))


def _rules(cfg: Config, report: Report) -> None:
    for name, server in cfg.virtual_servers.items():
        for index, rule in enumerate(server.rules):
            if rule in server.rules[:index]:
                report(errors.RULE_TWICE, ("virtual_servers", name, "rules", index), found=rule)


def _placeholders(cfg: Config, report: Report) -> None:
    """What stands for a part of the request in redirect_url."""
    for name, cls in cfg.persistence.items():
        path = ("persistence", name, "redirect_url")
        url, _, fragment = (cls.redirect_url or "").partition("#")
        before = url.partition("?")[0]
        for found in re.findall(r"%\{[^}]*\}?", cls.redirect_url or ""):
            if found != PLACEHOLDER:
                suggestion = errors.did_you_mean(found, [PLACEHOLDER])
                report(errors.UNKNOWN_PLACEHOLDER, path, found=found, suggestion=suggestion)
        if PLACEHOLDER in before or PLACEHOLDER in fragment:
            report(errors.PLACEHOLDER_OUTSIDE_QUERY, path)


def _failure_modes(cfg: Config, document: dict[str, Any], report: Report) -> None:
    for name, cls in cfg.persistence.items():
        written = _table(document, "persistence")[name]
        if cls.failure_mode == "redirect" and "redirect_url" not in written:
            report(errors.REDIRECT_WITHOUT_URL, ("persistence", name, "failure_mode"))
        if cls.failure_mode != "redirect" and cls.redirect_url:
            report(errors.REDIRECT_URL_UNUSED, ("persistence", name, "redirect_url"))


def _cookies(cfg: Config, report: Report) -> None:
    plain = {name for name, server, _ in uses_of(cfg) if _plain_http(cfg, server)}
    for name, cls in cfg.persistence.items():
        if not isinstance(cls, CookieClass):
            continue
        path = ("persistence", name)
        secure = cls.secure or "secure" in directive_names(cls.directives)
        if cls.same_site == "none" and not secure and (cls.secure is False or name in plain):
            report(errors.SAME_SITE_NEEDS_SECURE, (*path, "same_site"))
        for found, reason in _wrong_directives(cls):
            report(errors.BAD_DIRECTIVE, (*path, "directives"), found=found, reason=reason)
        aged = cls.timeout_ms or cls.max_lifetime_ms
        if isinstance(cls, config.CookieInsertClass) and aged and not cls.passphrase_file:
            key = "timeout" if cls.timeout_ms else "max_lifetime"
            report(errors.COOKIE_AGE_NOT_ENFORCED, (*path, key))


def _deprecated(cfg: Config, report: Report) -> None:
    for name, cls in cfg.persistence.items():
        if isinstance(cls, config.XZeusClass):
            path = ("persistence", name, "type")
            report(errors.TYPE_DEPRECATED, path, type=cls.type, instead='type = "cookie"')


def _plain_http(cfg: Config, server: str) -> bool:
    return cfg.virtual_servers[server].protocol == "http"


def _wrong_directives(cls: CookieClass) -> Iterator[tuple[str, str]]:
    """Each part of `directives` that cannot be appended, and why (RFC 6265 4.1.1)."""
    if not cls.directives:
        return
    ours = {"path": "path" if cls.path else "", "httponly": "http_only" if cls.http_only else ""}
    ours["secure"] = "secure" if cls.secure else ""
    ours["samesite"] = "same_site" if cls.same_site else ""
    ours["domain"] = "domain" if cls.domain else ""
    aged = "timeout" if cls.timeout_ms else "max_lifetime" if cls.max_lifetime_ms else ""
    ours["max-age"] = ours["expires"] = aged
    counts = Counter(part.partition("=")[0].strip().lower() for part in cls.directives.split(";"))
    for part in cls.directives.split(";"):
        shown = f'"{part.strip()}"'
        name, equals, _ = part.strip(" ").partition("=")
        if re.search(r"[\x00-\x1f\x7f]|[^\x00-\x7f]", part):
            yield shown, "it has a character that is not printable ASCII"
        elif not name:
            yield shown, 'nothing between two ";"' if not equals else "it has no name"
        elif not re.fullmatch(TOKEN, name):
            yield shown, "its name is not a token"
        elif key := ours.get(name.lower()):
            yield shown, f'the key "{key}" writes it'
        elif counts[name.lower()] > 1:
            counts[name.lower()] = 0
            yield shown, "it is there twice"


def _cookie_names(cfg: Config, report: Report) -> None:
    hexes: dict[str, str] = {}
    cookies: dict[str, tuple[str, str | None]] = {}  # class, and virtual server
    for name in cfg.persistence:
        if (other := hexes.setdefault(class_hex(name), name)) != name:
            report(
                errors.CLASS_HEX_COLLISION,
                ("persistence", name),
                found=class_hex(name),
                other=other,
            )
            continue
        names = cookie_names_of(cfg, name)
        for cookie, server in names.items():
            other, others_server = cookies.setdefault(cookie, (name, server))
            if other == name:
                continue
            values = {"found": cookie, "other": other}
            if server is None or others_server is None:
                report(errors.SAME_COOKIE_NAME, ("persistence", name, "name"), **values)
            else:
                place = ("persistence", name)
                report(errors.TWO_COOKIES_OF_SERVER, place, server=server, **values)
        if len(names) > config.COOKIE_NAMES_MAX:
            report(
                errors.TOO_MANY_COOKIE_NAMES,
                ("persistence", name),
                found=len(names),
                expected=config.COOKIE_NAMES_MAX,
            )


def _session_cookies(cfg: Config, report: Report) -> None:
    """Inserted cookies that are the application's own for a class beside: fastlb would take that
    one out of requests and responses."""
    together = [chain_of(cfg, name) for name in cfg.persistence]
    for server in cfg.virtual_servers:
        together.append([name for name, used, _ in uses_of(cfg) if used == server])
    beside: dict[str, set[str]] = {name: set() for name in cfg.persistence}
    for group in together:
        for name in group:
            beside[name].update(group)
    for name, cls in cfg.persistence.items():
        others = [one for one in cfg.persistence if one in beside[name]]
        for cookie in cookie_names_of(cfg, name) if isinstance(cls, CookieClass) else ():
            for other in others:
                if _is_session_cookie(cfg.persistence[other], cookie):
                    path = ("persistence", name, "name")
                    report(errors.NAME_OF_SESSION_COOKIE, path, found=cookie, other=other)
                    break


def _is_session_cookie(cls: config.PersistenceClass, cookie: str) -> bool:
    """Whether a class looks for its sessions in the application's cookie of that name."""
    match cls:
        case config.AppCookieClass() | config.J2eeClass():
            return cookie == cls.cookie
        case config.AspClass():
            classic = re.fullmatch("ASPSESSIONID[A-Z]{8}", cookie)
            return cookie == cls.cookie or classic is not None
        case config.XZeusClass():
            return cookie == X_ZEUS_COOKIE
        case config.UniversalClass():
            return KeyPart("cookie", cookie) in (*cls.key, *cls.learn)
        case config.HashClass():
            return KeyPart("cookie", cookie) in cls.on
    return False


def _cookie_prefixes(cfg: Config, report: Report) -> None:
    """What a name's beginning promises to browsers (RFC 6265bis 4.1.3), in any case."""
    plain = {name for name, server, _ in uses_of(cfg) if _plain_http(cfg, server)}
    for name, cls in cfg.persistence.items():
        if not isinstance(cls, CookieClass):
            continue
        extra = directive_names(cls.directives)
        theirs = isinstance(cls, config.AppCookieClass) and cls.secure is None
        secure = cls.secure or "secure" in extra or (cls.secure is None and name not in plain)
        for cookie in cookie_names_of(cfg, name):
            host = cookie.lower().startswith("__host-")
            place, found = ("persistence", name), {"found": cookie}
            promised = host or cookie.lower().startswith("__secure-")
            if promised and not (secure or theirs):
                reason = "without secure = true"
                report(errors.COOKIE_PREFIX, (*place, "name"), **found, reason=reason)
            if host and (cls.domain or "domain" in extra):
                key = "domain" if cls.domain else "directives"
                report(errors.COOKIE_PREFIX, (*place, key), **found, reason="with Domain")
            if host and cls.path not in (None, "/"):
                reason = 'with another path than "/"'
                report(errors.COOKIE_PREFIX, (*place, "path"), **found, reason=reason)


def _cookie_lengths(cfg: Config, report: Report) -> None:
    for name, cls in cfg.persistence.items():
        if isinstance(cls, CookieClass):
            longest_name = max(map(len, cookie_names_of(cfg, name)), default=0)
            count = longest_name + len(cookie_tail(cls, True).encode())
            count += EXPIRES_BYTES if writes_expires(cls) else 0
            if count > config.COOKIE_BYTES_MAX:
                longest = max(("cookie_name", "path", "domain", "directives"), key=_length_in(cls))
                report(
                    errors.COOKIE_TOO_LONG,
                    ("persistence", name, "name" if longest == "cookie_name" else longest),
                    found=count,
                    expected=config.COOKIE_BYTES_MAX,
                )


def _passphrases(cfg: Config, report: Report) -> None:
    for name, cls in cfg.persistence.items():
        if not isinstance(cls, config.CookieInsertClass) or cls.passphrase_file is None:
            continue
        place = ("persistence", name, "passphrase_file")
        file = cls.passphrase_file
        try:
            doubts = read_passphrases(file).doubts
        except (OSError, ValueError) as error:
            report(errors.PASSPHRASE_FILE, place, file=file, reason=why(error))
            continue
        for message, values in doubts:
            report(message, place, file=file, **values)


def _passive(cfg: Config, report: Report) -> None:
    for name, pool in cfg.pools.items():
        passive = pool.passive
        if passive.backoff_max_ms < passive.backoff_ms:
            place = ("pools", name, "passive", "backoff_max")
            most, least = (
                written_quantity(one, MILLISECONDS)
                for one in (passive.backoff_max_ms, passive.backoff_ms)
            )
            report(errors.BACKOFF_SHRINKS, place, found=f'"{most}"', least=f'"{least}"')


def _length_in(cls: CookieClass) -> Callable[[str], int]:
    return lambda key: len(getattr(cls, key) or "")


def _counts(cfg: Config, report: Report) -> None:
    """What the core's tables have room for."""
    listeners = sum(len(server.listen) for server in cfg.virtual_servers.values())
    for table, found, things, most in (
        ("virtual_servers", len(cfg.virtual_servers), "tables", config.VIRTUAL_SERVERS_MAX),
        ("virtual_servers", listeners, "addresses to listen on", config.LISTENERS_MAX),
        ("persistence", len(cfg.persistence), "tables", config.CLASSES_MAX),
        ("pools", len(cfg.pools), "tables", config.NODES_MAX),
        ("virtual_servers", len(rules_of(cfg)), "rules", config.RULES_MAX),
    ):
        if found > most:
            report(errors.TOO_MANY, (table,), found=found, things=things, expected=most)
    _depths(cfg, report)


def _depths(cfg: Config, report: Report) -> None:
    """Chains that are too long; a rule may choose a class that no pool names."""
    named = {pool.persistence for pool in cfg.pools.values()}
    behind = {cls.fallback for cls in cfg.persistence.values()}
    chains: dict[tuple[str, ...], list[str]] = {
        ("pools", pool, "persistence"): classes_of(cfg, pool) for pool in cfg.pools
    }
    for name in cfg.persistence:
        if name not in named and name not in behind:
            chains["persistence", name, "fallback"] = chain_of(cfg, name)
    for path, chain in chains.items():
        if len(chain) > config.FALLBACK_DEPTH_MAX:
            report(
                errors.FALLBACKS_TOO_DEEP,
                path,
                found=len(chain),
                chain=" -> ".join(chain),
                expected=config.FALLBACK_DEPTH_MAX,
            )


def _limits(cfg: Config, report: Report) -> None:
    head = cfg.limits.request_line_bytes + cfg.limits.headers_bytes
    if head > config.HEAD_BYTES_MAX:
        found, expected = (written_quantity(n, BYTES) for n in (head, config.HEAD_BYTES_MAX))
        report(errors.HEAD_TOO_LARGE, ("limits", "headers"), found=found, expected=expected)


def _user(cfg: Config, report: Report) -> None:
    if cfg.proxy.user is None:
        return
    try:
        pwd.getpwnam(cfg.proxy.user)
    except (KeyError, ValueError):
        report(errors.UNKNOWN_USER, ("proxy", "user"), found=cfg.proxy.user)
