# Memory for tests whose last byte is followed by a page that cannot be read: an over-read dies.

# `data` copied so that it ends at the unreadable page; valid until the next call.
cdef const char* arena_place(const char* data, size_t count) except NULL
