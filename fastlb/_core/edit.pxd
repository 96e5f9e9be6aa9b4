# Edits of a head without rebuilding it: cuts and insertions around the received bytes, made into
# a scatter-gather list or one copy. Knows offsets only, nothing of HTTP.

from libc.stdint cimport uint16_t, uint32_t

from fastlb._core.limits cimport EDIT_CUTS_MAX, EDIT_INSERTS_MAX

cdef extern from "<sys/uio.h>" nogil:
    ctypedef struct iovec "struct iovec":
        void* iov_base
        size_t iov_len

cdef enum EditError:
    EDIT_FULL = -1                   # more cuts, insertions or vectors than there is room for

ctypedef struct Cut:                 # bytes [start, end) are left out
    uint32_t start
    uint32_t end

ctypedef struct Insert:
    const char* at                   # owner: the caller; valid until the list has been sent
    uint32_t bytes
    uint32_t offset                  # goes before the byte at this offset

ctypedef struct HeadEdit:
    uint16_t cut_count
    uint16_t insert_count
    Cut cuts[EDIT_CUTS_MAX]          # ascending, apart from each other
    Insert inserts[EDIT_INSERTS_MAX]  # ascending; equal offsets in the order of their insertion


cdef inline void edit_reset(HeadEdit* edit) noexcept nogil:
    edit.cut_count = 0
    edit.insert_count = 0


# Leaves out [start, end), joined with cuts that it touches. 0 or EDIT_FULL.
cdef int edit_cut(HeadEdit* edit, uint32_t start, uint32_t end) noexcept nogil
# Puts `count` bytes before the byte at `offset`, also where that byte is cut. 0 or EDIT_FULL.
cdef int edit_insert(
    HeadEdit* edit, uint32_t offset, const char* at, uint32_t count
) noexcept nogil
# Cut and insertion in one: the request line, one field's value.
cdef int edit_replace(
    HeadEdit* edit, uint32_t start, uint32_t end, const char* at, uint32_t count
) noexcept nogil
# Size of the edited head, whose received form has `head_bytes` bytes.
cdef uint32_t edit_bytes(const HeadEdit* edit, uint32_t head_bytes) noexcept nogil
# Fills `out` and returns the count of vectors, or EDIT_FULL if they are more than `max_count`;
# EDIT_IOVECS_MAX of limits.pxd always suffices.
cdef int edit_iovecs(
    const HeadEdit* edit, const char* buf, uint32_t head_bytes, iovec* out, uint32_t max_count
) noexcept nogil
# Writes the edited head into `out` and returns its size, or EDIT_FULL if `room` is too small.
cdef int edit_copy(
    const HeadEdit* edit, const char* buf, uint32_t head_bytes, char* out, uint32_t room
) noexcept nogil
