"""From a TOML document to the structs of config.py, each field on its own.

Every wrong key and value is reported, not only the first: what cannot be read is replaced by
its default, so that the rest can still be looked at. Relations between values are validate.py's.
"""

import re
import types
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Meta, structs

from fastlb import config, errors
from fastlb.class_id import class_hex
from fastlb.errors import Invalid, Message
from fastlb.toml_lines import Path
from fastlb.units import found_kind

Report = Callable[..., None]  # (message, path, **values)
T = TypeVar("T", bound=config.Table)

NAME = re.compile(config.NAME_PATTERN)

_WORDS = {bool: "true or false", str: "a string", int: "a whole number"}


def expected_words(hint: Any) -> str:
    """What a field of type `hint` accepts, in words that follow "expected"."""
    base, metadata = unwrapped(hint)
    for extra in metadata:
        if not isinstance(extra, Meta):
            return str(extra.expected)
        if extra.ge is not None:
            return f"a whole number from {extra.ge} to {extra.le}"
    origin = get_origin(base)
    if origin is Literal:
        return f"one of {', '.join(get_args(base))}"
    if origin is tuple:
        return f"a list, each {expected_words(get_args(base)[0])}"
    if isinstance(base, type) and issubclass(base, config.Table):
        short = base.shorthand
        return f'a table, or its "{short}" alone' if short else "a table"
    return "a table" if origin is dict else _WORDS[base]


def unwrapped(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type without Annotated and Optional, and what Annotated added."""
    metadata: tuple[Any, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        metadata = tuple(extras)
    if get_origin(hint) in (Union, types.UnionType):
        present = [arg for arg in get_args(hint) if arg is not type(None)]
        if len(present) == 1 and not metadata:
            return unwrapped(present[0])
    return hint, metadata


class Decoder:
    """Reads one document; `report` hears of everything that is wrong with it."""

    def __init__(self, document: dict[str, Any], file: FilePath, report: Report) -> None:
        self.document = document
        self.file = file
        self.directory = file.absolute().parent
        self.report = report

    def read(self) -> config.Config:
        """The whole file."""
        tables = (f for f in structs.fields(config.Config) if f.name not in config.NO_KEYS)
        fields = {info.name: info for info in tables}
        for key, value in self.document.items():
            if key not in fields:
                self._unknown_at_top(key, value, list(fields))
        values: dict[str, Any] = {"file": self.file, "virtual_servers": {}, "pools": {}}
        for name, info in fields.items():
            if name in self.document:
                value = self._value(info.type, self.document[name], (name,))
                values |= {} if value is None else {name: value}
        limits = self.document.get("limits")
        values["connections_given"] = isinstance(limits, dict) and "max_connections" in limits
        values["proxy"] = self._proxy(values.get("proxy") or config.Proxy())
        return config.Config(**values)

    def _unknown_at_top(self, key: str, value: object, tables: list[str]) -> None:
        if isinstance(value, dict):
            expected = ", ".join(f"[{table}]" for table in tables)
            near = errors.nearest(key, tables)
            suggestion = f" (did you mean [{near}]?)" if near else ""
            self.report(errors.UNKNOWN_TABLE, (key,), expected=expected, suggestion=suggestion)
            return
        owners = [
            f"[{info.name}.NAME]" if get_origin(info.type) is dict else f"[{info.name}]"
            for info in structs.fields(config.Config)
            if any(key in _keys(cls) for cls in _structs_in(info.type))
        ]
        expected = f"it in {' or '.join(owners)}" if owners else "tables only"
        self.report(errors.KEY_OUTSIDE_TABLE, (key,), expected=expected)

    def _proxy(self, proxy: config.Proxy) -> config.Proxy:
        written = self.document.get("proxy")
        if not isinstance(written, dict) or "secret_file" not in written:
            proxy = structs.replace(proxy, secret_file=proxy.state_dir / "secret")
        if proxy.access_log not in ("stdout", "syslog", "off"):
            proxy = structs.replace(proxy, access_log=str(self.directory / proxy.access_log))
        return proxy

    def _table(self, cls: type[T], raw: object, path: Path, extra: str = "") -> T | None:
        """One table; None when it is none, or lacks what nothing can stand in for."""
        if not isinstance(raw, dict):
            self.report(errors.NOT_A_TABLE, path, found=found_kind(raw))
            return None
        keys = _keys(cls)
        for key in raw:
            if key not in keys and key != extra:
                self._unknown_key(cls, key, [extra, *keys] if extra else list(keys), path)
        values = {}
        for key, info in keys.items():
            if key in raw:
                value = self._value(info.type, raw[key], (*path, key))
            elif not info.required:
                continue
            else:
                value = None
                self.report(errors.MISSING_KEY, (*path, key), expected=expected_words(info.type))
            if value is None and info.required:
                value = _empty(info.type)
                if value is None:
                    return None
            if value is not None:
                values[info.name] = value
        return cls(**values)

    def _unknown_key(self, cls: type[T], key: str, known: list[str], path: Path) -> None:
        others = [name for name, other in config.CLASS_TYPES.items() if key in _keys(other)]
        if issubclass(cls, config.PersistenceClass) and others:
            expected = ", ".join(others)
            self.report(errors.KEY_OF_OTHER_TYPE, (*path, key), type=cls.type, expected=expected)
            return
        suggestion = errors.did_you_mean(key, known, "`")
        expected = ", ".join(known)
        self.report(errors.UNKNOWN_KEY, (*path, key), expected=expected, suggestion=suggestion)

    def _value(self, hint: Any, raw: Any, path: Path) -> Any:
        """The value of a field of type `hint`; None when it cannot be read."""
        base, metadata = unwrapped(hint)
        forms = [extra for extra in metadata if not isinstance(extra, Meta)]
        try:
            if forms:
                value = forms[0].read(raw)
                return self.directory / value if isinstance(value, FilePath) else value
            if get_origin(base) is tuple:
                return self._list(get_args(base)[0], raw, path)
            if get_origin(base) is dict:
                return self._named(get_args(base)[1], raw, path)
            if base is config.PersistenceClass:
                return self._persistence(raw, path)
            if isinstance(base, type) and issubclass(base, config.Table):
                if base.shorthand and isinstance(raw, str):
                    raw = {base.shorthand: raw}
                return self._table(base, raw, path)
            return _plain(hint, base, raw, path)
        except Invalid as invalid:
            self.report(invalid.message, path, **invalid.values)
            return None

    def _list(self, hint: Any, raw: object, path: Path) -> tuple[Any, ...] | None:
        elements = raw if isinstance(raw, list) else [raw]
        if isinstance(raw, dict):
            expected = expected_words(tuple[hint, ...])
            raise Invalid(errors.WRONG_TYPE, found="a table", expected=expected, suggestion="")
        values = (
            self._value(hint, element, (*path, index) if isinstance(raw, list) else path)
            for index, element in enumerate(elements)
        )
        return tuple(value for value in values if value is not None)

    def _named(self, hint: Any, raw: object, path: Path) -> dict[str, Any] | None:
        if not isinstance(raw, dict):
            raise Invalid(errors.NOT_A_TABLE, found=found_kind(raw))
        values = {}
        for name, inner in raw.items():
            if not NAME.fullmatch(name):
                self.report(errors.BAD_NAME, (*path, name), found=name)
            values[name] = self._value(hint, inner, (*path, name))
        return {name: value for name, value in values.items() if value is not None}

    def _persistence(self, raw: object, path: Path) -> config.PersistenceClass | None:
        if not isinstance(raw, dict):
            raise Invalid(errors.NOT_A_TABLE, found=found_kind(raw))
        types_ = list(config.CLASS_TYPES)
        if "type" not in raw:
            expected = f"one of {', '.join(types_)}"
            self.report(errors.MISSING_KEY, (*path, "type"), expected=expected)
            return config.PersistenceClass()
        try:
            chosen = _choice(types_, raw["type"], "type")
        except Invalid as invalid:
            self.report(invalid.message, (*path, "type"), **invalid.values)
            return config.PersistenceClass()
        cls = self._table(config.CLASS_TYPES[chosen], raw, path, extra="type")
        return _with_cookie_defaults(cls, str(path[-1]))


def _keys(cls: type[config.Table]) -> dict[str, structs.FieldInfo]:
    return {info.encode_name: info for info in structs.fields(cls)}


def _structs_in(hint: Any) -> list[type[config.Table]]:
    """The structs that a table of type `hint`, or each table in it, may be."""
    base, _ = unwrapped(get_args(hint)[1] if get_origin(hint) is dict else hint)
    if base is config.PersistenceClass:
        return list(config.CLASS_TYPES.values())
    return [base] if isinstance(base, type) and issubclass(base, config.Table) else []


def _empty(hint: Any) -> Any:
    """What stands in for a required value that could not be read; None: nothing can."""
    base, _ = unwrapped(hint)
    if get_origin(base) is tuple:
        return ()
    return "" if base is str or get_origin(base) is Literal else None


def _choice(known: list[str], raw: object, noun: str) -> str:
    if not isinstance(raw, str):
        quoted = ", ".join(f'"{word}"' for word in known)  # of 1.2 and "1.2" one is a number
        raise Invalid(
            errors.WRONG_TYPE, found=found_kind(raw), expected=f"one of {quoted}", suggestion=""
        )
    expected = ", ".join(known)
    if raw not in known:
        suggestion = errors.did_you_mean(raw, known)
        raise Invalid(
            errors.UNKNOWN_CHOICE, noun=noun, found=raw, expected=expected, suggestion=suggestion
        )
    return raw


def _plain(hint: Any, base: Any, raw: object, path: Path) -> Any:
    """A boolean, number, string or one of several words; msgspec knows the types."""
    if get_origin(base) is Literal:
        return _choice(list(get_args(base)), raw, str(path[-1]))
    message: Message = errors.OUT_OF_RANGE
    try:
        msgspec.convert(raw, base)
    except msgspec.ValidationError:
        message = errors.WRONG_TYPE
    try:
        return msgspec.convert(raw, hint)
    except msgspec.ValidationError:
        meant = raw in ("true", "false") and base is bool
        meant = meant or (base is int and isinstance(raw, str) and raw.isdecimal())
        raise Invalid(
            message,
            found=found_kind(raw) if message is errors.WRONG_TYPE else raw,
            expected=expected_words(hint),
            suggestion=f" (did you mean {raw}, without quotes?)" if meant else "",
        ) from None


def directive_names(directives: str) -> set[str]:
    """The names of a cookie's extra directives, in lower case."""
    return {part.partition("=")[0].strip().lower() for part in directives.split(";")} - {""}


def _with_cookie_defaults(
    cls: config.PersistenceClass | None, name: str
) -> config.PersistenceClass | None:
    """The class with what its cookie has where the file does not say otherwise."""
    if not isinstance(cls, config.CookieClass):
        return cls
    if cls.secure is None and "secure" in directive_names(cls.directives):
        cls = structs.replace(cls, secure=False)  # the directives write it
    if cls.cookie_name is None and isinstance(cls, config.TransparentClass):
        return structs.replace(cls, cookie_name=f"X-Mapping-{class_hex(name)}")
    if cls.cookie_name is None and isinstance(cls, config.AppCookieClass):
        return structs.replace(cls, cookie_name=f"K-{cls.cookie}-{class_hex(name)}")
    return cls
