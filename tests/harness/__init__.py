"""The words in which the end-to-end tests are told: node, client, proxy."""

from .client import Client, User, curl, httpx_client
from .full import CountingNode
from .node import Exchange, HttpNode, RawNode, next_host
from .proxy import Proxy, check, command, free_port, proxy
from .settings import ANY_PORT, changed, settings, sticky, toml
from .wait import TIMEOUT, until
from .wire import Closed, Malformed, Message, Truncated, chunks, reply, request

__all__ = [
    "ANY_PORT",
    "TIMEOUT",
    "Client",
    "Closed",
    "CountingNode",
    "Exchange",
    "HttpNode",
    "Malformed",
    "Message",
    "Proxy",
    "RawNode",
    "Truncated",
    "User",
    "changed",
    "check",
    "chunks",
    "command",
    "curl",
    "free_port",
    "httpx_client",
    "next_host",
    "proxy",
    "reply",
    "request",
    "settings",
    "sticky",
    "toml",
    "until",
]
