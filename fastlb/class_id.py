"""The 8 hex digits of a persistence class, by which any fastlb recognises its cookies."""

import hashlib


def class_hex(name: str) -> str:
    """The first four bytes of SHA-256 of the class's name, in hexadecimal."""
    return hashlib.sha256(name.encode()).hexdigest()[:8]
