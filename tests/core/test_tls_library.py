"""The TLS library's functions, by the addresses that cffi knows."""

import pytest

from fastlb import tls_addresses
from fastlb._core.tls_library import NAMES, tls_library_load


def test_all_functions_are_there() -> None:
    addresses = {name: tls_addresses.address_of(name) for name in NAMES}
    assert all(addresses.values())
    assert len(set(addresses.values())) == len(NAMES)
    tls_library_load(addresses)


def test_a_missing_function_is_named() -> None:
    with pytest.raises(KeyError, match="SSL_read"):
        tls_library_load({name: 1 for name in NAMES if name != "SSL_read"})
    tls_addresses.load()


def test_a_function_that_the_library_has_not() -> None:
    with pytest.raises(AttributeError):
        tls_addresses.address_of("SSL_no_such_function")
