"""Keeps a PHP session on the node that made it, for clients with and without cookies.

PHP sends the id of a session as the cookie PHPSESSID; with `session.use_trans_sid` it also writes
it into links, as ?PHPSESSID=… or under the name that the application chose (SID here). The cookie
goes first, as it does in PHP. What PHP itself would not take for an id is no key, so nobody fills
the session cache with garbage.

The class learns a new id from the response (`learn = "cookie:PHPSESSID"`), so the first request
needs no id, and an id that PHP renews at login stays where it was made.
"""

import re

from fastlb import rule

COOKIE = "PHPSESSID"
PARAMETERS = ("PHPSESSID", "SID")  # in the query, for clients without cookies
ID = re.compile(r"[A-Za-z0-9,-]{22,256}")  # what PHP makes: session.sid_length, 22 to 256


@rule.request
def session(request: rule.Request) -> None:
    if key := session_id(request):
        request.persistence_key = key


def session_id(request: rule.Request) -> str | None:
    """The id that PHP will go by; None: this client has no session yet."""
    found = [request.cookies.get(COOKIE)]
    if not found[0]:
        found = [request.query.get(name) for name in PARAMETERS]
    return next((value for value in found if value and ID.fullmatch(value)), None)
