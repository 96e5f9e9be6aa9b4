"""Rules beside a configuration: the project's examples as a user would take them, or a text.

    config = example("canary", stable=[a, b], canary=[c])
    with proxy(config, taken("canary", SHARES={"canary": 20.0})) as p:
        ...

The modules are copied into the folder of the configuration; constants at the top of a module get
the values that a user would write there.
"""

import ast
import contextlib
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .proxy import Proxy
from .settings import ANY_PORT, Config
from .worker import WorkerProcess, worker

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples/rules"


def with_constants(text: str, **values: Any) -> str:
    """The module with other values for names that it assigns at its top level."""
    lines = text.splitlines(keepends=True)
    for node in reversed(ast.parse(text).body):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name in values:
                assert value.end_lineno is not None
                lines[node.lineno - 1 : value.end_lineno] = [f"{name} = {values.pop(name)!r}\n"]
    assert not values, f"the module assigns no {', '.join(values)}"
    return "".join(lines)


def example(name: str, **pools: Any) -> Config:
    """The example's own configuration, with these nodes in its pools, on a free port."""
    config: Config = tomllib.loads((EXAMPLES / f"{name}.toml").read_text())
    assert set(pools) == set(config["pools"]), f"the pools of {name} are {set(config['pools'])}"
    for pool, nodes in pools.items():
        config["pools"][pool]["nodes"] = list(nodes)
    for server in config["virtual_servers"].values():
        server["listen"] = [ANY_PORT]
    config.setdefault("timeouts", {})["drain"] = "1s"
    return config


def place(folder: Path, name: str, **constants: Any) -> Path:
    """An example's module in a folder, with other constants."""
    file = folder / f"{name}.py"
    file.write_text(with_constants((EXAMPLES / f"{name}.py").read_text(), **constants))
    return file


def taken(name: str, **constants: Any) -> Callable[[Any, Path], Proxy]:
    """A kind of proxy, for proxy(): one that has all examples beside its configuration, this one
    with other constants."""

    def make(config: Any, folder: Path) -> Proxy:
        for file in EXAMPLES.glob("*.py"):
            shutil.copy(file, folder)
        place(folder, name, **constants)
        return Proxy(config, folder)

    return make


def ruled(**modules: str) -> Callable[[Any, Path], Proxy]:
    """A kind of proxy, for proxy(): one that has these modules, given as texts, beside its
    configuration."""

    def make(config: Any, folder: Path) -> Proxy:
        for name, text in modules.items():
            (folder / f"{name}.py").write_text(text)
        return Proxy(config, folder)

    return make


@contextlib.contextmanager
def ruled_worker(config: Config, **modules: str) -> Iterator[WorkerProcess]:
    """One worker, as worker() makes it, with these modules beside its configuration."""
    with worker(None) as w:
        for name, text in modules.items():
            (w.folder / f"{name}.py").write_text(text)
        w.use(config)
        yield w
