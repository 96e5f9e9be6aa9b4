# Structural check of a session cache: every list, chain and count, entry by entry.

from libc.stdint cimport uint8_t

from fastlb._core.session_shard cimport SessionCache

cdef enum VerifyResult:
    VERIFY_OK = 0
    VERIFY_UNFINISHED = -1           # a journal, spare or gift is left over
    VERIFY_LIST = -2                 # an LRU list's links disagree, or run in a circle
    VERIFY_COUNT = -3                # a list's or the free list's length is not its count
    VERIFY_OWNER = -4                # an entry is in another owner's list or chain
    VERIFY_TWICE = -5                # an entry is in two places
    VERIFY_CHAIN = -6                # an entry is in no chain, the wrong one, or none is listed
    VERIFY_KEY = -7                  # two maps of one key
    VERIFY_LEAKED = -8               # an entry is neither listed nor free

# Takes all locks of the cache, so that traffic waits: tests and post-mortems only.
# `marks`: size + 1 bytes of the caller's.
cdef int session_cache_verify(SessionCache* cache, uint8_t* marks) noexcept nogil
