"""Limits how many requests a user may send in a minute: 429 with Retry-After above that.

The counters are in shared memory, so the limits hold for all workers together, not for each. A
user is whoever sends the same X-API-Key. To invent keys costs a client nothing, so there is a limit
per address, too, for all of its keys together. For IPv6 an address is a /64, which is what one
household has.

A minute is one of the clock's, so at worst twice the limit passes around its end.
"""

import time
from ipaddress import IPv6Address, ip_address

from fastlb import rule

PER_USER = 60
PER_ADDRESS = 600
WINDOW = 60  # seconds
FIELD = "X-API-Key"

counts = rule.shared("rate_limit")


@rule.request
def limit(request: rule.Request) -> None:
    now = time.time()
    user = request.headers.get(FIELD)
    if user and over(f"user {user}", PER_USER, now):
        request.log["limited"] = "user"
    elif over(f"address {network(request.client_address)}", PER_ADDRESS, now):
        request.log["limited"] = "address"
    else:
        return
    seconds = WINDOW - int(now) % WINDOW
    request.respond(
        429,
        b"Too many requests.\n",
        headers={"Retry-After": str(seconds)},
        content_type="text/plain",
    )


def over(who: str, most: int, now: float) -> bool:
    """Counts this request; whether `who` has sent more than `most` in this window."""
    window = int(now) // WINDOW
    return counts.incr(f"{window} {who}", ttl=f"{WINDOW}s") > most


def network(address: str | None) -> str:
    """What is counted as one client; "local" for a Unix socket."""
    if address is None:
        return "local"
    client = ip_address(address)
    if isinstance(client, IPv6Address):
        return client.packed[:8].hex()
    return address
