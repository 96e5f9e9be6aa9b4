"""The table: every method in every situation runs, or is one of the reasons below."""

import re

from .methods import METHODS, Method
from .situations import SITUATIONS
from .stage import Situation

Cell = tuple[Method, Situation]

# What must be shown of every method, each as a pattern of the situations that show it.
WANTED = {
    "first request": "first request",
    "repeat": "repeat",
    "other worker": "other worker",
    "keep-alive with many users on one connection": "keep-alive, many users",
    "pipelined": "pipelined",
    "node drained": "node drained",
    "node down × new-node × delete": "node down, new-node, delete",
    "node down × new-node × keep": "node down, new-node, keep",
    "node down × redirect × delete": "node down, redirect, delete",
    "node down × redirect × keep": "node down, redirect, keep",
    "node down × close × delete": "node down, close, delete",
    "node down × close × keep": "node down, close, keep",
    "node removed by reload": "node removed",
    "map expired": "map expired",
    "cache full": "cache full",
    "cookie tampered": "cookie tampered",
    "cookie of another class": "cookie of another class",
    "cookie of another installation": "cookie of another installation",
    "fallback found": "fallback found",
    "two pools with one class": "two pools with one class",
}

NOTHING_STORED = "fastlb stores nothing for it"

# (pattern of methods, pattern of situations) → why there is nothing to tell.
REASONS = {
    ("transparent|cookie-insert.*|cookie|x-zeus|named|hash.*", "cache full"): NOTHING_STORED,
    ("x-zeus|named|hash.*", "map expired"): NOTHING_STORED,
    ("ip|hash, source", "cookie tampered"): "the key is the connection's own address",
    ("x-zeus|named|hash.*", "cookie of another class"): (
        "neither its key nor its node is of a class"
    ),
    ("x-zeus|named", "cookie of another installation"): "the cookie is the application's",
    ("hash, source", "fallback found"): "every client has an address: it always has a node",
    ("hash.*", "two pools with one class"): (
        "there is no map that pools could share: each pool's own nodes are hashed"
    ),
}


def reason(method: Method, situation: Situation) -> str | None:
    """Why a cell does not apply; None: it does."""
    for (methods, situations), why in REASONS.items():
        if re.fullmatch(methods, method.name) and re.fullmatch(situations, situation.name):
            return why
    return None


CELLS: list[Cell] = [
    (method, situation)
    for method in METHODS
    for situation in SITUATIONS
    if reason(method, situation) is None
]
