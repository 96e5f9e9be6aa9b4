"""The memory of a session cache: how much, and what is taken for one."""

import ctypes
import mmap

import pytest

from fastlb._core._testing_session_layout import format_at, open_at, size_of

MIB = 1 << 20


class Memory:
    """Zeroed pages of this process."""

    def __init__(self, count: int):
        self.pages = mmap.mmap(-1, count)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.pages))


def test_a_million_maps_fit_into_a_hundred_mebibytes() -> None:
    assert size_of(1_000_000) <= 100 * MIB


@pytest.mark.parametrize("size", [1, 16, 4096, 4097, 100_000])
def test_memory_is_whole_cache_lines_and_grows_with_the_maps(size: int) -> None:
    assert size_of(size) % 64 == 0
    assert 64 * size < size_of(size) <= size_of(size + 1)


def test_no_maps_need_no_memory() -> None:
    assert size_of(0) == 0


@pytest.mark.parametrize("size", [16, 4096, 5000])
def test_a_formatted_cache_opens_and_no_other_memory_does(size: int) -> None:
    count = size_of(size)
    memory = Memory(count)
    assert open_at(memory.address, count) < 0
    assert format_at(memory.address, count, size) == 0
    assert open_at(memory.address, count) == 0


def test_too_little_memory_is_refused() -> None:
    count = size_of(100)
    memory = Memory(count)
    assert format_at(memory.address, count - 64, 100) < 0
    assert format_at(memory.address, count, 0) < 0
    assert format_at(memory.address, count, 100) == 0
    assert open_at(memory.address, count - 64) < 0


@pytest.mark.parametrize("at", range(0, 8))
def test_another_magic_is_refused(at: int) -> None:
    count = size_of(16)
    memory = Memory(count)
    assert format_at(memory.address, count, 16) == 0
    memory.pages[at] ^= 0xFF
    assert open_at(memory.address, count) < 0
