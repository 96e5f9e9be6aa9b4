"""What the names of inserted cookies are made from: the class's id, or the virtual server's."""

import hashlib
import string

LETTERS = string.ascii_lowercase, string.ascii_uppercase
NEXT_LETTER = str.maketrans("".join(LETTERS), "".join(one[1:] + one[0] for one in LETTERS))


def class_hex(name: str) -> str:
    """The first four bytes of SHA-256 of the class's name, in hexadecimal: any fastlb knows
    its cookies by it."""
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def server_cookie_name(server: str) -> str:
    """The cookie that a virtual server writes as the NetScaler appliance would: each letter is
    the next one of the alphabet ("lb_test" has NSC_mc_uftu)."""
    return f"NSC_{server.translate(NEXT_LETTER)}"
