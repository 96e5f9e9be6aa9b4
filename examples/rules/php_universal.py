"""The classic "universal persistence for PHP", for who brings it from another traffic manager.

There, a request rule builds a key from the PHPSESSID cookie and chooses the class PHP for paths
that end in .php, and a response rule or the next request makes the session known. Here the request
rule does the same, and `learn` of the class takes the id from the response's Set-Cookie.

Two things differ on purpose. The client's address and its User-Agent are no part of the key: both
change during a session (a phone that leaves the house, a browser that updates itself), and then the
session would be lost. And a path like /index.php/news is a PHP page, too.
"""

from fastlb import rule

CLASS = "PHP"
NAME = "PHPSESSID"


@rule.request
def persist(request: rule.Request) -> None:
    path = request.path.lower()
    if not (path.endswith((".php", "/")) or ".php/" in path):
        return  # images, style sheets: any node, by the pool's own class
    request.persistence = CLASS
    key = request.cookies.get(NAME) or request.query.get(NAME)
    if key:
        request.persistence_key = key
        request.log["php"] = True
