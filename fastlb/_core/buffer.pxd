# Buffers of two sizes, borrowed while bytes are pending and given back when none are.
#
# Small ones hold heads and short bodies; large ones take a head that outgrew a small
# one and bulk relaying. What must stand together and is larger still gets one of its own.
# Memory is taken from the system on demand, counted against `limits.buffers`, kept on a free
# list, and given back beyond a small reserve.

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    BUFFER_SMALL_BYTES = 16 * 1024
    BUFFER_LARGE_BYTES = 64 * 1024
    BUFFER_FREE_SMALL_MAX = 256      # kept for the next borrower: 4 MiB
    BUFFER_FREE_LARGE_MAX = 64       # 4 MiB

ctypedef struct Buffer:
    Buffer* next_free
    uint32_t size                    # bytes of room
    uint32_t start                   # first byte that is still needed
    uint32_t end                     # one past the last byte received
    uint32_t lent                    # 1 while borrowed: a second return is a bug
    char data[1]                     # really `size` bytes

ctypedef struct BufferPool:
    Buffer* free_small
    Buffer* free_large
    uint32_t free_small_count
    uint32_t free_large_count
    uint64_t bytes                   # taken from the system, free ones included
    uint64_t bytes_max               # limits.buffers
    uint32_t borrowed                # buffers in use
    uint64_t refusals                # borrowings refused since bytes_max was reached

cdef void buffer_pool_init(BufferPool* pool, uint64_t bytes_max) noexcept nogil
# Another bound, and the reserve of those who need no more than a small buffer to go on.
cdef void buffer_pool_limit(BufferPool* pool, uint64_t bytes_max) noexcept nogil
# NULL when bytes_max is reached or the system has no memory.
cdef Buffer* buffer_borrow(BufferPool* pool, bint large) noexcept nogil
cdef void buffer_return(BufferPool* pool, Buffer* buffer) noexcept nogil
# One with room for at least `count` bytes, of its own size where no large one has it.
cdef Buffer* buffer_borrow_bytes(BufferPool* pool, uint32_t count) noexcept nogil
# A buffer of just `count` bytes with those of `buffer` from `start` on, in its place; the same
# buffer when there is no memory. For what must be held long: a tunnel's head.
cdef Buffer* buffer_shrink(BufferPool* pool, Buffer* buffer, uint32_t start,
                           uint32_t count) noexcept nogil
# Room for more bytes of a client's head behind what is there: in a first small buffer, else where
# bytes in front are needed no more, else in a large buffer in its place. False when there is
# none: a large buffer is full, or the bound is near. What runs already can go on to the bound
# itself, so that clients who send heads slowly end no answer.
cdef bint buffer_make_room(BufferPool* pool, Buffer** buffer) noexcept nogil
cdef void buffer_pool_free(BufferPool* pool) noexcept nogil


cdef inline uint32_t buffer_pending(const Buffer* b) noexcept nogil:
    return b.end - b.start


cdef inline uint32_t buffer_room(const Buffer* b) noexcept nogil:
    return b.size - b.end
