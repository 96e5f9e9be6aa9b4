"""Where the functions of the TLS library are that `cryptography` ships.

cffi knows them; the core calls them without the GIL.
"""

from typing import Any

from cryptography.hazmat.bindings._rust import _openssl

from fastlb._core.tls_library import NAMES, tls_library_load


def address_of(name: str) -> int:
    """The address of one function. Raises AttributeError when this library has none."""
    ffi: Any = _openssl.ffi
    return int(ffi.cast("uintptr_t", ffi.addressof(_openssl.lib, name)))


def load() -> None:
    """Gives the core all that it calls."""
    tls_library_load({name: address_of(name) for name in NAMES})


def pointer_of(context: Any) -> int:
    """The address of a pyOpenSSL Context's SSL_CTX; it lives as long as the Context does."""
    return int(_openssl.ffi.cast("uintptr_t", context._context))
