"""From a persistence class of the configuration to its row in the plan (PlanClass of plan.pxd).

One function per method says what is special to it; what several share is told by the class's
kind: a session cache, an inserted cookie, a declared key.
"""

from dataclasses import dataclass, field
from typing import Any

from fastlb._core.plan import CLASS_FLAGS
from fastlb.class_id import class_hex
from fastlb.config import (
    AppCookieClass,
    AspClass,
    CacheClass,
    Config,
    CookieClass,
    CookieInsertClass,
    HashClass,
    IpClass,
    J2eeClass,
    PersistenceClass,
    SslClass,
    UniversalClass,
    XZeusClass,
)
from fastlb.cookie_tail import cookie_tail, follows, writes_expires
from fastlb.passphrases import Keys
from fastlb.segment import TICK_MS
from fastlb.slots import Slots
from fastlb.units import KeyPart
from fastlb.uses import classes_of, cookie_names_of, pools_of

Region = tuple[int, int]  # offset and bytes in the segment
Values = dict[str, Any]  # of PlanBuilder.add_class

LEARNING = ("j2ee", "asp", "ssl")  # types whose keys the nodes name, whatever is configured


@dataclass
class Place:
    """Where in shared memory, and under which numbers, a plan finds what changes at run time."""

    slots: Slots
    node_table: int  # offset in the segment
    epoch_ms: int
    caches: dict[str, Region] = field(default_factory=dict)  # by class
    reservations: dict[str, Region] = field(default_factory=dict)
    passphrases: dict[str, list[Keys]] = field(default_factory=dict)  # by class
    shared: Region = (0, 0)  # tables that rules share


def class_values(cfg: Config, name: str, place: Place) -> Values:
    """The arguments of PlanBuilder.add_class for one class."""
    cls = cfg.persistence[name]
    indices = {other: index for index, other in enumerate(cfg.persistence)}
    values: Values = {
        "name": name,
        "id": int.from_bytes(bytes.fromhex(class_hex(name)), "big"),
        "slot": place.slots.classes.used[name],
        "type": cls.type,
        "fallback": -1 if cls.fallback is None else indices[cls.fallback],
        "failure_mode": cls.failure_mode,
        "redirect_url": cls.redirect_url or "",
    }
    flags = {"delete_on_failure"} if cls.delete_on_failure else set()
    if isinstance(cls, CacheClass):
        flags |= _cache(cls, name, place, values)
    if isinstance(cls, CookieClass):
        flags |= _cookie(cfg, cls, name, place, values)
    if isinstance(cls, CookieInsertClass) and cls.passphrase_file is not None:
        values["passphrases"] = place.passphrases[name]
    flags |= _method(cls, values)
    return values | {"flags": sum(CLASS_FLAGS[flag] for flag in flags)}


def _cache(cls: CacheClass, name: str, place: Place, values: Values) -> set[str]:
    values |= {"cache": place.caches[name], "expiry_ticks": ticks(cls.expiry_ms)}
    return {"has_cache"} | ({"learns"} if cls.type in LEARNING else set())


def _cookie(cfg: Config, cls: CookieClass, name: str, place: Place, values: Values) -> set[str]:
    values |= {
        "timeout_s": seconds(cls.timeout_ms),
        "max_lifetime_s": seconds(cls.max_lifetime_ms),
        "cookie_names": cookie_names(cfg, name),
        "cookie_tail": cookie_tail(cls, _is_secure(cfg, name)),
    }
    if cls.reserve_ms:
        values["reserve_ticks"] = ticks(cls.reserve_ms)
        values["reservations"] = place.reservations[name]
    options = ("every_response", "hide_cookie", "protect_cache", "preserve", "reissue")
    flags = {"inserts_cookie"} | {option for option in options if getattr(cls, option)}
    return flags | {f"follows_{attribute}" for attribute in follows(cls)}


def _method(cls: PersistenceClass, values: Values) -> set[str]:
    """What only this type has; returns its flags."""
    match cls:
        case IpClass():
            values |= {"ipv4_bits": cls.ipv4_prefix, "ipv6_bits": cls.ipv6_prefix}
        case UniversalClass():
            values |= {"key": _parts(cls.key), "learn": _parts(cls.learn)}
            return {"learns"} if cls.learn else set()
        case HashClass():
            values["key"] = _parts(cls.on)
        case AppCookieClass() | AspClass():
            values["session_cookie"] = cls.cookie
        case J2eeClass():
            values |= {
                "session_cookie": cls.cookie,
                "session_parameter": cls.parameter,
                "route_separators": cls.route_separators,
            }
        case CookieInsertClass():
            flags = {"writes_expires"} if writes_expires(cls) else set()
            return flags if cls.passphrase_file else flags | {"listed_only"}
        case XZeusClass():
            return {"listed_only"}
        case SslClass():
            return {"keys_granted"}
    return set()


def _parts(parts: tuple[KeyPart, ...]) -> list[tuple[str, str]]:
    return [(part.kind, part.name) for part in parts]


def cookie_names(cfg: Config, name: str) -> list[tuple[str, int]]:
    """Names of the class's cookie, and which virtual server (its index) writes each; -1: all."""
    indices = {server: index for index, server in enumerate(cfg.virtual_servers)}
    return [
        (cookie, -1 if server is None else indices[server])
        for cookie, server in cookie_names_of(cfg, name).items()
    ]


def ticks(ms: int) -> int:
    """Ticks of the session caches, rounded up: 0 stays 0 and nothing else becomes it."""
    return -(-ms // TICK_MS)


def seconds(ms: int) -> int:
    """Whole seconds, rounded up."""
    return -(-ms // 1000)


def _is_secure(cfg: Config, name: str) -> bool:
    """Whether only virtual servers that end TLS use the class."""
    protocols = {
        server.protocol
        for server in cfg.virtual_servers.values()
        if any(name in classes_of(cfg, pool) for pool in pools_of(server))
    }
    return protocols == {"https"}
