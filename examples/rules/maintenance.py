"""A maintenance page with a file as its switch.

    touch maintenance.on        everybody gets the page, at once and in all workers
    echo 1800 >maintenance.on   the same, and clients are told to come back in half an hour
    rm maintenance.on           back to work

Who comes from ALLOWED sees the application all the same. The page is maintenance.html, if it is
there. These files are beside this module.
"""

from functools import lru_cache
from ipaddress import ip_address, ip_network
from pathlib import Path

from fastlb import rule

ALLOWED = ("127.0.0.1/32", "::1/128", "10.0.0.0/8")
RETRY_SECONDS = 600  # if the switch does not say how long

HERE = Path(__file__).parent
SWITCH = HERE / "maintenance.on"
PAGE = HERE / "maintenance.html"
PLAIN = b"<!doctype html><title>Back soon</title><h1>Back soon</h1><p>We are working on it.\n"

NETWORKS = [ip_network(network) for network in ALLOWED]


@rule.request
def maintenance(request: rule.Request) -> None:
    try:
        seconds = SWITCH.read_text()  # some 10 µs; an open file is all that is asked of the disk
    except FileNotFoundError:
        return
    if is_allowed(request.client_address):
        request.log["maintenance"] = "let through"
        return
    request.respond(
        503,
        PAGE.read_bytes() if PAGE.exists() else PLAIN,
        headers={"Retry-After": retry_after(seconds), "Cache-Control": "no-store"},
        content_type="text/html; charset=utf-8",
    )


def retry_after(text: str) -> str:
    return str(int(text)) if text.strip().isdecimal() else str(RETRY_SECONDS)


@lru_cache(maxsize=1024)
def is_allowed(address: str | None) -> bool:
    if address is None:  # came over a Unix socket: from this machine
        return True
    client = ip_address(address)
    return any(client in network for network in NETWORKS)
