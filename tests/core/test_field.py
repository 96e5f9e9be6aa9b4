"""Names of fields: known ones in any case, and none that only looks like one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb._core import _testing_head as core

KNOWN = (
    b"host connection content-length transfer-encoding cookie set-cookie expect upgrade te trailer "
    b"keep-alive proxy-connection proxy-authorization x-forwarded-for x-forwarded-proto "
    b"x-forwarded-host forwarded via user-agent cache-control pragma expires etag last-modified "
    b"location date authorization www-authenticate retry-after referer content-type "
    b"x-zeus-backend x-fastlb-decision"
).split()


def test_names_are_known_in_any_case() -> None:
    ids = [core.id_of(name) for name in KNOWN]
    assert len(set(ids)) == len(KNOWN)
    assert 0 not in ids
    assert [core.id_of(name.upper()) for name in KNOWN] == ids
    assert [core.id_of(name.title()) for name in KNOWN] == ids


@pytest.mark.parametrize("name", KNOWN)
def test_names_nearly_known(name: bytes) -> None:
    for i in range(len(name)):
        changed = bytearray(name)
        changed[i] = ord("q") if name[i] != ord("q") else ord("z")
        assert core.id_of(bytes(changed)) == 0
    assert core.id_of(name[:-1]) == core.id_of(name + b"-") == 0


def test_names_that_a_cgi_program_takes_for_known_ones() -> None:
    for name in (b"Content_Length", b"x-forwarded_FOR", b"X_Forwarded-Host", b"ACCEPT_ENCODING"):
        assert core.id_of(name) == 0
        assert core.alias_of(name) == core.id_of(name.replace(b"_", b"-"))


@given(st.text("abcdeghiloprtuvx-", min_size=1, max_size=24).map(str.encode))
@settings(max_examples=200)
def test_unknown_names(name: bytes) -> None:
    assert (core.id_of(name) == 0) is (name not in KNOWN)


def test_fields_of_one_name_are_all_found() -> None:
    data = b"GET / HTTP/1.1\r\nHost: a\r\nCookie: a=b\r\nX: y\r\ncookie: c=d\r\nCOOKIE: e\r\n\r\n"
    assert core.indices(data, b"cookie") == [1, 3, 4]
    assert core.indices(data, b"host") == [0]
    assert core.indices(data, b"via") == []
