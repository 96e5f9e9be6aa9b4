"""The control process's spare descriptors."""

import errno
import os
import resource
from collections.abc import Iterator

import pytest

from fastlb import reserve


@pytest.fixture
def full() -> Iterator[None]:
    """No descriptor is left but those of the reserve."""
    reserve.hold()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = os.open(os.devnull, os.O_RDONLY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken, most[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, most)
        os.close(taken)
        reserve.give()


def test_what_needs_descriptors_gets_those_of_the_reserve(full: None) -> None:
    with pytest.raises(OSError, match="Too many open files"):
        os.pipe()
    for fd in reserve.with_reserve(os.pipe):
        os.close(fd)
    reserve.demand(reserve.COUNT)
    reserve.hold()
    with pytest.raises(OSError, match="Too many open files"):
        reserve.demand(1)
    reserve.hold()  # as far as that can be done
    assert reserve.give()
    assert not reserve.give()


def test_other_failures_leave_it_as_it_is(full: None) -> None:
    def work() -> None:
        raise OSError(errno.ENOENT, "no such file")

    with pytest.raises(FileNotFoundError):
        reserve.with_reserve(work)
    assert reserve.give()
