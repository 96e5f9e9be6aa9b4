"""Gives a share of the users the new version, each user always the same one.

A user is what the cookie VISITOR says; who has none gets a random one with the first response. A
hash of user and EXPERIMENT says where on a scale from 0 to 100 a user stands, and SHARES cuts that
scale, so nothing has to be remembered and all workers and proxies agree. Change a share and
`fastlb reload`: from 5 to 20 per cent moves 15 of 100 users to the canary, and nobody back. For an
A/B test say 50; a new EXPERIMENT deals the users out anew.

The application learns which one it is by the field X-Variant.
"""

import hashlib
import secrets

from fastlb import rule

EXPERIMENT = "checkout-2"
SHARES = {"canary": 5.0}  # pool: per cent of the users; who is left gets REST
REST = "stable"
VISITOR = "visitor"
YEAR = 365 * 24 * 3600


def place(user: str) -> float:
    """Where this user stands in this experiment: 0 <= place < 100, evenly spread."""
    digest = hashlib.blake2b(f"{EXPERIMENT}\0{user}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64 * 100


def variant(user: str) -> str:
    """The pool for this user."""
    at = place(user)
    for pool, share in SHARES.items():
        if at < share:
            return pool
        at -= share
    return REST


@rule.request
def choose(request: rule.Request) -> None:
    user = request.cookies.get(VISITOR)
    if not user:
        user = request.data["new visitor"] = secrets.token_hex(12)
    request.pool = variant(user)
    request.headers["X-Variant"] = request.pool  # also takes the place of one that a client sent
    request.log["variant"] = request.pool


@rule.response
def remember(request: rule.Request, response: rule.Response) -> None:
    user = request.data.get("new visitor")
    if user:
        response.cookies.set(
            VISITOR, user, path="/", max_age=YEAR, http_only=True, same_site="Lax",
            secure=request.tls_version is not None,
        )  # fmt: skip
