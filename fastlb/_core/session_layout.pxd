# The layout of a session cache in memory: its size, making an empty one, opening one.
# It is drawn in session_shard.pxd.

from libc.stdint cimport uint32_t, uint64_t

from fastlb._core.session_shard cimport SessionCache

cdef enum LayoutResult:
    CACHE_BAD_SIZE = -2              # 0 or more than SESSION_MAPS_MAX, or too little memory
    CACHE_BAD_MEMORY = -3            # no session cache, or one of another layout

# Memory that a cache of `size` maps takes, a multiple of 64; 0: no such cache.
cdef uint64_t session_cache_bytes(uint32_t size) noexcept nogil
# Makes an empty cache in `count` bytes at `memory` (64-byte aligned). 0 or negative.
cdef int session_cache_format(void* memory, uint64_t count, uint32_t size) noexcept nogil
# OUT handle, good as long as the memory is mapped there. 0 or negative.
cdef int session_cache_open(SessionCache* cache, void* memory, uint64_t count) noexcept nogil
