"""Routes TLS that is passed through by the name and the protocol that the client asks for.

Nothing is decrypted: a connection rule sees the ClientHello. `routes` in the configuration can do
the plain cases; a rule can do the others: a table of names, a challenge of the ACME protocol
(RFC 8737) to the machine that answers those, a name that is nobody's business closed at once.
"""

from fastlb import rule

POOLS = {
    "shop.example.com": "shop",
    "*.api.example.com": "api",  # any name below api.example.com, however deep
}
ACME = "acme"  # the pool for certificates to be issued


@rule.connection
def by_name(connection: rule.Connection) -> None:
    name = (connection.sni or "").lower().rstrip(".")
    pool = ACME if "acme-tls/1" in connection.alpn else pool_of(name)
    if pool is None:
        connection.log["unknown"] = name
        connection.close()
    else:
        connection.pool = pool


def pool_of(name: str) -> str | None:
    """By the whole name, else by the longest wildcard; None: not ours."""
    if name in POOLS:
        return POOLS[name]
    _, dot, parent = name.partition(".")
    while dot:
        if f"*.{parent}" in POOLS:
            return POOLS[f"*.{parent}"]
        _, dot, parent = parent.partition(".")
    return None
