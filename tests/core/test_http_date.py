"""Dates of HTTP against the standard library's."""

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlb._core._testing_sealed import http_date

LAST = 253402300799  # 9999-12-31 23:59:59


def expected(seconds: int) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
    (784111777, "Sun, 06 Nov 1994 08:49:37 GMT"),  # RFC 9110 5.6.7
    (951782400, "Tue, 29 Feb 2000 00:00:00 GMT"),
    (1709164799, "Wed, 28 Feb 2024 23:59:59 GMT"),
    (4107542400, "Mon, 01 Mar 2100 00:00:00 GMT"),  # a century without leap day
    (LAST, "Fri, 31 Dec 9999 23:59:59 GMT"),
    (2**64 - 1, "Fri, 31 Dec 9999 23:59:59 GMT"),
])  # fmt: skip
def test_known_dates(seconds: int, text: str) -> None:
    assert http_date(seconds) == text


def test_the_first_and_last_second_of_each_month_of_430_years() -> None:
    for year in range(1970, 2400):
        for month in range(1, 13):
            first = int(datetime(year, month, 1, tzinfo=UTC).timestamp())
            for seconds in (first, max(first - 1, 0)):
                assert http_date(seconds) == expected(seconds)


@given(st.integers(0, LAST) | st.integers(1_600_000_000, 4_300_000_000))
def test_any_second(seconds: int) -> None:
    assert http_date(seconds) == expected(seconds)
