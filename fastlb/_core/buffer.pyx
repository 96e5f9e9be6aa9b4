# The pool behind buffer.pxd: two free lists and a count of bytes.

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove

from fastlb._core.debug cimport BUG_ON

cdef enum:
    BUFFER_HEAD_BYTES = 24           # offset of Buffer.data, checked at import
    RESERVE_SHIFT = 3                # 1/8 of the bound is for what runs already
    RESERVE_SMALL = 16               # and so many buffers for when the system has no memory


cdef void buffer_pool_init(BufferPool* pool, uint64_t bytes_max) noexcept nogil:
    pool.free_small = NULL
    pool.free_large = NULL
    pool.free_small_count = 0
    pool.free_large_count = 0
    pool.bytes = 0
    pool.bytes_max = bytes_max
    pool.borrowed = 0
    pool.refusals = 0


cdef void buffer_pool_limit(BufferPool* pool, uint64_t bytes_max) noexcept nogil:
    cdef Buffer* buffer
    pool.bytes_max = bytes_max
    while pool.free_small_count < RESERVE_SMALL and pool.bytes + BUFFER_SMALL_BYTES <= bytes_max:
        buffer = _allocate(pool, BUFFER_SMALL_BYTES)
        if buffer == NULL:
            return
        buffer.lent = 0
        _keep_small(pool, buffer)


cdef inline void _keep_small(BufferPool* pool, Buffer* buffer) noexcept nogil:
    buffer.next_free = pool.free_small
    pool.free_small = buffer
    pool.free_small_count += 1


# Gives free buffers back to the system until `size` more bytes are within the bound: those of
# the other size would keep a borrower waiting though nobody uses them.
cdef void _make_room(BufferPool* pool, uint32_t size) noexcept nogil:
    cdef Buffer* buffer
    while pool.bytes + size > pool.bytes_max:
        buffer = pool.free_large
        if buffer != NULL:
            pool.free_large = buffer.next_free
            pool.free_large_count -= 1
        else:
            buffer = pool.free_small
            if buffer == NULL:
                return
            pool.free_small = buffer.next_free
            pool.free_small_count -= 1
        pool.bytes -= buffer.size
        free(buffer)


cdef Buffer* _allocate(BufferPool* pool, uint32_t size) noexcept nogil:
    cdef Buffer* buffer
    if pool.bytes + size > pool.bytes_max:
        _make_room(pool, size)
    if pool.bytes + size > pool.bytes_max:
        pool.refusals += 1
        return NULL
    buffer = <Buffer*> malloc(BUFFER_HEAD_BYTES + size)
    if buffer == NULL:
        pool.refusals += 1
        return NULL
    buffer.size = size
    pool.bytes += size
    return buffer


cdef inline void _lend(BufferPool* pool, Buffer* buffer) noexcept nogil:
    buffer.next_free = NULL
    buffer.start = 0
    buffer.end = 0
    buffer.lent = 1
    pool.borrowed += 1


cdef Buffer* buffer_borrow(BufferPool* pool, bint large) noexcept nogil:
    cdef Buffer* buffer
    if large:
        buffer = pool.free_large
        if buffer != NULL:
            pool.free_large = buffer.next_free
            pool.free_large_count -= 1
        else:
            buffer = _allocate(pool, BUFFER_LARGE_BYTES)
    else:
        buffer = pool.free_small
        if buffer != NULL:
            pool.free_small = buffer.next_free
            pool.free_small_count -= 1
        else:
            buffer = _allocate(pool, BUFFER_SMALL_BYTES)
    if buffer != NULL:
        _lend(pool, buffer)
    return buffer


cdef Buffer* buffer_borrow_bytes(BufferPool* pool, uint32_t count) noexcept nogil:
    cdef Buffer* buffer
    if count <= BUFFER_LARGE_BYTES:
        return buffer_borrow(pool, count > BUFFER_SMALL_BYTES)
    buffer = _allocate(pool, count)
    if buffer != NULL:
        _lend(pool, buffer)
    return buffer


cdef void buffer_return(BufferPool* pool, Buffer* buffer) noexcept nogil:
    BUG_ON(pool.borrowed == 0)
    BUG_ON(not buffer.lent)
    buffer.lent = 0
    pool.borrowed -= 1
    if buffer.size == BUFFER_LARGE_BYTES and pool.free_large_count < BUFFER_FREE_LARGE_MAX:
        buffer.next_free = pool.free_large
        pool.free_large = buffer
        pool.free_large_count += 1
    elif buffer.size == BUFFER_SMALL_BYTES and pool.free_small_count < BUFFER_FREE_SMALL_MAX:
        _keep_small(pool, buffer)
    else:
        pool.bytes -= buffer.size
        free(buffer)


cdef Buffer* buffer_shrink(BufferPool* pool, Buffer* buffer, uint32_t start,
                           uint32_t count) noexcept nogil:
    cdef Buffer* small = _allocate(pool, count)
    if small == NULL:
        return buffer
    memcpy(small.data, buffer.data + start, count)
    small.next_free = NULL
    small.start = 0
    small.end = count
    small.lent = 1
    pool.borrowed += 1
    buffer_return(pool, buffer)
    return small


cdef void _free_list(Buffer* buffer) noexcept nogil:
    cdef Buffer* next_free
    while buffer != NULL:
        next_free = buffer.next_free
        free(buffer)
        buffer = next_free


cdef bint _in_reserve(BufferPool* pool, uint64_t more) noexcept nogil:
    cdef uint64_t unused = (
        <uint64_t> pool.free_small_count * BUFFER_SMALL_BYTES
        + <uint64_t> pool.free_large_count * BUFFER_LARGE_BYTES
    )
    if pool.bytes - unused + more <= pool.bytes_max - (pool.bytes_max >> RESERVE_SHIFT):
        return False
    pool.refusals += 1
    return True


# Whether one more small or large buffer would be of the reserve; where little is in use this
# is one comparison.
cdef inline bint _reserved(BufferPool* pool, uint64_t more) noexcept nogil:
    return pool.bytes + more > (pool.bytes_max >> 1) and _in_reserve(pool, more)


cdef bint buffer_make_room(BufferPool* pool, Buffer** buffer) noexcept nogil:
    cdef Buffer* b = buffer[0]
    cdef Buffer* larger
    if b == NULL:
        if _reserved(pool, BUFFER_SMALL_BYTES):
            return False
        if pool.free_small_count > RESERVE_SMALL:
            buffer[0] = buffer_borrow(pool, False)
            return True
        buffer[0] = _allocate(pool, BUFFER_SMALL_BYTES)
        if buffer[0] != NULL:
            _lend(pool, buffer[0])
        return buffer[0] != NULL
    if b.end < b.size:
        return True
    if b.start:
        memmove(b.data, b.data + b.start, buffer_pending(b))
        b.end -= b.start
        b.start = 0
        return True
    if b.size >= BUFFER_LARGE_BYTES:
        return False
    if _reserved(pool, BUFFER_LARGE_BYTES):
        return False
    larger = buffer_borrow(pool, True)
    if larger == NULL:
        return False
    memcpy(larger.data, b.data, b.end)
    larger.end = b.end
    buffer_return(pool, b)
    buffer[0] = larger
    return True


cdef void buffer_pool_free(BufferPool* pool) noexcept nogil:
    _free_list(pool.free_small)
    _free_list(pool.free_large)
    buffer_pool_init(pool, pool.bytes_max)


cdef Buffer _layout
if <char*> &_layout.data[0] - <char*> &_layout != BUFFER_HEAD_BYTES:
    raise ImportError("fastlb._core.buffer: Buffer.data is not at offset 24")
