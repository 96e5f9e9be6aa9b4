"""Imports the modules of rules: in a worker that takes a plan, and in `rule_check`.

Modules beside the configuration file come first. They are compiled from their sources each time,
never taken from a cache that goes by dates, and what was compiled is known by its hash: at the
next load, those modules stay, with all they hold, unless one of their files reads differently, or
a file is there now that was missed before. Then all of them are imported afresh, since whoever has
a function of a changed module may have it under any name. Modules from elsewhere stay as they are.
"""

import hashlib
import importlib
import inspect
import sys
import traceback
from collections.abc import Iterable
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple

from fastlb import errors
from fastlb.errors import Message, did_you_mean, printable
from fastlb.rule_mark import ARGUMENTS, Mark, mark_of

OWN = "fastlb"  # stays fastlb's, also where the configuration lies in a checkout of it
# Names that mean the same for everybody: of Python, and of what fastlb itself imports.
TAKEN = {*sys.stdlib_module_names, "OpenSSL", "cffi", "cryptography", "msgspec"}
REASON_CHARS_MAX = 500
COMPILED = ("cython_function_or_method", "builtin_function_or_method")


class RuleLoadError(Exception):
    """A rule that cannot be had, and where that was seen."""

    def __init__(
        self,
        name: str,
        message: Message,
        file: str | None = None,
        line: int | None = None,
        /,
        **values: object,
    ) -> None:
        text = message.text.format(**values)
        where = "".join([file or "", f":{line}" if line else "", ": " if file else ""])
        super().__init__(f"{name}: {where}{text}")
        self.name, self.message, self.file, self.line = name, message, file, line
        self.text = text


class LoadedRule(NamedTuple):
    """One rule, found."""

    name: str
    function: Any
    kind: str
    is_async: bool


class Loaded:
    """The rules of one plan, in the order they were asked for."""

    def __init__(self, rules: list[LoadedRule]) -> None:
        self.rules = rules

    @property
    def functions(self) -> list[Any]:
        return [one.function for one in self.rules]

    def release(self) -> None:
        """The plan is gone; modules that no other plan has go with their last reference."""
        self.rules = []


class Source(SourceFileLoader):
    """Compiles what the file says now."""

    digest = b""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        data = self.get_data(path)
        self.digest = _digest(data)
        code: CodeType = self.source_to_code(data, path)
        return code


class Finder:
    """Finds the modules beside the configuration file; one of sys.meta_path."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.missed: set[str] = set()

    def find_spec(
        self, name: str, path: Iterable[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None and self.folder(name) not in list(path):
            return None
        spec = self.locate(name)
        if spec is None and not _is_own(name):
            self.missed.add(name)
        return spec

    def locate(self, name: str) -> ModuleSpec | None:
        """Where a module is now."""
        if _is_own(name):
            return None
        # A new one each time: it remembers what a directory has as long as that has one date.
        spec = FileFinder(self.folder(name), (Source, SOURCE_SUFFIXES)).find_spec(name)
        return spec if spec is not None and spec.loader is not None else None

    def folder(self, name: str) -> str:
        """Where the file of a module is looked for."""
        return str(Path(self.directory, *name.split(".")[:-1]))

    def modules(self) -> dict[str, ModuleType]:
        """The imported ones."""
        return {name: one for name, one in list(sys.modules.items()) if self._has(name, one)}

    def _has(self, name: str, module: object) -> bool:
        spec = getattr(module, "__spec__", None)
        if not isinstance(spec, ModuleSpec):
            return False
        if isinstance(spec.loader, Source):
            return True
        if spec.origin is not None or _is_own(name):
            return False
        # A folder without __init__.py: it leads to the modules inside.
        return self.folder(f"{name}.x") in list(spec.submodule_search_locations or ())

    def is_changed(self) -> bool:
        """Whether an import would give something else than what is imported."""
        importlib.invalidate_caches()
        for name, module in self.modules().items():
            loader = module.__spec__.loader if module.__spec__ else None
            if isinstance(loader, Source) and not self._is_same(name, loader):
                return True
        return any(self.locate(name) for name in self.missed)

    def hidden(self) -> dict[str, ModuleType]:
        """What was imported from elsewhere and would be found here now."""
        here = {name for name in self.missed if self.locate(name)} - TAKEN
        modules = list(sys.modules.items())
        return {name: one for name, one in modules if name.partition(".")[0] in here}

    def _is_same(self, name: str, loader: Source) -> bool:
        spec = self.locate(name)
        try:
            return (
                spec is not None
                and spec.origin == loader.path
                and _digest(Path(loader.path).read_bytes()) == loader.digest
            )
        except OSError:
            return False


_finder: Finder | None = None


def load(directory: Path | str, names: list[str]) -> Loaded:
    """The rules of these names; raises RuleLoadError, and all modules are as they were."""
    before = _finder
    finder = install(directory)
    modules = finder.modules()
    if finder is not before or finder.is_changed():
        modules |= finder.hidden()
        _forget(modules)
        finder.missed.clear()
    try:
        return Loaded([find(finder, name) for name in names])
    except BaseException:
        _forget(finder.modules())
        sys.modules.update(modules)
        if before is not None and before is not finder:
            _use(before)
        raise


def install(directory: Path | str) -> Finder:
    """Makes imports look into this directory first, from now on."""
    directory = str(Path(directory).absolute())
    if _finder is not None and _finder.directory == directory:
        return _finder
    finder = Finder(directory)
    _use(finder)
    return finder


def find(finder: Finder, name: str) -> LoadedRule:
    """One rule, its module imported if it is not yet; raises RuleLoadError."""
    module_name, _, attribute = name.partition(":")
    module = _import(finder, name, module_name)
    file = getattr(module, "__file__", None)
    if attribute not in vars(module):
        known = [key for key, value in vars(module).items() if mark_of(value) is not None]
        listed = f"its rules are {', '.join(known)}" if known else "it has no rules"
        suggestion = did_you_mean(attribute, known)
        values = {"function": attribute, "suggestion": suggestion, "known": listed}
        raise RuleLoadError(name, errors.RULE_NO_FUNCTION, file, None, **values)
    function = vars(module)[attribute]
    mark = mark_of(function)
    if problem := _problem(function, mark):
        what, expected = problem
        values = {"function": attribute, "what": what, "expected": expected}
        raise RuleLoadError(name, errors.RULE_UNUSABLE, *_place(function, file), **values)
    assert mark is not None
    is_async = mark.is_async or inspect.iscoroutinefunction(function)
    return LoadedRule(name, function, mark.kind, is_async)


def find_check(finder: Finder, name: str) -> Any:
    """The function of a monitor; raises RuleLoadError."""
    module_name, _, attribute = name.partition(":")
    module = _import(finder, name, module_name)
    file = getattr(module, "__file__", None)
    if attribute not in vars(module):
        known = [key for key, value in vars(module).items() if inspect.iscoroutinefunction(value)]
        listed = f"its async functions are {', '.join(known)}" if known else "it has none"
        values = {"suggestion": did_you_mean(attribute, known), "known": listed}
        raise RuleLoadError(name, errors.RULE_NO_FUNCTION, file, None, function=attribute, **values)
    function = vars(module)[attribute]
    expected = "an async function that takes one argument, the node"
    what = ""
    if not inspect.iscoroutinefunction(function):
        plain = inspect.isfunction(function)
        what = "is not async" if plain else f"is of type {type(function).__name__}"
    else:
        try:
            inspect.signature(function).bind("node")
        except TypeError as error:
            what = f"cannot be called so ({_text(error)})"
    if what:
        values = {"function": attribute, "what": what, "expected": expected}
        raise RuleLoadError(name, errors.RULE_UNUSABLE, *_place(function, file), **values)
    return function


# --- functions ----------------------------------------------------------------------------


def _problem(function: object, mark: Mark | None) -> tuple[str, str] | None:
    """What is wrong with it, and what was expected instead."""
    plain = inspect.isfunction(function) or type(function).__name__ in COMPILED
    if not plain:
        article = "a class" if inspect.isclass(function) else f"of type {type(function).__name__}"
        return f"is {article}", "a function marked with @rule.connection, .request or .response"
    if mark is None:
        return "is not marked", "@rule.connection, @rule.request or @rule.response before it"
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        return "is a generator (it has a yield)", "a function that returns"
    wanted = ARGUMENTS[mark.kind]
    shown = f"{mark.kind} rules are called with ({', '.join(wanted)})"
    try:
        inspect.signature(function).bind(*wanted)  # type: ignore[arg-type]
    except TypeError as error:
        return f"does not take these arguments ({_text(error)})", shown
    except ValueError:
        return None  # a compiled one that does not say
    return None


def _place(function: object, file: str | None) -> tuple[str | None, int | None]:
    code = getattr(inspect.unwrap(function) if callable(function) else None, "__code__", None)
    if isinstance(code, CodeType):
        return code.co_filename, code.co_firstlineno
    return file, None


# --- modules ------------------------------------------------------------------------------


def _import(finder: Finder, name: str, module_name: str) -> ModuleType:
    _refuse_taken(finder, name, module_name)
    before = finder.modules()
    try:
        module = importlib.import_module(module_name)
    except BaseException as error:  # whatever a module raises, SystemExit too, is its failure
        raise _import_error(finder, name, module_name, error) from None
    for one in finder.modules().keys() - before.keys():
        _refuse_taken(finder, name, one)
    return module


def _refuse_taken(finder: Finder, name: str, module_name: str) -> None:
    """A file beside the configuration that is named as a module of Python, or one that is loaded
    already: whether it or the other were meant would depend on who imports it first."""
    first = module_name.partition(".")[0]
    spec = finder.locate(first)
    if spec is None:
        return
    loaded = getattr(sys.modules.get(first), "__spec__", None)
    taken = isinstance(loaded, ModuleSpec) and loaded.origin != spec.origin
    if taken or first in TAKEN:
        raise RuleLoadError(name, errors.RULE_NAME_TAKEN, spec.origin, None, module=first)


def _import_error(
    finder: Finder, name: str, module_name: str, error: BaseException
) -> RuleLoadError:
    file, line = _users_place(finder, error)
    if isinstance(error, ModuleNotFoundError):
        if line is None and _is_or_holds(str(error.name), module_name):
            return _missing(finder, name, module_name)
        hint = f"; it is not beside the configuration, nor installed for {sys.executable}"
        hint = did_you_mean(str(error.name), _modules_in(finder.directory)) + hint
    else:
        hint = ""
    if isinstance(error, SystemExit):
        hint = ": it ends the program when it is imported"
    if file is None and (spec := finder.locate(module_name)) is not None:
        file = spec.origin
    reason = f"{type(error).__name__}: {_text(error)}".removesuffix(": ") + hint
    values = {"module": module_name, "reason": reason}
    return RuleLoadError(name, errors.RULE_NOT_IMPORTED, file, line, **values)


def _missing(finder: Finder, name: str, module_name: str) -> RuleLoadError:
    parts = module_name.split(".")
    values = {
        "module": module_name,
        "file": Path(finder.directory, *parts[:-1], f"{parts[-1]}.py"),
        "suggestion": did_you_mean(module_name, _modules_in(finder.directory)),
        "python": sys.executable,
    }
    return RuleLoadError(name, errors.RULE_NO_MODULE, None, None, **values)


def _users_place(finder: Finder, error: BaseException) -> tuple[str | None, int | None]:
    """The line that the user wrote: of a syntax error, else the innermost one beside the
    configuration file."""
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_file():
        return error.filename, error.lineno
    folder = Path(finder.directory)
    place: tuple[str | None, int | None] = (None, None)
    for frame, line in traceback.walk_tb(error.__traceback__):
        loader = frame.f_globals.get("__loader__")
        file = Path(frame.f_code.co_filename)
        if isinstance(loader, Source) or file.parent == folder:
            place = (frame.f_code.co_filename, line)
    return place


def _text(error: BaseException) -> str:
    """An exception's text in one line; one whose text cannot be had has none."""
    try:
        text = error.msg if isinstance(error, SyntaxError) else str(error)
    except BaseException:
        return ""
    return printable(" ".join(str(text).split()))[:REASON_CHARS_MAX]


def _modules_in(directory: str) -> list[str]:
    """What could be imported from there, for suggestions."""
    try:
        found = list(Path(directory).iterdir())
    except OSError:
        return []
    names = [path.stem for path in found if path.suffix == ".py" or (path / "__init__.py").exists()]
    return [name for name in names if name.isidentifier()]


def _is_or_holds(name: str, module_name: str) -> bool:
    return f"{module_name}.".startswith(f"{name}.")


def _is_own(name: str) -> bool:
    return name.partition(".")[0] == OWN


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _forget(names: Iterable[str]) -> None:
    for name in list(names):
        sys.modules.pop(name, None)


def _use(finder: Finder) -> None:
    """Puts it in force, in front of what looks along sys.path."""
    global _finder
    if _finder is not None:
        sys.meta_path.remove(_finder)
        if _finder.directory in sys.path:
            sys.path.remove(_finder.directory)
    _finder = finder
    behind = [i for i, one in enumerate(sys.meta_path) if one is importlib.machinery.PathFinder]
    sys.meta_path.insert(behind[0] if behind else len(sys.meta_path), finder)
    sys.path.insert(0, finder.directory)
