# The shared-memory segment: one file without a name, a directory of named regions.
#
# The directory may be left by a dying process at any instruction: a region exists when
# its `used` word is set, which is written after its other fields and cleared before its
# pages are given back; free space is what no used region covers, so none can be lost.
#
# Pages are reserved when a region is allocated: memory that cannot be had is an error
# with a message at start-up, never a SIGBUS at the first use.

import errno
import fcntl
import os

from libc.errno cimport EBUSY
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport abort
from libc.string cimport memcpy, memset
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap
from posix.unistd cimport close

from fastlb._core.limits cimport LOCK_SPINS, SHM_NAME_BYTES_MAX, SHM_REGIONS_MAX

cdef extern from "<sys/mman.h>" nogil:
    enum: MAP_NORESERVE

cdef extern from "<fcntl.h>" nogil:
    enum: FALLOC_FL_PUNCH_HOLE
    enum: FALLOC_FL_KEEP_SIZE
    int fallocate(int fd, int mode, long offset, long count) noexcept

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutexattr_t:
        pass
    enum: PTHREAD_PROCESS_SHARED
    enum: PTHREAD_MUTEX_ROBUST
    int pthread_mutexattr_init(pthread_mutexattr_t* attr) noexcept
    int pthread_mutexattr_setpshared(pthread_mutexattr_t* attr, int shared) noexcept
    int pthread_mutexattr_setrobust(pthread_mutexattr_t* attr, int robust) noexcept
    int pthread_mutexattr_destroy(pthread_mutexattr_t* attr) noexcept
    int pthread_mutex_init(pthread_mutex_t* mutex, const pthread_mutexattr_t* attr) noexcept
    int pthread_mutex_lock(pthread_mutex_t* mutex) noexcept
    int pthread_mutex_consistent(pthread_mutex_t* mutex) noexcept

cdef extern from *:
    """
    #if defined(__x86_64__) || defined(__i386__)
    #define cpu_relax() __builtin_ia32_pause()
    #else
    #define cpu_relax() __asm__ __volatile__("" ::: "memory")
    #endif
    """
    void cpu_relax() noexcept nogil

cdef enum:
    PAGE = 4096
    LAYOUT_VERSION = 1

cdef uint64_t MAGIC = 0x47455342_4c545346      # "FSTLBSEG", little-endian
cdef uint64_t WINDOW_MAX = <uint64_t>64 << 30
cdef uint64_t WINDOW_MIN = <uint64_t>1 << 30

if sizeof(Lock) != 48:
    raise ImportError(f"the C library's mutex does not fit in 48 bytes: {sizeof(Lock)}")


cdef int lock_init(Lock* lock) noexcept nogil:
    cdef pthread_mutexattr_t attr
    cdef int result = pthread_mutexattr_init(&attr)
    if result != 0:
        return -result
    result = pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED)
    if result == 0:
        result = pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST)
    if result == 0:
        memset(lock, 0, sizeof(Lock))
        result = pthread_mutex_init(&lock.mutex, &attr)
    pthread_mutexattr_destroy(&attr)
    return -result


# The slow half of lock_acquire; `result` is what the first try said. Critical sections
# are some hundred nanoseconds, so a short spin nearly always saves the system call.
cdef int lock_wait(Lock* lock, int result) noexcept nogil:
    cdef int spins = 0
    while result == EBUSY and spins < LOCK_SPINS:
        cpu_relax()
        spins += 1
        result = pthread_mutex_trylock(&lock.mutex)
    if result == EBUSY:
        result = pthread_mutex_lock(&lock.mutex)
    if result == 0:
        return LOCK_OK
    if result != EOWNERDEAD:
        abort()                      # never initialised, or released without lock_repaired
    return LOCK_OWNER_DIED


cdef void lock_repaired(Lock* lock) noexcept nogil:
    if pthread_mutex_consistent(&lock.mutex) != 0:
        abort()                      # not held, or its owner had not died


class SharedMemoryError(Exception):
    """Shared memory cannot be had, or a descriptor is not a fastlb segment."""


def _open_file(directory):
    """A file without a name, in memory: memfd, else an unlinked file in `directory`."""
    reason = ""
    if directory is None:
        try:
            fd = os.memfd_create("fastlb", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            # It grows and never shrinks: who has it must not be able to take mapped pages away.
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
            return fd
        except OSError as error:
            reason = f"memfd_create: {error.strerror}; "
        directory = "/dev/shm"
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SharedMemoryError(
            f"no shared memory: {reason}{directory}: {error.strerror}. fastlb needs"
            " memfd_create, or /dev/shm mounted and writable"
        ) from None


def _available_bytes():
    """MemAvailable of the kernel: reserving more would wake its out-of-memory killer."""
    with open("/proc/meminfo", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _aligned(offset, count):
    """Where a region of `count` bytes may begin: whole pages for large ones."""
    unit = PAGE if count >= PAGE else 64
    return (offset + unit - 1) // unit * unit


cdef class Segment:
    """A shared-memory segment and its directory of named regions.

    `Segment.create()` makes one, `Segment.attach(fd)` maps one that another process
    made (the descriptor is duplicated). Regions stay where they are until `remove`.
    """

    def __cinit__(self):
        self.base = NULL
        self.fd = -1

    def __dealloc__(self):
        self._unmap()

    cdef void _unmap(self) noexcept:
        if self.base != NULL:
            munmap(self.base, self.window)
            self.base = NULL
        if self.fd >= 0:
            close(self.fd)
            self.fd = -1

    cdef bint _map(self, uint64_t window) except -1:
        cdef void* at = mmap(NULL, window, PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_NORESERVE, self.fd, 0)
        if at == MAP_FAILED:
            return False
        self.base = <char*>at
        self.window = window
        return True

    @staticmethod
    def create(directory=None, window=None):
        """A new, empty segment; `directory`: a file there instead of a memfd."""
        cdef Segment segment = Segment.__new__(Segment)
        cdef uint64_t size = window or WINDOW_MAX
        segment.fd = _open_file(directory)
        segment._reserve(0, sizeof(SegmentHeader))
        while not segment._map(size):
            size //= 2
            if size < WINDOW_MIN:
                raise SharedMemoryError(
                    f"cannot map {WINDOW_MIN >> 30} GiB of address space for shared memory:"
                    " raise the limit of virtual memory (ulimit -v)"
                )
        segment._format()
        return segment

    cdef int _format(self) except -1:
        cdef SegmentHeader* header = <SegmentHeader*>self.base
        if lock_init(&header.lock) < 0:
            raise SharedMemoryError("the C library has no robust process-shared locks")
        header.version = LAYOUT_VERSION
        header.regions_max = SHM_REGIONS_MAX
        header.window = self.window
        compiler_barrier()
        header.magic = MAGIC
        return 0

    @staticmethod
    def attach(int fd):
        """Maps the segment behind `fd`, which stays the caller's."""
        cdef Segment segment = Segment.__new__(Segment)
        cdef SegmentHeader* header
        segment.fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
        if os.fstat(segment.fd).st_size < <long>sizeof(SegmentHeader):
            raise SharedMemoryError("the descriptor is not a fastlb segment: too short")
        if not segment._map(PAGE):
            raise SharedMemoryError("the descriptor is not a fastlb segment: cannot be mapped")
        header = <SegmentHeader*>segment.base
        if header.magic != MAGIC:
            raise SharedMemoryError("the descriptor is not a fastlb segment: wrong magic")
        if header.version != LAYOUT_VERSION or header.regions_max != SHM_REGIONS_MAX:
            raise SharedMemoryError(
                f"the segment has layout {header.version}, this program knows {LAYOUT_VERSION}"
            )
        window = header.window
        munmap(segment.base, PAGE)
        segment.base = NULL
        if not segment._map(window):
            raise SharedMemoryError(
                f"cannot map {window >> 30} GiB of address space for shared memory:"
                " raise the limit of virtual memory (ulimit -v)"
            )
        return segment

    cdef SegmentHeader* header(self) except NULL:
        if self.base == NULL:
            raise SharedMemoryError("the segment is closed")
        return <SegmentHeader*>self.base

    cdef void* at(self, uint64_t offset) except NULL:
        self.header()
        return self.base + offset

    def _reserve(self, offset, count):
        """Takes the pages from the kernel now, and lengthens the file where needed."""
        try:
            os.posix_fallocate(self.fd, offset, count)
        except OSError as error:
            where = "the file size limit (ulimit -f)" if error.errno == errno.EFBIG else (
                "shared memory is full: free memory, enlarge the tmpfs"
                " or lower the sizes of the session caches")
            raise SharedMemoryError(
                f"cannot reserve {count} bytes of shared memory: {error.strerror} ({where})"
            ) from None

    cdef int _lock(self) except -1:
        # Whatever a dead holder left is a valid directory (see the head of this module).
        if lock_acquire(&self.header().lock) == LOCK_OWNER_DIED:
            lock_repaired(&self.header().lock)
        return 0

    def regions(self):
        """All regions: a list of (name, kind, offset, bytes) in the order of offsets."""
        cdef SegmentHeader* header = self.header()
        cdef SegmentRegion* region
        cdef int i
        found = []
        for i in range(SHM_REGIONS_MAX):
            region = &header.regions[i]
            if load_acquire(&region.used):
                found.append((region.name.decode(), region.kind, region.offset, region.count))
        return sorted(found, key=lambda row: row[2])

    def find(self, str name):
        """(offset, bytes) of a region, or None."""
        for region_name, _, offset, count in self.regions():
            if region_name == name:
                return offset, count
        return None

    def allocate(self, str name, uint32_t kind, uint64_t count):
        """A new region of `count` zero bytes; returns its offset from the base.

        Aligned to a cache line, from a page on to a page. Raises SharedMemoryError when
        the name is taken, the directory or the window is full, or memory cannot be had.
        """
        encoded = name.encode()
        if not 0 < len(encoded) <= SHM_NAME_BYTES_MAX or b"\0" in encoded:
            raise SharedMemoryError(
                f"a region's name has 1 to {SHM_NAME_BYTES_MAX} bytes: {name!r}")
        if not count:
            raise SharedMemoryError(f"region {name!r} would be empty")
        self._lock()
        try:
            if self.find(name) is not None:
                raise SharedMemoryError(f"region {name!r} exists")
            offset = self._place(name, count)
            self._clear_pages(offset, count)
            self._enter(encoded, kind, offset, count)
        finally:
            lock_release(&self.header().lock)
        return offset

    def _place(self, name, count):
        """The first gap that fits."""
        at = _aligned(sizeof(SegmentHeader), count)
        for _, _, offset, held in self.regions():
            if at + count <= offset:
                break
            at = _aligned(max(at, offset + held), count)
        if at + count > self.window:
            raise SharedMemoryError(
                f"no room for region {name!r} of {count} bytes in the window of"
                f" {self.window} bytes"
            )
        return at

    def _clear_pages(self, uint64_t offset, uint64_t count):
        """Gives old pages back, reserves new ones, clears what shares a page with others."""
        cdef uint64_t first = (offset + PAGE - 1) // PAGE * PAGE
        cdef uint64_t last = (offset + count) // PAGE * PAGE
        available = _available_bytes()
        if available is not None and count > available:
            raise SharedMemoryError(
                f"cannot reserve {count} bytes of shared memory: only {available} bytes of"
                " memory are available. Lower the sizes of the session caches"
            )
        if first < last:
            fallocate(self.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, first, last - first)
        self._reserve(offset, count)
        if first >= last:
            memset(self.base + offset, 0, count)
            return
        memset(self.base + offset, 0, first - offset)
        memset(self.base + last, 0, offset + count - last)

    cdef int _enter(self, bytes name, uint32_t kind, uint64_t offset, uint64_t count) except -1:
        cdef SegmentHeader* header = self.header()
        cdef SegmentRegion* region
        cdef int i
        for i in range(SHM_REGIONS_MAX):
            region = &header.regions[i]
            if region.used:
                continue
            memset(region.name, 0, sizeof(region.name))
            memcpy(region.name, <const char*>name, len(name))
            region.kind = kind
            region.offset = offset
            region.count = count
            store_release(&region.used, 1)
            return 0
        raise SharedMemoryError(f"the segment has no more than {SHM_REGIONS_MAX} regions")

    def remove(self, str name):
        """Gives a region's memory back. No process may use it any more."""
        cdef SegmentHeader* header = self.header()
        cdef SegmentRegion* region
        cdef uint64_t first
        cdef uint64_t last
        cdef int i
        encoded = name.encode()
        self._lock()
        try:
            for i in range(SHM_REGIONS_MAX):
                region = &header.regions[i]
                if region.used and region.name == encoded:
                    store_release(&region.used, 0)
                    first = (region.offset + PAGE - 1) // PAGE * PAGE
                    last = (region.offset + region.count) // PAGE * PAGE
                    if first < last:
                        fallocate(self.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                  first, last - first)
                    return
        finally:
            lock_release(&header.lock)
        raise SharedMemoryError(f"no region {name!r}")

    def address(self, uint64_t offset):
        """Where this process has `offset` mapped, for the edges that take an address."""
        return <size_t> self.at(offset)

    def close(self):
        """Unmaps; what still points into the segment must not be used again."""
        self._unmap()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
