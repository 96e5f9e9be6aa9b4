# Session cache memory of the tests' own choice: its size, format and opening.

from libc.stdint cimport uint32_t, uint64_t

from fastlb._core.session_layout cimport (
    session_cache_bytes, session_cache_format, session_cache_open,
)
from fastlb._core.session_shard cimport SessionCache


def size_of(uint32_t size) -> int:
    return session_cache_bytes(size)


def format_at(size_t address, uint64_t count, uint32_t size) -> int:
    return session_cache_format(<void*> address, count, size)


def open_at(size_t address, uint64_t count) -> int:
    cdef SessionCache cache
    return session_cache_open(&cache, <void*> address, count)
