"""Cuts and insertions around a received head, kept sorted, joined when the head is sent.

A head gets a handful of edits, so the arrays are sorted by insertion from their end.
"""

from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memcpy, memmove

from fastlb._core.debug cimport BUG_ON
from fastlb._core.limits cimport EDIT_CUTS_MAX, EDIT_INSERTS_MAX, EDIT_IOVECS_MAX

if EDIT_IOVECS_MAX < EDIT_CUTS_MAX + 1 + 2 * EDIT_INSERTS_MAX:
    raise ImportError("EDIT_IOVECS_MAX does not hold every piece of an edited head")


cdef int edit_cut(HeadEdit* edit, uint32_t start, uint32_t end) noexcept nogil:
    cdef uint32_t low = edit.cut_count
    cdef uint32_t high = edit.cut_count
    BUG_ON(start > end)
    if start == end:
        return 0
    while high > 0 and edit.cuts[high - 1].start > end:
        high -= 1
    low = high
    while low > 0 and edit.cuts[low - 1].end >= start:
        low -= 1
    # The cuts [low, high) touch the new one and become part of it.
    if low < high:
        start = min(start, edit.cuts[low].start)
        end = max(end, edit.cuts[high - 1].end)
    elif edit.cut_count == EDIT_CUTS_MAX:
        return EDIT_FULL
    memmove(&edit.cuts[low + 1], &edit.cuts[high], (edit.cut_count - high) * sizeof(Cut))
    edit.cuts[low].start = start
    edit.cuts[low].end = end
    edit.cut_count = <uint16_t>(edit.cut_count + 1 - (high - low))
    return 0


cdef int edit_insert(
    HeadEdit* edit, uint32_t offset, const char* at, uint32_t count
) noexcept nogil:
    cdef uint32_t i = edit.insert_count
    if count == 0:
        return 0
    if i == EDIT_INSERTS_MAX:
        return EDIT_FULL
    while i > 0 and edit.inserts[i - 1].offset > offset:
        edit.inserts[i] = edit.inserts[i - 1]
        i -= 1
    edit.inserts[i].at = at
    edit.inserts[i].bytes = count
    edit.inserts[i].offset = offset
    edit.insert_count += 1
    return 0


cdef int edit_replace(
    HeadEdit* edit, uint32_t start, uint32_t end, const char* at, uint32_t count
) noexcept nogil:
    if edit_cut(edit, start, end) < 0:
        return EDIT_FULL
    return edit_insert(edit, start, at, count)


cdef uint32_t edit_bytes(const HeadEdit* edit, uint32_t head_bytes) noexcept nogil:
    cdef uint32_t i
    for i in range(edit.cut_count):
        head_bytes -= edit.cuts[i].end - edit.cuts[i].start
    for i in range(edit.insert_count):
        head_bytes += edit.inserts[i].bytes
    return head_bytes


ctypedef struct Pieces:              # a walk over the edited head
    uint32_t at                      # next received byte
    uint32_t cut                     # next cut
    uint32_t insert                  # next insertion


# The next piece of the edited head; False at its end. Never empty.
cdef inline bint _piece_next(
    Pieces* walk, const HeadEdit* edit, const char* buf, uint32_t head_bytes,
    const char** piece, uint32_t* piece_bytes
) noexcept nogil:
    cdef uint32_t stop
    while True:
        if walk.insert < edit.insert_count and edit.inserts[walk.insert].offset <= walk.at:
            piece[0] = edit.inserts[walk.insert].at
            piece_bytes[0] = edit.inserts[walk.insert].bytes
            walk.insert += 1
            return True
        stop = head_bytes
        if walk.cut < edit.cut_count:
            stop = edit.cuts[walk.cut].start
            if stop <= walk.at:
                # An insertion inside the cut stands where the cut is: before what follows it.
                walk.at = edit.cuts[walk.cut].end
                walk.cut += 1
                continue
        if walk.insert < edit.insert_count and edit.inserts[walk.insert].offset < stop:
            stop = edit.inserts[walk.insert].offset
        if stop == walk.at:
            return False
        piece[0] = buf + walk.at
        piece_bytes[0] = stop - walk.at
        walk.at = stop
        return True


cdef int edit_iovecs(
    const HeadEdit* edit, const char* buf, uint32_t head_bytes, iovec* out, uint32_t max_count
) noexcept nogil:
    cdef Pieces walk
    cdef const char* piece
    cdef uint32_t piece_bytes
    cdef uint32_t count = 0
    walk.at = walk.cut = walk.insert = 0
    while _piece_next(&walk, edit, buf, head_bytes, &piece, &piece_bytes):
        if count == max_count:
            return EDIT_FULL
        out[count].iov_base = <void*>piece
        out[count].iov_len = piece_bytes
        count += 1
    return <int>count


cdef int edit_copy(
    const HeadEdit* edit, const char* buf, uint32_t head_bytes, char* out, uint32_t room
) noexcept nogil:
    cdef Pieces walk
    cdef const char* piece
    cdef uint32_t piece_bytes
    cdef uint32_t written = 0
    walk.at = walk.cut = walk.insert = 0
    while _piece_next(&walk, edit, buf, head_bytes, &piece, &piece_bytes):
        if piece_bytes > room - written:
            return EDIT_FULL
        memcpy(out + written, piece, piece_bytes)
        written += piece_bytes
    return <int>written
