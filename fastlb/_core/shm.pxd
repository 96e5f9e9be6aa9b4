# The shared-memory segment and its locks.
#
# One segment is mapped by the control process and every worker, each at an address of
# its own: nothing in it may hold a pointer, only offsets. The mapping is a window much
# larger than the file, so the segment grows without any process mapping it again.
#
# Locks are robust mutexes: when a holder dies, at any instruction, the kernel hands the
# lock to the next one who asks, who is told so, repairs what the lock covers, and says
# lock_repaired. Neither the control process nor the dead process's parent is needed
# (a zombie holds no lock).

from libc.stdint cimport uint32_t, uint64_t

from fastlb._core.limits cimport SHM_REGIONS_MAX

cdef extern from "<errno.h>" nogil:
    enum: EOWNERDEAD

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_trylock(pthread_mutex_t* mutex) noexcept
    int pthread_mutex_unlock(pthread_mutex_t* mutex) noexcept

cdef extern from *:
    """
    #ifndef FASTLB_SHM_BARRIERS
    #define FASTLB_SHM_BARRIERS
    /* A process that dies has executed a prefix of its program, so for crash safety the
       compiler must keep the order of stores; the processor's own order only matters to
       readers without the lock, and those load with acquire. */
    #define compiler_barrier() __asm__ __volatile__("" ::: "memory")
    #define store_release(at, value) __atomic_store_n(at, value, __ATOMIC_RELEASE)
    #define load_acquire(at) __atomic_load_n(at, __ATOMIC_ACQUIRE)
    #define load_relaxed(at) __atomic_load_n(at, __ATOMIC_RELAXED)
    #define store_relaxed(at, value) __atomic_store_n(at, value, __ATOMIC_RELAXED)
    #define prefetch(at) __builtin_prefetch(at)
    typedef uint32_t __attribute__((may_alias)) shm_word;
    typedef union { pthread_mutex_t mutex; char fixed[48]; } Lock;
    #endif
    """
    ctypedef uint32_t shm_word "shm_word"    # a 32-bit word of a struct with other fields
    ctypedef struct Lock:                    # 48 bytes on every 64-bit libc
        pthread_mutex_t mutex
    void compiler_barrier() noexcept nogil
    void store_release(uint32_t* at, uint32_t value) noexcept nogil
    uint32_t load_acquire(const uint32_t* at) noexcept nogil
    uint32_t load_relaxed(const uint32_t* at) noexcept nogil
    void store_relaxed(uint32_t* at, uint32_t value) noexcept nogil
    void prefetch(const void* at) noexcept nogil


cdef enum LockResult:
    LOCK_OK = 0
    LOCK_OWNER_DIED = 1              # held now; repair, then lock_repaired, then release
    LOCK_BUSY = 2                    # lock_try only


cdef int lock_init(Lock* lock) noexcept nogil       # 0, or a negative errno
cdef int lock_wait(Lock* lock, int result) noexcept nogil
cdef void lock_repaired(Lock* lock) noexcept nogil


cdef inline int lock_acquire(Lock* lock) noexcept nogil:
    cdef int result = pthread_mutex_trylock(&lock.mutex)
    return LOCK_OK if result == 0 else lock_wait(lock, result)


cdef inline int lock_try(Lock* lock) noexcept nogil:
    cdef int result = pthread_mutex_trylock(&lock.mutex)
    if result == 0:
        return LOCK_OK
    return LOCK_OWNER_DIED if result == EOWNERDEAD else LOCK_BUSY


cdef inline void lock_release(Lock* lock) noexcept nogil:
    pthread_mutex_unlock(&lock.mutex)


cdef enum RegionKind:                # what a region holds; 0 is not used
    REGION_BYTES = 1
    REGION_SESSION_CACHE = 2
    REGION_NODES = 3
    REGION_COUNTERS = 4
    REGION_DECISION_LOG = 5


ctypedef struct SegmentRegion:
    uint32_t used                    # 1: the other fields are valid; written last
    uint32_t kind                    # RegionKind
    uint64_t offset                  # bytes from the segment's base
    uint64_t count                   # bytes
    char[64] name                    # NUL-terminated


ctypedef struct SegmentHeader:
    uint64_t magic
    uint32_t version                 # of this layout
    uint32_t regions_max
    uint64_t window                  # bytes that every process maps; the file stays below it
    Lock lock                        # of the directory that follows
    SegmentRegion[SHM_REGIONS_MAX] regions


cdef class Segment:
    cdef char* base                  # NULL once closed
    cdef size_t window
    cdef readonly int fd             # owned
    cdef SegmentHeader* header(self) except NULL
    cdef void* at(self, uint64_t offset) except NULL
    cdef void _unmap(self) noexcept
    cdef bint _map(self, uint64_t window) except -1
    cdef int _format(self) except -1
    cdef int _lock(self) except -1
    cdef int _enter(self, bytes name, uint32_t kind, uint64_t offset, uint64_t count) except -1
